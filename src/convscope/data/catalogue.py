"""The data sets that are known by name, and where the images of a request come from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convscope.data.arrays import open_arrays
from convscope.data.folders import open_folder
from convscope.data.labels import metadata_of, open_labelled, open_tables, tables_in
from convscope.data.layouts import read_tree
from convscope.data.source import Source
from convscope.data.spec import DataSpec, Labels
from convscope.data.tables import open_hub, open_parquet
from convscope.errors import DataError, SettingError, UnknownNameError


@dataclass(frozen=True)
class CatalogueSet:
    """A data set of the catalogue.

    Args:
        line: what it is, in one line.
        hub: its name on the Hugging Face Hub; none for a generated set.
        copy: the folder's name under CONVSCOPE_DATA.
        image_size, grey, split: taken where the request does not say.
    """

    line: str
    hub: str = ""
    copy: str = ""
    image_size: int | None = None
    grey: bool = False
    split: str | None = None


LINES = "lines"
_CATALOGUE = {
    LINES: CatalogueSet(
        "generated: one line on black, 96 classes of length, width, colour and angle, 96,000 images, 28×28×3",
        split="60/40",
    ),
    "mnist": CatalogueSet("handwritten digits, 70,000 images, 28×28 grey", "ylecun/mnist", "mnist"),
    "fashion-mnist": CatalogueSet(
        "articles of clothing, 70,000 images, 28×28 grey", "zalando-datasets/fashion_mnist", "fashion-mnist"
    ),
    "cifar10": CatalogueSet("ten kinds of animals and vehicles, 60,000 images, 32×32×3", "uoft-cs/cifar10", "cifar10"),
    "cifar10-grey28": CatalogueSet("CIFAR-10 in grey at 28×28", "uoft-cs/cifar10", "cifar10", image_size=28, grey=True),
    "cats-dogs": CatalogueSet(
        "photographs of cats and dogs, scaled to 128×128×3",
        "microsoft/cats_vs_dogs",
        "cats-dogs",
        image_size=128,
    ),
}


def data_names() -> dict[str, str]:
    """The names that `load_data` knows, each with one line of description."""
    return {name: entry.line for name, entry in _CATALOGUE.items()}


def hub_name(source: str) -> str | None:
    """The name that a source has on the Hugging Face Hub; None for one that is not there."""
    if source in _CATALOGUE:
        return _CATALOGUE[source].hub or None
    return source.removeprefix("hub:").strip("/ ") if source.startswith("hub:") else None


def with_defaults(spec: DataSpec) -> DataSpec:
    """The spec with the catalogue's defaults and normalize: own filled in where it does not say, and its paths made absolute.

    So it means the same from any working folder.

    Raises:
        SettingError: the Lines set is asked for in another size or depth, or in grey; or a grey set in colour.
    """
    spec = spec.model_copy(update={"normalize": spec.normalize or "own"})
    if spec.source not in _CATALOGUE:
        return located(spec, Path())
    entry = _CATALOGUE[spec.source]
    if spec.source == LINES:
        drawn: dict[str, list[object]] = {
            "grey": [False],
            "channels": [None, 3],
            "bits": [8],
            "image_size": [None, 28],
        }
        for key, values in drawn.items():
            if getattr(spec, key) not in values:
                raise SettingError(
                    f"{key}: lines are drawn in colour at 28×28, of 8 bits, and in no other way; leave it out"
                )
    if entry.grey and spec.channels == 3:
        raise SettingError(f"channels: {spec.source} is grey; leave it out, or take a set in colour and its image_size")
    filled = {
        "image_size": spec.image_size or entry.image_size,
        "channels": 1 if entry.grey else spec.channels,
        "grey": spec.grey or entry.grey,
        "split": spec.split or entry.split,
    }
    return spec.model_copy(update=filled)


def located(spec: DataSpec, folder: Path) -> DataSpec:
    """The spec with absolute paths of what lies here or in a folder; a table of labels may also lie in its source.

    What is not found stays as it is, to be named where it is missed.
    """
    source = Path(spec.source).expanduser()
    path = next((place for place in (source, folder / source) if os.path.exists(place)), None)
    update: dict[str, Any] = {}
    if path is not None and spec.source not in _CATALOGUE:
        update["source"] = os.path.abspath(path)
    if spec.labels and spec.labels.table:
        table = Path(spec.labels.table).expanduser()
        places = [(path or source) / table, table, folder / table]
        table_path = next((place for place in places if os.path.isfile(place)), None)
        if table_path is not None:
            update["labels"] = spec.labels.model_copy(update={"table": os.path.abspath(table_path)})
    return spec.model_copy(update=update)


def find(spec: DataSpec) -> tuple[str, Source]:
    """What the images come from, still encoded, and the short name of the set.

    A name of the catalogue is looked for in the folder CONVSCOPE_DATA first, then on the Hub.

    Raises:
        UnknownNameError: it is no name of the catalogue and no path.
        DataError: nothing is there, or it is none of the kinds that can be read.
    """
    source, labels = spec.source, spec.labels
    if entry := _CATALOGUE.get(source):
        folder = os.environ.get("CONVSCOPE_DATA")
        copy = Path(folder).expanduser() / entry.copy if folder else None
        if copy and copy.is_dir():
            return source, replace(_open_folder(copy, labels), words="copy in CONVSCOPE_DATA")
        return source, open_hub(entry.hub, _columns_alone(labels, entry.hub))
    if (name := hub_name(source)) is not None:
        if not name:
            raise DataError(f"{source}: names no set; write hub:owner/name, such as hub:ylecun/mnist")
        return name.rsplit("/", 1)[-1], open_hub(name, _columns_alone(labels, source))
    path = Path(source).expanduser()
    if path.is_dir():
        return path.absolute().name, _open_folder(path, labels)
    if os.path.exists(path):
        return path.absolute().name.removesuffix(path.suffix), _open_file(path, labels)
    if os.sep in source or "/" in source or path.suffix:
        raise DataError(
            f"{source}: no such file or folder; give a path, hub:owner/name or one of {', '.join(_CATALOGUE)}"
        )
    raise UnknownNameError("data set", source, _CATALOGUE, "known, and no path")


def _columns_alone(labels: Labels | None, where: str) -> Labels | None:
    """Labels that are columns of the source itself."""
    if labels and (labels.table or labels.pattern):
        raise DataError(
            f"{where}: holds its labels itself, and data.labels names a table or a pattern beside it; name a column of its "
            "own with data.labels.label"
        )
    return labels


def _open_file(path: Path, labels: Labels | None) -> Source:
    if path.suffix == ".parquet":
        return open_parquet(path, [path], _columns_alone(labels, str(path)))
    if path.suffix == ".npz":
        if labels:
            raise DataError(f"{path}: holds its labels as arrays; leave data.labels out")
        return open_arrays(path)
    raise DataError(
        f"{path}: is none of the kinds that can be read; "
        "give an image folder, a .parquet file, a folder of them, or an .npz file"
    )


def _open_folder(path: Path, labels: Labels | None) -> Source:
    tree = read_tree(path)
    if labels and (labels.table or labels.pattern):
        return open_labelled(tree, labels)
    if metadata := metadata_of(tree):
        return open_tables(tree, metadata, labels or Labels())
    tables = tree.parquet_files
    images = [folder for folder in tree.below() if folder.images]
    if tables and len(images) > 1:  # a single one may hold the pictures of a page about the tables
        raise DataError(
            f"{path}: holds parquet tables ({tables[0].name} …) and folders of images ({images[0].name} …); "
            "give the one or the other, or name the table that holds the labels with data.labels"
        )
    if tables:
        return open_parquet(path, tables, labels)
    if labels:
        raise DataError(
            f"{path}: is an image folder; data.labels needs a table or a pattern: data.labels.table=labels.csv"
        )
    if not images and (arrow := next((file for file in tree.all_files if file.suffix == ".arrow"), None)):
        raise DataError(
            f"{path}: holds {arrow.name}, as save_to_disk of `datasets` writes it, which is not read; write each split "
            "as parquet: dataset['train'].to_parquet('train.parquet')"
        )
    beside = tables_in(tree) if images else []
    hint = f"are the labels in {' or '.join(beside)}? Then set data.labels={beside[0] if len(beside) == 1 else 'NAME'}"
    try:
        image_folder = open_folder(tree)
    except DataError as error:
        if beside:
            raise DataError(f"{error}; or {hint}") from None
        raise
    if beside and len(image_folder.classes["class"]) == 1:
        raise DataError(f"{path}: {image_folder.classes['class'][0]} would be the only class; {hint}")
    return image_folder
