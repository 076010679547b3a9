"""Readers of the official file formats: from a path to arrays, with no knowledge of data sets or downloads.

Every reader raises ValueError, or the error of the library that reads, on content it does not understand.
"""

import gzip
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from mialib.progress import follow

IDX_UINT8 = 0x08


def read_idx(path: Path) -> np.ndarray:
    """A gzipped IDX file of unsigned bytes, as MNIST's: 2 zero bytes, type, rank, big-endian uint32 sizes,
    then data.

    Returns uint8 of the shape in the header. Source: http://yann.lecun.com/exdb/mnist/, "The IDX file
    format".
    """
    with gzip.open(path, "rb") as file:
        content = file.read()
    if content[:3] != bytes((0, 0, IDX_UINT8)):
        raise ValueError(f"not an IDX file of unsigned bytes, it begins with {content[:4]!r}")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != shape.prod():
        raise ValueError(
            f"the IDX header promises shape {shape.tolist()}, there are {values.size} bytes of data"
        )
    return values.reshape(shape)


def read_tar_table(path: Path, member: str, columns: int) -> np.ndarray:
    """One text member of a (compressed) tar: comma-separated integers 0..255, quoted or not, no header.

    Returns uint8 (rows, columns).
    """
    with tarfile.open(path) as archive:
        files = {item.name.removeprefix("./"): item for item in archive if item.isfile()}
        if member not in files:
            raise ValueError(f"no member {member!r}, it holds {sorted(files)[:20]}")
        table = np.loadtxt(
            archive.extractfile(files[member]), np.uint8, delimiter=",", quotechar='"', ndmin=2
        )
    if table.shape[1] != columns:
        raise ValueError(f"member {member!r} has {table.shape[1]} columns, expected {columns}")
    return table


def list_image_folder(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Files (n), labels int64 (n,) and class names of path/{train,val,test}/<class>/*, or of path/<class>/*.

    Whichever of the three parts exist are joined in that order; within a part, by class and file name.
    Classes are numbered in the order of their names. Source: the layout that torchvision's ImageFolder and
    ImageNet use.
    """
    parts = [ImageFolder(path / part) for part in ("train", "val", "test") if (path / part).is_dir()]
    parts = parts or [ImageFolder(path)]
    for part in parts[1:]:
        if part.classes != parts[0].classes:
            odd = sorted(set(part.classes) ^ set(parts[0].classes))
            raise ValueError(f"{part.root} and {parts[0].root} differ in the classes (folders) {odd[:10]}")
    samples = [sample for part in parts for sample in part.samples]
    return [file for file, _ in samples], np.array([label for _, label in samples]), parts[0].classes


def decode_images(
    names: Sequence[str], open_file: Callable[[str], BinaryIO], size: int, *, grey: bool, title: str
) -> np.ndarray:
    """Decode images into uint8 (n, 3 or 1, size, size), in parallel threads with a progress bar on stderr.

    Each is scaled (bilinear, antialiased) so that its short side is `size`, and its centre square is kept.
    open_file: name -> binary file; called from several threads. Raises ValueError naming a broken image.
    """
    shape = (len(names), 1 if grey else 3, size, size)
    _check_memory(shape)
    images = np.empty(shape, np.uint8)

    def decode(i: int) -> None:
        try:
            with open_file(names[i]) as file, Image.open(file) as image:
                square = ImageOps.fit(
                    image.convert("L" if grey else "RGB"), (size, size), Image.Resampling.BILINEAR
                )
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three on broken files
            raise ValueError(f"cannot decode {names[i]}: {error}") from error
        images[i] = np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1)

    # Pillow lets go of the interpreter lock while it decodes and scales; all threads write into the one array
    work = Parallel(n_jobs=-1, require="sharedmem", return_as="generator_unordered")
    decoded = work(delayed(decode)(i) for i in range(len(names)))
    for _ in follow(decoded, title, "image", total=len(names)):
        pass
    return images


def _check_memory(shape: tuple[int, ...]) -> None:
    if not hasattr(os, "sysconf"):  # not on Windows
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if np.prod(shape, dtype=np.float64) > 0.8 * memory:
        needed = np.prod(shape, dtype=np.float64) / 2**30
        raise ValueError(
            f"{shape[0]} images of {shape[1:]} need {needed:.0f} GiB as bytes, this machine has"
            f" {memory / 2**30:.0f}: pass a smaller `subset`, or a smaller `size`"
        )
