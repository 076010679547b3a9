"""Build the face sets that `data.load` reads, from the original pictures: a folder, a .zip or a .tar(.gz).

`build("att", ...)` makes att_faces.npz, `build("lfw", ...)` makes lfw_a_64x64_min5.npz; they belong in the
folder faces/ of the data root. Pixels are uint8 (n, h, w), labels int64 (n,), 0-based.
"""

import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mialib.data import archives, download
from mialib.data.pictures import read_picture
from mialib.progress import follow
from mialib.store import write

ATT_NAME = re.compile(r"(?:^|/)s(?P<person>\d+)/(?P<number>\d+)\.pgm$")
LFW_NAME = re.compile(r"(?:^|/)(?P<person>[^/]+)/(?P=person)_(?P<number>\d{4})\.jpg$")
ATT_SIZE = (92, 112)  # width, height
LFW_SIZE = (250, 250)
LFW_BOX = (69, 69, 181, 181)  # left, upper, right, lower of the face in LFW-a; right and lower exclusive
LFW_SIDE = 64
COLOUR = 16  # grey levels between the channels of a pixel; no picture stored as grey comes near it
LIMIT = 2**30  # bytes of an original, unpacked: LFW has some 250 MB
PICTURE_LIMIT = 2**20  # bytes of one picture's file; the largest has some 60,000
LFW_MIN_PICTURES = 5
COMPLETE = {"att": (400, 40), "lfw": (13233, 5749)}  # pictures and people of the originals
FILES = {"att": "att_faces.npz", "lfw": "lfw_a_64x64_min5.npz"}

Pictures = dict[tuple[str, int], bytes]  # (person, number) -> the file's content


def build(kind: str, archive_path: str | Path, out_dir: str | Path) -> Path:
    """Read the original of `kind` ("att" or "lfw"), write its .npz and a checksum beside it, return its path.

    att: AT&T (ORL) Database of Faces, sK/J.pgm, https://cam-orl.co.uk/facedatabase.html.
    lfw: LFW-a, NAME/NAME_000N.jpg, https://talhassner.github.io/home/projects/lfwa/index.html.
    Raises ValueError for an unknown kind, a broken archive, pictures that are missing, broken, of another size or in
    colour, FileNotFoundError where there is no archive, FileExistsError where the .npz is there already.
    """
    if kind not in FILES:
        raise ValueError(f"kind is {kind!r}, must be one of {sorted(FILES)}")
    out = Path(out_dir) / FILES[kind]
    if out.exists():
        raise FileExistsError(f"{out} is there already; move it away to build it again")
    pictures = read_pictures(Path(archive_path), ATT_NAME if kind == "att" else LFW_NAME)
    counts = (len(pictures), len({person for person, _ in pictures}))
    if counts != COMPLETE[kind]:
        raise ValueError(
            f"{archive_path}: found {counts[0]} pictures of {counts[1]} people, the original of {kind!r} has"
            f" {COMPLETE[kind][0]} of {COMPLETE[kind][1]}; unpack it again, or get the original archive"
        )
    try:
        arrays = att_arrays(pictures) if kind == "att" else lfw_arrays(pictures)
    except ValueError as error:
        raise ValueError(f"{archive_path}: {error}") from error
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    out.parent.mkdir(parents=True, exist_ok=True)
    # the record first, then the file, whole or not at all: a build that stops leaves nothing that looks whole
    download.record(out, hashlib.sha256(content.getbuffer()).hexdigest())
    write(out, content.getvalue())
    return out


def read_pictures(path: Path, pattern: re.Pattern) -> Pictures:
    """The files below `path` whose names match: the groups `person` and `number` are the key.

    Raises ValueError for an archive that is broken or holds too much, FileNotFoundError where there is none.
    """
    pictures: Pictures = {}
    try:
        for name, content in _files(path, pattern):
            match = pattern.search(name)
            key = match["person"], int(match["number"])
            if key in pictures:
                raise ValueError(f"two files for picture {key[1]} of {key[0]!r}, the second is {name}")
            pictures[key] = content
    except FileNotFoundError:
        raise
    except Exception as error:  # the libraries raise errors of a dozen kinds on broken archives
        raise ValueError(f"{path}: {error}; unpack it again, or get the original archive") from error
    return pictures


