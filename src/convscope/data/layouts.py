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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convscope.base.words import counted
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

    @property
    def parquet_files(self) -> list[Path]:
        """The parquet files among them."""
        return [file for file in self.all_files if file.suffix == ".parquet"]


def read_tree(path: Path, above: tuple[tuple[int, int], ...] = ()) -> Folder:
    """All folders and files below a folder, links followed.

    Args:
        above: device and inode of the folders that it lies in.
    Raises:
        DataError: a link leads back to a folder that it lies in, or a folder cannot be read.
    """
    try:
        status = os.stat(path)
        with os.scandir(path) as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{path}: this folder cannot be read ({error.strerror}); check its permissions") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise DataError(f"{path}: this link leads back to a folder that it lies in; remove it")
    folders = {
        entry.name
        for entry in visible
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))
    }
    return Folder(
        path,
        tuple(sorted(entry.name for entry in visible if entry.name not in folders)),
        tuple(read_tree(path / name, (*above, identity)) for name in sorted(folders)),
    )


def understood(root: Folder) -> tuple[dict[str, dict[str, Folder]], tuple[str, ...]]:
    """What the folders below `root` stand for, by the rules at the top of this module: for train, val, test, or all, the folder
    of each class; and the same in words, a line each.

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
    passed_over = _passed_over(root, [folder.path for folder in splits.values()])
    return {split: classes[split] for split in splits}, (
        *_in_words(root.path, splits, classes),
        *(f"passed over: {path.relative_to(root.path).as_posix()}" for path in passed_over),
    )


def _in_words(root: Path, splits: dict[str, Folder], classes: dict[str, dict[str, Folder]]) -> Iterator[str]:
    """A line for each split, and for each class that is called like a split or has sub-folders."""
    for split in sorted(splits, key=["train", "val", "test", "all"].index):
        n_files = sum(len(folder.all_files) for folder in classes[split].values())
        path = splits[split].path
        place = "the folder itself" if path == root else path.relative_to(root).as_posix()
        yield f"{split}: {counted(len(classes[split]), 'class', 'es')}, {counted(n_files, 'file')} in {place}"
    for name in dict.fromkeys(name for split in splits for name in classes[split]):
        if split_in(name):
            yield f"{name} is taken for a class, though it is called like a split"
        own = [by_class[name] for by_class in classes.values() if name in by_class]
        deeper = [inner for folder in own for inner in folder.below() if inner.name != name]
        if deeper:
            n_folders = sum(bool(inner.files) for inner in deeper)
            yield f"{name}: files of {counted(n_folders, 'sub-folder')} among them"


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
    if not any(named.get(folder.name) == "train" and folder.holds_folders for folder in top.folders):
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
            level, f"{counted(n, 'image')} ({first} …) beside the class folders {'has' if n == 1 else 'have'} no class"
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


def _passed_over(folder: Folder, levels: Collection[Path]) -> Iterator[Path]:
    """What lies between a folder and the class folders, which are in those of `levels`, and is used for nothing."""
    for name in folder.files:
        file = folder.path / name
        if not file.exists():
            raise DataError(f"{file}: is a link to something that is not there; mend or remove it")
        yield file
    if folder.path not in levels:
        for inner in folder.folders:
            if any(level.is_relative_to(inner.path) for level in levels):
                yield from _passed_over(inner, levels)
            else:
                yield inner.path


def _unclear(folder: Folder, why: str) -> DataError:
    return DataError(f"{folder.path}: {why}; {LAYOUT}: move or rename folders until it is one of these")
