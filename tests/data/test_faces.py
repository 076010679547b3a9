"""Face sets built from small trees in the originals' layout; AT&T also from the real pixels, if at hand."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mialib import REPO_ROOT
from mialib.data import faces, load

GREY = np.random.default_rng(0).integers(0, 256, (6, 112, 92), dtype=np.uint8)


def encode(array: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return content.getvalue()


def att_files() -> dict[str, bytes]:
    """Two pictures of each of s1, s2 and s10; in the order of names s10 would come before s2."""
    names = [f"s{person}/{number}.pgm" for person in (1, 2, 10) for number in (1, 10)]
    return {name: encode(array, "PPM") for name, array in zip(names, GREY, strict=True)} | {
        "README": b"faces"
    }


def lfw_files(counts: dict[str, int]) -> dict[str, bytes]:
    """Pictures with a bright face box and black around; the box of picture i is i grey levels below white."""
    files = {}
    for person, count in counts.items():
        for number in range(1, count + 1):
            picture = np.zeros((250, 250), np.uint8)
            picture[69:181, 69:181] = 255 - 10 * number
            files[f"lfw2/{person}/{person}_{number:04d}.jpg"] = encode(picture, "JPEG")
    return files


def write(form: str, files: dict[str, bytes], path: Path) -> Path:
    """The files as a folder, a .zip or a .tar.gz; in reverse order, so that a test sees the sorting."""
    items = list(files.items())[::-1]
    if form == "folder":
        for name, content in items:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in items:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in items:
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_build_att(tmp_path, monkeypatch, form):
    monkeypatch.setitem(faces.COMPLETE, "att", (6, 3))
    archive = write(form, att_files(), tmp_path / "original")
    out = faces.build("att", archive, tmp_path / "root" / "faces")
    with np.load(out) as arrays:
        assert arrays["x"].dtype == np.uint8 and np.array_equal(arrays["x"], GREY)
        assert arrays["y"].tolist() == [0, 0, 1, 1, 9, 9]
    assert sorted(file.name for file in out.parent.iterdir()) == ["att_faces.npz", "att_faces.npz.sha256"]
    built = load("att_faces", tmp_path / "root")
    assert torch.equal(built.x, torch.from_numpy(GREY)[:, None])


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_build_lfw(tmp_path, monkeypatch, form):
    counts = {"Bo_B": 5, "Al_A": 5, "Cy_C": 7, "Di_D": 4}
    monkeypatch.setitem(faces.COMPLETE, "lfw", (21, 4))
    archive = write(form, lfw_files(counts), tmp_path / "original")
    out = faces.build("lfw", archive, tmp_path / "root" / "faces")
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["name"].tolist() == [
            "Cy_C",
            "Al_A",
            "Bo_B",
        ]  # most pictures first, ties by name, Di has too few
        assert arrays["y"].tolist() == [0] * 7 + [1] * 5 + [2] * 5
        assert arrays["image_no"].tolist() == [*range(1, 8), *range(1, 6), *range(1, 6)]
        assert arrays["image_no"].dtype == np.int16 and arrays["x"].shape == (17, 64, 64)
        centre = arrays["x"][:, 32, 32].astype(int)
        assert np.abs(centre - (255 - 10 * arrays["image_no"])).max() <= 3  # JPEG is not exact
        assert arrays["x"][:, 2:-2, 2:-2].min() > 150  # the box is cropped exactly: no black border inside
    built = load("lfw_faces", tmp_path / "root")
    assert built.num_classes == 3 and torch.equal(built.groups, built.y)


def test_lfw_crop_is_the_stated_square():
    picture = np.arange(250, dtype=np.uint8)[None, :].repeat(250, 0)  # grey level = column
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")  # lossless; only the reader's rule is tested here
    x = faces.lfw_arrays({("A", 1): content.getvalue()}, min_pictures=1)["x"][0]
    expected = 69 + (np.arange(64) + 0.5) * 112 / 64 - 0.5  # centre of each target pixel in source columns
    assert np.abs(x[10, 4:-4] - expected[4:-4]).max() <= 0.51


def test_incomplete_original_is_refused(tmp_path):
    archive = write("folder", att_files(), tmp_path / "original")
    with pytest.raises(
        ValueError, match=r"found 6 pictures of 3 people, the original of 'att' has 400 of 40"
    ):
        faces.build("att", archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "archive", "error", "words"),
    [
        ("orl", "", ValueError, r"kind is 'orl', must be one of \['att', 'lfw'\]"),
        ("att", "nowhere.zip", FileNotFoundError, "no such archive or folder"),
        ("att", "text", ValueError, "neither a folder nor a .zip nor a .tar"),
    ],
    ids=["kind", "no archive", "no archive's format"],
)
def test_bad_arguments(tmp_path, kind, archive, error, words):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(error, match=words):
        faces.build(kind, tmp_path / archive, tmp_path)


def test_a_built_file_is_not_overwritten(tmp_path):
    (tmp_path / "att_faces.npz").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="att_faces.npz is there already"):
        faces.build("att", tmp_path, tmp_path)
    assert (tmp_path / "att_faces.npz").read_bytes() == b"mine"


def test_odd_pictures_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"picture 1 of '3' is \(92, 92\)"):
        faces.att_arrays({("3", 1): encode(np.zeros((92, 92), np.uint8), "PPM")})
    with pytest.raises(ValueError, match=r"picture 7 of 'Al_A' cannot be decoded"):
        faces.lfw_arrays({("Al_A", 7): b"no picture"}, min_pictures=1)
    folder = write("folder", {"a/s1/1.pgm": b"", "b/s1/1.pgm": b""}, tmp_path / "twice")
    with pytest.raises(ValueError, match="two files for picture 1 of '1'"):
        faces.read_pictures(folder, faces.ATT_NAME)


def test_a_variant_of_lfw_in_colour_is_refused(tmp_path, monkeypatch):
    """The original and the funneled LFW have the same files, names and sizes as LFW-a."""
    monkeypatch.setitem(faces.COMPLETE, "lfw", (5, 1))
    files = lfw_files({"Al_A": 5})
    picture = np.full((250, 250, 3), 100, np.uint8)
    files["lfw2/Al_A/Al_A_0003.jpg"] = encode(picture, "JPEG")  # grey that is stored as colour is grey
    write("zip", files, tmp_path / "lfw.zip")
    faces.build("lfw", tmp_path / "lfw.zip", tmp_path / "grey")
    picture[100:140, 100:140] = 200, 150, 120
    files["lfw2/Al_A/Al_A_0003.jpg"] = encode(picture, "JPEG")
    write("zip", files, tmp_path / "lfw.zip")
    with pytest.raises(
        ValueError, match=r"lfw.zip: picture 3 of 'Al_A' is in colour.*take LFW-a, which is aligned"
    ):
        faces.build("lfw", tmp_path / "lfw.zip", tmp_path / "colour")
    assert not (tmp_path / "colour").exists()


def test_16_bit_grey_keeps_its_levels():
    ramp = np.linspace(0, 65535, 112 * 92).astype(np.int32).reshape(112, 92)
    x = faces.att_arrays({("1", 1): encode(ramp, "PPM")})["x"][0]
    assert np.abs(x - ramp / 257).max() <= 0.5


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("damage", ["cut", "holed", "begins right"])
def test_broken_archives_are_named(tmp_path, form, damage):
    content = write(form, att_files(), tmp_path / "original").read_bytes()
    half = len(content) // 2
    content = {
        "cut": content[:half],
        "holed": content[:half] + bytes(100) + content[half + 100 :],
        "begins right": content[:20] + bytes(100),
    }[damage]
    (tmp_path / "original").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'original'}: .*get the original archive"):
        faces.build("att", tmp_path / "original", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_a_picture_as_large_as_none_is_refused_before_it_is_read(tmp_path, form):
    archive = write(form, {"s1/1.pgm": bytes(2**20 + 1)}, tmp_path / "original")
    with pytest.raises(
        ValueError, match=r"s1/1.pgm has 1,048,577 bytes, a picture of the original at most 1,048,576"
    ):
        faces.read_pictures(archive, faces.ATT_NAME)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_links_add_no_pictures(tmp_path, form):
    path = tmp_path / "original"
    if form == "folder":
        write("folder", att_files(), path)
        (path / "s1" / "loop").symlink_to(path)
    else:
        with tarfile.open(path, "w:gz") as archive:
            link = tarfile.TarInfo("s7/1.pgm")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    assert len(faces.read_pictures(path, faces.ATT_NAME)) == (6 if form == "folder" else 0)


def test_a_stopped_build_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(faces.COMPLETE, "att", (6, 3))
    archive = write("folder", att_files(), tmp_path / "original")

    def stop(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(faces, "write", stop)
        faces.build("att", archive, tmp_path / "root" / "faces")
    assert not (tmp_path / "root" / "faces" / "att_faces.npz").exists()
    faces.build("att", archive, tmp_path / "root" / "faces")
    assert len(load("att_faces", tmp_path / "root")) == 6


def test_real_att_pixels_survive_the_way_through_pgm(tmp_path):
    root = Path(os.environ.get("MIALIB_DATA", REPO_ROOT.parent / "shared" / "data"))
    if not (root / "faces" / "att_faces.npz").exists():
        pytest.skip("no real faces: set MIALIB_DATA")
    original = load("att_faces", root)
    names = [f"orl_faces/s{1 + i // 10}/{1 + i % 10}.pgm" for i in range(400)]
    files = {name: encode(image[0].numpy(), "PPM") for name, image in zip(names, original.x, strict=True)}
    archive = write("zip", files, tmp_path / "att_faces.zip")
    faces.build("att", archive, tmp_path / "faces")
    assert load("att_faces", tmp_path).fingerprint == original.fingerprint
