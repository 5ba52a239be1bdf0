"""How a folder of images is laid out: which of its folders are splits, wrappers and classes, decided by these rules.

- A folder that holds nothing but one folder of folders is a wrapper; what is inside counts. So are `seg_train/seg_train`
  and `train/images`.
- Folders are splits where one called like a training split (`train`, `Training`, `train_set`, `seg_train`, `traindata`)
  holds class folders. Then each other folder must be a split as well, with the same classes.
- Otherwise the folders are the classes, also one called `test` or `train` that holds images itself.
- Every file below a class folder is one of its images. Links are followed.

What fits two readings, or would leave out images, is refused with the folders named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convscope.data.source import split_of
from convscope.errors import DataError

LAYOUT = "expected train/<class>/…, val/<class>/…, test/<class>/… or <class>/…"

_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"}  # of macOS, NAS, disks
_IMAGE_ENDINGS = re.compile(
    r"\.(avif|bmp|dib|gif|hei[cf]|ico|j2k|jfif|jp2|jpe?g?|p[bgnp]m|pcx|png|tga|tiff?|webp)", re.IGNORECASE
)
_NO_CLASSES = re.compile("(image|img|label|mask|annotation)s?", re.IGNORECASE)


def has_image_ending(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return bool(_IMAGE_ENDINGS.fullmatch(os.path.splitext(name)[1]))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or what systems and file managers leave."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


@dataclass(frozen=True)
class Folder:
    """A folder on the disk; hidden files and those that file managers leave are not in it.

    Attributes:
        path: where it lies, through the links that lead there.
        files: names of its own files and dangling links, sorted.
        folders: its sub-folders, by name.
    """

    path: Path
    files: tuple[str, ...]
    folders: tuple[Folder, ...]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def images(self) -> list[str]:
        """Names of its own files that end as images do."""
        return [name for name in self.files if has_image_ending(name)]

    @property
    def holds_folders(self) -> bool:
        """Whether its images are all in sub-folders: it is a split, a wrapper, or a class that is divided further."""
        return bool(self.folders) and not self.images

    def below(self) -> Iterator[Folder]:
        """It and all folders below it."""
        yield self
        for folder in self.folders:
            yield from folder.below()

    @cached_property
    def all_files(self) -> list[Path]:
        """Its files and those of all folders below it, in the order of their paths."""
        return sorted(folder.path / name for folder in self.below() for name in folder.files)

    def parquet_files(self) -> list[Path]:
        """Its parquet files and those of all folders below it, in the order of their paths."""
        paths = (folder.path / name for folder in self.below() for name in folder.files if name.endswith(".parquet"))
        return sorted(paths)


def read_tree(path: Path) -> Folder:
    """All folders and files below a folder, links followed.

    Raises:
        DataError: a link leads back to a folder that it lies in, or a folder cannot be read.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[tuple[int, int], ...]) -> Folder:
    try:
        status = os.stat(path)
        with os.scandir(path) as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{path}: this folder cannot be read ({error.strerror}); check its permissions") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise DataError(f"{path}: this link leads back to a folder that it lies in; remove it")
    folders = {entry.name for entry in visible if _is_folder(entry)}
    return Folder(
        path,
        tuple(sorted(entry.name for entry in visible if entry.name not in folders)),
        tuple(_read(path / name, (*above, identity)) for name in sorted(folders)),
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


@dataclass(frozen=True)
class Layout:
    """What the folders of a data set stand for.

    Attributes:
        root: the data set's folder.
        splits: train, val, test, or all → the folder that holds its class folders.
        classes: of each split, class → its folder.
        passed_over: files beside the class folders that are no images, and folders without any file.
    """

    root: Path
    splits: dict[str, Folder]
    classes: dict[str, dict[str, Folder]]
    passed_over: tuple[Path, ...]

    def in_words(self) -> tuple[str, ...]:
        """A line for each split, for each class that is called like a split, and for what is passed over."""
        lines = [
            f"{split}: {_counted(len(classes), 'class', 'es')}, "
            f"{_counted(sum(len(f.all_files) for f in classes.values()), 'file')} in {self._place(self.splits[split].path)}"
            for split in ("train", "val", "test", "all")
            if (classes := self.classes.get(split))
        ]
        for name in dict.fromkeys(name for classes in self.classes.values() for name in classes):
            if split_in(name):
                lines.append(f"{name} is taken for a class, though it is called like a split")
            deeper = [f for classes in self.classes.values() if name in classes for f in classes[name].below()]
            if any(folder.name != name for folder in deeper):
                inner = len([folder for folder in deeper if folder.files and folder.name != name])
                lines.append(f"{name}: files of {_counted(inner, 'sub-folder')} among them")
        return (*lines, *(f"passed over: {self._place(path)}" for path in self.passed_over))

    def _place(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path != self.root else "the folder itself"


def understood(root: Folder) -> Layout:
    """What the folders below `root` stand for, by the rules at the top of this module.

    Raises:
        DataError: there are no class folders, one is empty, or the layout can be read in two ways.
    """
    top = _without_wrapper(root)
    splits = _splits(top) or {"all": top}
    classes: dict[str, dict[str, Folder]] = {}
    for split in sorted(splits, key=lambda split: split != "train"):
        names = {folder.name for folder in splits[split].folders}
        if not classes or not names <= classes["train"].keys():
            splits[split] = _without_wrapper(splits[split])
        classes[split] = _classes(splits[split])
    ordered = {split: classes[split] for split in splits}
    return Layout(root.path, splits, ordered, tuple(_passed_over(root, splits)))


def split_in(name: str) -> str | None:
    """The split that a folder's name tells of: "seg_train" and "TrainSet" are 'train'; None where it tells of none, or two.

    Example:
        >>> split_in("test_set"), split_in("attest"), split_in("train_test")
        ('test', None, None)
    """
    splits = {split_of([word]) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)} - {None}
    return splits.pop() if len(splits) == 1 else None


def _without_wrapper(folder: Folder) -> Folder:
    while len(folder.folders) == 1 and folder.folders[0].holds_folders and not folder.images:
        folder = folder.folders[0]
    return folder


def _splits(top: Folder) -> dict[str, Folder]:
    """The splits in a folder; none where its folders are the classes."""
    named = {folder.name: split for folder in top.folders if (split := split_in(folder.name))}
    by_name = {folder.name: folder for folder in top.folders}
    if not any(split == "train" and by_name[name].holds_folders for name, split in named.items()):
        _check_classes_beside(top, named)
        return {}
    splits: dict[str, Folder] = {}
    for folder in top.folders:
        split = named.get(folder.name)
        if split in splits:
            raise _unclear(
                top, f"{splits[split].name} and {folder.name} are both called like {split}; keep one of them"
            )
        if split and folder.holds_folders:
            splits[split] = folder
        elif split:
            wrong = "holds images, but no class folders" if folder.files else "is empty"
            raise _unclear(top, f"{folder.name} is called like the split {split} and {wrong}")
        elif folder.all_files:
            names = " and ".join(named)
            raise _unclear(
                top, f"{names} {'are splits' if len(named) > 1 else 'is a split'}, and {folder.name} is none"
            )
    return splits  # in the order of their names, which the division of pooled images by a seed hangs on


def _check_classes_beside(top: Folder, named: dict[str, str]) -> None:
    """Refuses folders that are called like splits where none of them is one to train on, unless they can only be classes."""
    if named and len(named) == len(top.folders):
        raise _unclear(top, f"{' and '.join(named)} are called like splits, and none is a train/ with class folders")
    names = {folder.name for folder in top.folders}
    for folder in top.folders:
        if folder.name in named and folder.holds_folders and names & {inner.name for inner in folder.folders}:
            raise _unclear(top, f"{folder.name} holds class folders and lies beside them")


def _classes(level: Folder) -> dict[str, Folder]:
    """The class folders in a folder, by name."""
    if not level.folders:
        raise DataError(f"{level.path}: no class folders in it; {LAYOUT}")
    if level.images:
        n, first = len(level.images), level.images[0]
        raise _unclear(
            level, f"{_counted(n, 'image')} ({first} …) beside the class folders {'has' if n == 1 else 'have'} no class"
        )
    if empty := [folder for folder in level.folders if not folder.all_files]:
        raise DataError(f"{empty[0].path}: this class folder is empty; put images into it or remove it")
    names = [folder.name for folder in level.folders]
    if len(names) > 1 and all(map(_NO_CLASSES.fullmatch, names)):
        raise _unclear(level, f"{' and '.join(names)} are no classes")
    without = [folder for folder in level.folders if not any(inner.images for inner in folder.below())]
    if without and len(without) < len(names):
        raise _unclear(level, f"{without[0].name} holds no image files, as the other folders do")
    if all(split_in(name) for name in names) and any(folder.holds_folders for folder in level.folders):
        raise _unclear(level, f"{' and '.join(names)} are called like splits")
    for folder in level.folders:
        inner = {split_in(each.name) for each in folder.folders} - {None}
        if len(inner) > 1:
            raise _unclear(level, f"{folder.name} holds splits of its own; put the splits above the classes")
    return {folder.name: folder for folder in level.folders}


def _passed_over(root: Folder, splits: dict[str, Folder]) -> Iterator[Path]:
    """What lies between the root and the class folders and is used for nothing."""
    levels = [folder.path for folder in splits.values()]
    ways = {way for level in levels for way in (level, *level.parents) if way.is_relative_to(root.path)}
    for folder in root.below():
        if folder.path in ways:
            files = [folder.path / name for name in folder.files]
            if dangling := [file for file in files if not file.exists()]:
                raise DataError(f"{dangling[0]}: is a link to something that is not there; mend or remove it")
            yield from files
        elif folder.path.parent in ways and folder.path.parent not in levels:
            yield folder.path


def _unclear(folder: Folder, why: str) -> DataError:
    return DataError(f"{folder.path}: {why}; {LAYOUT}: move or rename folders until it is one of these")


def _counted(n: int, what: str, plural: str = "s") -> str:
    return f"{n:,} {what}{'' if n == 1 else plural}"