def att_arrays(pictures: Pictures) -> dict[str, np.ndarray]:
    """x (n, 112, 92), y (n,): person sK is label K - 1; by person, then number. Pixels as in the files."""
    keys = sorted(pictures, key=lambda key: (int(key[0]), key[1]))
    x = np.stack([np.asarray(_grey(pictures, key, ATT_SIZE)) for key in follow(keys, "faces", "image")])
    y = np.array([int(person) - 1 for person, _ in keys])
    return {"x": x, "y": y}


def lfw_arrays(pictures: Pictures, min_pictures: int = LFW_MIN_PICTURES) -> dict[str, np.ndarray]:
    """x (n, 64, 64), y (n,), name (people,), image_no int16 (n,).

    Only people with at least `min_pictures` pictures. Label 0 is the person with the most, ties by name; rows
    by label, then number. Each 250x250 picture is cropped to the face and scaled with a Lanczos filter.
    """
    people, counts = np.unique([person for person, _ in pictures], return_counts=True)
    order = [i for i in np.lexsort((people, -counts)) if counts[i] >= min_pictures]
    label = {str(people[i]): rank for rank, i in enumerate(order)}
    keys = sorted((key for key in pictures if key[0] in label), key=lambda key: (label[key[0]], key[1]))
    side = (LFW_SIDE, LFW_SIDE)

    def face(key: tuple[str, int]) -> np.ndarray:
        return np.asarray(_grey(pictures, key, LFW_SIZE).crop(LFW_BOX).resize(side, Image.Resampling.LANCZOS))

    return {
        "x": np.stack([face(key) for key in follow(keys, "faces", "image")]),
        "y": np.array([label[person] for person, _ in keys]),
        "name": people[order],
        "image_no": np.array([number for _, number in keys], np.int16),
    }


def _grey(pictures: Pictures, key: tuple[str, int], size: tuple[int, int]) -> Image.Image:
    try:
        image = read_picture(io.BytesIO(pictures[key]), grey=False)
    except Exception as error:  # Pillow raises errors of a dozen kinds on broken files
        raise ValueError(f"picture {key[1]} of {key[0]!r} cannot be decoded: {error}") from error
    if image.size != size:
        raise ValueError(
            f"picture {key[1]} of {key[0]!r} is {image.size} (width, height), the original is {size}"
        )
    channels = np.asarray(image)
    if int((channels.max(2) - channels.min(2)).max()) > COLOUR:
        raise ValueError(
            f"picture {key[1]} of {key[0]!r} is in colour, the original is grey; of LFW take LFW-a, which is aligned too"
        )
    return image.convert("L")


def _files(path: Path, pattern: re.Pattern) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a folder, zip or tar whose name matches."""
    if path.is_dir():
        for file in path.rglob("*"):
            name = file.relative_to(path).as_posix()
            if pattern.search(name) and file.is_file():
                _check_size(name, file.stat().st_size)
                yield name, file.read_bytes()
    elif not path.is_file():
        raise FileNotFoundError(f"no such archive or folder: {path}")
    elif zipfile.is_zipfile(path):
        with archives.open_zip(path, LIMIT) as archive:
            for name in filter(pattern.search, archive.namelist()):
                _check_size(name, archive.getinfo(name).file_size)
                yield name, archive.read(name)
    else:
        yield from _tar_files(path, pattern)


def _tar_files(path: Path, pattern: re.Pattern) -> Iterator[tuple[str, bytes]]:
    try:
        with archives.open_tar(path, LIMIT) as (archive, members):
            for member in members:  # in the archive's order: seeking back in a compressed one is slow
                if archives.is_plain(member) and pattern.search(member.name):
                    _check_size(member.name, member.size)
                    yield member.name, archive.extractfile(member).read()
    except tarfile.TarError as error:
        raise ValueError(f"neither a folder nor a .zip nor a .tar(.gz), whole: {error}") from error


def _check_size(name: str, size: int) -> None:
    if size > PICTURE_LIMIT:
        raise ValueError(f"{name} has {size:,} bytes, a picture of the original at most {PICTURE_LIMIT:,}")
