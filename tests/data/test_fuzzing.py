"""Seeded damage to every kind of file that the data room reads, in a process of its own with a bound on its memory.

Whatever is done to a file, it is read or refused by a ValueError that names it, nothing is written beside it, no
folder outside the root changes, and the process neither dies nor outgrows its bound. CI does some rounds of it, the slow
test as many as fit in two minutes; a failure prints its case, which `python -m tests.data.test_fuzzing KIND SEED` repeats.
"""

import gzip
import io
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as tv
from PIL import Image

from mialib import REPO_ROOT
from mialib.data import download, faces, load, loaders

MEMORY = 3 * 2**30  # bytes of address space beyond what the imports took
GROWTH = 2**30  # bytes of memory in use beyond what the undamaged files took
# each thread takes address space for its stack and its memory, used or not
FEW_THREADS = {"LOKY_MAX_CPU_COUNT": "2", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
STRANGE = (0, 1, 0x7F, 0x80, 0xFF)


def packed(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def picture(kind: str, pixels: np.ndarray, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def rows(*columns: int) -> bytes:
    generator = np.random.default_rng(1)
    table = generator.integers(0, 2, columns)
    table[:, 0] = generator.integers(1, 3, len(table))
    return "\n".join(",".join(map(str, row)) for row in table).encode()


def official() -> dict[str, dict[str, bytes]]:
    """Small files in the official layouts: kind -> path below the root -> content. The first is the one that is damaged."""
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (2, 28, 28), dtype=np.uint8)
    colour = generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    smooth = np.kron(colour[:3, :3], np.ones((8, 8, 1), np.uint8))
    idx_files = {
        f"MNIST/raw/{part}-{what}-ubyte.gz": gzip.compress(idx(array))
        for part in ("train", "t10k")
        for what, array in (("images-idx3", grey), ("labels-idx1", np.array([1, 9], np.uint8)))
    }
    batch = pickle.dumps({"data": colour[:1, :1].repeat(1024, 0).reshape(1, 3072), "labels": [3]}, 2 + 1)
    cifar = {f"cifar-10-batches-py/{name}": batch for name in ("data_batch_1", "test_batch", "batches.meta")}
    svhn = io.BytesIO()
    scipy.io.savemat(
        svhn, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)}, do_compression=True
    )
    arrays = io.BytesIO()
    np.savez_compressed(
        arrays, x=generator.integers(0, 256, (2, 112, 92), dtype=np.uint8), y=np.array([0, 1])
    )
    tiles = {f"tiles/0{i}_X/1.tif": picture("TIFF", colour) for i in range(8)}
    att = {"s1/1.pgm": picture("PPM", generator.integers(0, 256, (112, 92), dtype=np.uint8))}
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "idx": idx_files,
        "idx labels": dict(reversed(idx_files.items())),
        "batch": cifar,
        "mat": {f"{split}_32x32.mat": svhn.getvalue() for split in ("train", "test")},
        "location": {"location/dataset_location.tgz": packed({"bangkok": rows(3, 447)})},
        "purchase": {"purchase/dataset_purchase.tgz": packed({"dataset_purchase": rows(3, 601)})},
        "texas": {
            "texas/dataset_texas.tgz": packed(
                {"texas/100/feats": rows(3, 6169).replace(b"2", b"1"), "texas/100/labels": rows(3, 1)}
            )
        },
        "cifar archive": {"cifar-10-python.tar.gz": packed(cifar)},
        "npz": {"faces/att_faces.npz": arrays.getvalue()},
        "tiles": {"chmnist/Kather_texture_2016_image_tiles_5000.zip": zipped(tiles)},
        "faces zip": {"original": zipped(att)},
        "faces tar": {"original": packed(att)},
        "faces folder": {"original/s1/1.pgm": att["s1/1.pgm"]},
        "record": {
            "purchase/dataset_purchase.tgz.sha256": b"0" * 64,
            "purchase/dataset_purchase.tgz": packed({}),
        },
    }
    for kind, name, options in (
        ("JPEG", "jpg", {"exif": exif}),
        ("PNG", "png", {"exif": exif}),
        ("TIFF", "tif", {"exif": exif, "compression": "tiff_lzw"}),
        ("TIFF", "tiff", {"compression": "tiff_deflate"}),
        ("WEBP", "webp", {"exif": exif}),
        ("BMP", "bmp", {}),
        ("PPM", "ppm", {}),
        ("GIF", "jpeg", {}),
    ):
        pixels = Image.fromarray(smooth).quantize() if kind == "GIF" else smooth
        content = picture(kind, np.asarray(pixels), **options)
        kinds[f"picture {name}"] = {f"set/a/1.{name}": content}
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    kinds["picture 16 bits"] = {"set/a/1.png": picture("PNG", ramp)}
    return kinds


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four of: bytes changed, a stretch lost, doubled, moved or made alike, a length made huge, an end cut off."""
    changed = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        if not changed:
            break
        place, length = int(generator.integers(len(changed))), int(2 ** generator.uniform(0, 9))
        stretch = changed[place : place + length]
        match generator.integers(8):
            case 0:
                changed[place] ^= 1 << int(generator.integers(8))
            case 1:
                changed[place] = int(generator.choice(STRANGE))
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = stretch * int(generator.integers(1, 4))
            case 4:
                changed[place : place + length] = bytes([int(generator.choice(STRANGE))]) * len(stretch)
            case 5:
                changed[place : place + 4] = generator.choice(
                    [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff"]
                )
            case 6:
                changed[place : place + length] = generator.bytes(len(stretch))
            case 7:
                del changed[place:]
    return bytes(changed)


def beneath(content: bytes, generator: np.random.Generator) -> bytes:
    """Damage to what a .gz or a .zip holds, packed again as it was, so that its own checksum does not stand in the way."""
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(damage(gzip.decompress(content), generator), 1)
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        chosen = str(generator.choice(sorted(members)))
        return zipped(members | {chosen: damage(members[chosen], generator)})
    return damage(content, generator)


def reader(kind: str) -> Callable[[Path], object]:
    names = {
        "idx": "mnist",
        "idx labels": "mnist",
        "batch": "cifar10",
        "cifar archive": "cifar10",
        "mat": "svhn",
        "location": "location",
        "purchase": "purchase100",
        "record": "purchase100",
        "texas": "texas100",
        "npz": "att_faces",
        "tiles": "chmnist",
    }
    if kind in names:
        return lambda root: load(names[kind], root)
    if kind.startswith("faces"):
        return lambda root: faces.build("att", root / "original", root / "built")
    return lambda root: load("folder:set", root, side=8)


def case(kind: str, files: dict[str, bytes], seed: int | None, folder: Path) -> None:
    """Damage (unless the seed is None), read, and check what came of it; raises AssertionError."""
    root = folder / "root"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (folder / "outside").write_bytes(b"untouched")
    if seed is not None:
        generator = np.random.default_rng([seed, *kind.encode()])
        how = beneath if generator.integers(2) else damage
        damaged = root / next(iter(files))
        damaged.write_bytes(how(damaged.read_bytes(), generator))
    try:
        reader(kind)(root)
    except (ValueError, FileNotFoundError) as error:
        assert seed is not None, f"refused whole: {error}"
        assert f"{root}/" in str(error), f"names no file: {error}"
    assert sorted(path.name for path in folder.iterdir()) == ["outside", "root"], "wrote outside the root"
    assert (folder / "outside").read_bytes() == b"untouched"
    allowed = {name.split("/")[0] for name in files} | {"cifar-10-batches-py", "built"}
    assert {path.name for path in root.iterdir()} <= allowed, "left something in the root"


def main(rounds: int, seconds: float, only: str = "", first: int = 0) -> None:
    """Rounds over all kinds, or over `only` one, from the seed `first` on, at most for so many seconds."""
    warnings.simplefilter("ignore")  # Pillow's remarks on what it reads all the same
    batch = [["data_batch_1", ""]], [["test_batch", ""]]
    with (
        mock.patch.object(tv.CIFAR10, "train_list", batch[0]),
        mock.patch.object(tv.CIFAR10, "test_list", batch[1]),
        mock.patch.object(loaders, "fetch", lambda source, root: trust(source, root)),
        mock.patch.dict(faces.COMPLETE, {"att": (1, 1)}),
        tempfile.TemporaryDirectory() as place,
    ):
        kinds = {kind: files for kind, files in official().items() if only in ("", kind)}
        folder = Path(place) / "case"
        for kind, files in kinds.items():
            if kind != "record":
                case(kind, files, None, folder)  # what is whole is read
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        end, seed = time.monotonic() + seconds, first
        while seed < first + rounds and time.monotonic() < end:
            for kind, files in kinds.items():
                print(f"{kind}, seed {seed}", end="\r", flush=True)  # the last words, should the process die
                try:
                    case(kind, files, seed, folder)
                except Exception as error:
                    raise AssertionError(f"{kind}, seed {seed}: {type(error).__name__}: {error}") from error
            seed += 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used
        assert grown < GROWTH, f"grew by {grown / 2**20:.0f} MiB"
        print(
            f"\n{(seed - first) * len(kinds)} cases of {len(kinds)} kinds, grown by {grown / 2**20:.0f} MiB"
        )


def trust(source: download.Source, root: Path) -> Path:
    """As `download.fetch`, but what is there stands for the official file; a record where nothing is published counts."""
    path = root / source.path
    if not path.is_file():
        raise download.missing(source, path)
    if source.checksum is None:
        download.verify(source, path)
    return path


@pytest.mark.parametrize(
    ("rounds", "seconds"),
    [(12, 300), pytest.param(10**6, 120, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="bounds of memory are Linux's")
def test_damaged_files_are_read_or_refused_by_name(rounds, seconds):
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.test_fuzzing", str(rounds), str(seconds)],
        cwd=REPO_ROOT,
        env=os.environ | FEW_THREADS,
        capture_output=True,
        text=True,
        timeout=seconds + 300,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-3000:]
    assert "cases of 23 kinds" in done.stdout


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        main(int(sys.argv[1]), float(sys.argv[2]))
    else:
        main(1, 60, sys.argv[1], int(sys.argv[2]))
