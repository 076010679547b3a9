"""Pictures in one folder a class, as people keep them: which files there are, and of which class."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mialib.data import archives

# the usual names of a data set's parts, in lower case
PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
PICTURE_LIMIT = 2**29  # bytes of one file; 89 million pixels take fewer even when they are not packed


def list_image_folder(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Files (n), labels int64 (n,) and class names of path/{train,val,test}/<class>/*, or of path/<class>/*.

    Those of the three parts that exist, in any of their usual names and in any case (`PARTS`), are joined in that order;
    within a part, files are sorted by class and file name. Classes are numbered in the order of their names; a class
    folder without a picture in any part is left out with a warning. Hidden files and folders (.x, __MACOSX) are
    ignored. Pictures may lie deeper in a class folder. Links are followed, but a real folder is read once, so a link
    that leads back adds nothing. Source: the layout that torchvision's ImageFolder and ImageNet use.

    Raises:
        ValueError: parts beside other folders or with other classes, a class that is a link to another, no pictures.
    """
    root = os.path.realpath(path)
    parts = _parts(path)
    folders = [_class_folders(part, root) for part in parts]
    seen = {os.path.realpath(place) for place in parts}
    for folder in (folder for part in folders for folder in part.values()):
        if (real := os.path.realpath(folder)) in seen:
            raise ValueError(f"{folder} is a link to {real}, which is read already")
        seen.add(real)
    listed = [{name: _pictures(folder, root, seen) for name, folder in part.items()} for part in folders]
    names = sorted(set().union(*folders))
    empty = [name for name in names if not any(part.get(name) for part in listed)]
    classes = [name for name in names if name not in empty]
    if not classes:
        raise ValueError(f"{path}: no pictures ({', '.join(_endings())}) in one folder a class")
    if empty:
        warnings.warn(f"{path}: no pictures in the class folders {empty[:10]}; left out", stacklevel=2)
    for part, there in zip(parts, folders, strict=True):
        if odd := sorted(set(classes) - set(there)):
            raise ValueError(f"{part} and the other parts differ in the classes (folders) {odd[:10]}")
    files = [file for part in listed for name in classes for file in part[name]]
    _check_depth(folders[0], files)
    labels = [label for part in listed for label, name in enumerate(classes) for _ in part[name]]
    return files, np.array(labels, np.int64), classes


def _endings() -> tuple[str, ...]:
    """Of the names of pictures."""
    from torchvision.datasets.folder import IMG_EXTENSIONS  # here: seconds to import

    return IMG_EXTENSIONS


def _parts(path: Path) -> list[str]:
    """The folders that hold class folders: the parts, or the folder itself where there are none."""
    folders = _folders(str(path))
    found = {part: [name for name in folders if name.lower() in PARTS[part]] for part in PARTS}
    named = [name for names in found.values() for name in names]
    if not named:
        return [str(path)]
    if double := [names for names in found.values() if len(names) > 1]:
        raise ValueError(f"{path}: folders {double[0]} are the same part; keep one of them")
    if others := sorted(set(folders) - set(named)):
        raise ValueError(
            f"{path}: the parts {named} stand beside other folders {others[:10]}, which would be left out; move these"
            " away, or rename the first if they are classes"
        )
    return [os.path.join(path, name) for name in named]


def _folders(path: str) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted."""
    with os.scandir(path) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not archives.is_hidden(entry.name)
        )


def _class_folders(part: str, root: str) -> dict[str, str]:
    folders = {name: os.path.join(part, name) for name in _folders(part)}
    folders = {name: folder for name, folder in folders.items() if not _leads_back(folder, root)}
    if not folders:
        raise ValueError(f"{part} holds no folders; it must hold one folder of pictures for each class")
    return folders


def _leads_back(place: str, root: str) -> bool:
    """Whether a folder is, by a link, the root of the set or above it."""
    return os.path.join(root, "").startswith(os.path.join(os.path.realpath(place), ""))


def _pictures(folder: str, root: str, seen: set[str]) -> list[str]:
    """Pictures at any depth, sorted by folder, then name; `seen`: real folders that are already read, extended here."""

    def is_new(place: str) -> bool:
        real = os.path.realpath(place)
        return not (real in seen or _leads_back(place, root) or seen.add(real))

    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        folders[:] = [
            name
            for name in sorted(folders)
            if not archives.is_hidden(name) and is_new(os.path.join(place, name))
        ]
        pictures = [name for name in names if name.lower().endswith(_endings())]
        found.append((place, sorted(name for name in pictures if not archives.is_hidden(name))))
    return [os.path.join(place, name) for place, names in sorted(found) for name in names]


def _check_depth(folders: dict[str, str], files: list[str]) -> None:
    """Refuse one class whose pictures all lie in folders of their own: that class folder was probably meant."""
    inner = {os.path.dirname(file) for file in files}
    if len(folders) == 1 and len(inner) > 1 and inner.isdisjoint(folders.values()):
        raise ValueError(
            f"{next(iter(folders.values()))} is the only class, and holds folders of pictures; if those are the"
            " classes, pass this folder"
        )


def open_picture(name: str) -> BinaryIO:
    """A picture's file; one with too many bytes, a link to nothing, a pipe or a device is refused before it is read."""
    if not os.path.isfile(name):
        raise ValueError("no such file" if not os.path.exists(name) else "not a file")
    if (size := os.path.getsize(name)) > PICTURE_LIMIT:
        raise ValueError(f"{size:,} bytes, more than {PICTURE_LIMIT:,}")
    return open(name, "rb")
