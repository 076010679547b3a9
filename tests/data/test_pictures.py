"""Pictures become 8 bits, upright and square, whatever they were; broken and huge ones are counted and named."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mialib.data import load, load_image_folder, pictures


def write_picture(path: Path, size: tuple[int, int], colour) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG", quality=95)


def test_centre_square_is_kept(tmp_path):
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 20:80] = 255  # the centre square of a 100x60 picture is white, its flanks black
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "set" / "a" / "1.png")
    got = load_image_folder(tmp_path / "set", 30)
    assert got.x.shape == (1, 3, 30, 30) and bool((got.x[..., 1:-1] == 255).all())
    assert (
        got.x.min() > 200
    )  # the filter reaches a little over the edge, as in scaling first and cropping then
    assert load_image_folder(tmp_path / "set", 30, grey=True).x.shape == (1, 1, 30, 30)


def test_broken_picture_is_named(picture_root):
    broken = picture_root / "imagenette-224" / "train" / "n02" / "n02_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot decode .*n02_1.JPEG"):
        load("imagenette", picture_root)


@pytest.mark.parametrize(("grey", "expected"), [(False, [200, 100, 50]), (True, [124])], ids=["rgb", "grey"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_pictures_of_every_kind_become_rgb_or_grey(mode, grey, expected):
    content = io.BytesIO()
    picture = Image.new("RGB", (12, 8), (200, 100, 50))
    picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(content, "PNG")
    names = [content.getvalue()] * 3
    found = pictures.decode_images(names, io.BytesIO, 4, grey=grey, title="pictures")
    assert found.shape == (3, len(expected), 4, 4) and found.dtype == np.uint8
    # grey is 0.299 r + 0.587 g + 0.114 b
    assert np.abs(found.astype(int) - np.array(expected)[:, None, None]).max() <= 1


def test_more_pictures_than_memory():
    with pytest.raises(ValueError, match="pass a smaller `subset`"):
        pictures.decode_images(range(10**9), open, 224, grey=False, title="too many")


def encode(array: np.ndarray, kind: str, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind, **options)
    return content.getvalue()


def read(content: bytes, grey: bool = True) -> np.ndarray:
    return np.asarray(pictures.read_picture(io.BytesIO(content), grey=grey))


RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)  # 16-bit grey from black to white


def test_16_bit_grey_keeps_its_levels(tmp_path):
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(read(encode(RAMP, kind)), np.arange(256).reshape(16, 16)), kind
    assert np.array_equal(read(encode(RAMP.astype(np.int32), "PPM")), np.arange(256).reshape(16, 16))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(encode(RAMP, "PNG"))
    loaded = load_image_folder(tmp_path, 16, grey=True)
    assert np.array_equal(loaded.x[0, 0].numpy(), np.arange(256).reshape(16, 16))
    assert bool((load_image_folder(tmp_path, 16).x[0] == loaded.x[0]).all())  # in colour too


def test_grey_tiffs_whose_zero_is_white():
    assert read(encode(RAMP, "TIFF", tiffinfo={262: 0}))[0, :3].tolist() == [255, 254, 253]


def test_12_bits_of_a_tiff_are_from_black_to_white():
    tags = (
        (256, 3, 2),
        (257, 3, 1),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (278, 3, 1),
        (279, 4, 3),
    )
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    pixels = b"\xff\xf0\x00"  # 4095 and 0
    head = b"II*\0" + struct.pack("<I", 12)
    content = head + pixels + b"\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert read(content).tolist() == [[255, 0]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(dtype):
    with pytest.raises(
        ValueError, match=r"pixels of mode '[IF]' have no stated range; store them with 8 or 16 bits"
    ):
        read(encode(RAMP.astype(dtype), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_exif_says(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 9, 9], [255, 255, 0], [255, 255, 255]]])
    content = encode(np.kron(corners, np.ones((16, 16, 1))).astype(np.uint8), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert upright.size == ((32, 48) if orientation > 4 else (48, 32))
    assert np.array_equal(read(content, grey=False), np.asarray(upright.convert("RGB")))


def test_exif_that_cannot_be_read_turns_nothing():
    plain = np.arange(64, dtype=np.uint8).reshape(8, 8)
    broken = encode(plain, "PNG", exif=b"Exif\0\0XX*\0nonsense")
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(broken)).getexif()
    assert np.array_equal(read(broken), plain)


def test_formats_that_start_other_programs_are_not_read():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) deletefile\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"  # Pillow would hand it to Ghostscript
    with pytest.raises(OSError, match="cannot identify"):
        read(postscript)


def test_broken_and_huge_pictures_are_counted_and_ten_of_them_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    for number in range(14):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(b"no picture")
    (tmp_path / "a" / "14.png").write_bytes(encode(RAMP, "PNG"))
    (tmp_path / "a" / "15.png").write_bytes(encode(RAMP[:4, :4], "PNG"))
    with pytest.raises(ValueError, match="^15 of 16 images cannot be used") as error:
        load_image_folder(tmp_path, 4)
    lines = str(error.value).splitlines()
    assert len(lines) == 12 and lines[-1] == "  and 5 more"
    assert all(str(tmp_path / "a" / f"{number:02d}.png") in lines[1 + number] for number in range(10))
    for number in range(10):
        (tmp_path / "a" / f"{number:02d}.png").unlink()
    with pytest.raises(ValueError, match=r"14.png: 16 x 16 pixels, more than 100$"):
        load_image_folder(tmp_path, 4)


def test_a_bomb_of_pixels_is_named(tmp_path):
    header = encode(np.zeros((1, 1), np.uint8), "PNG")
    bomb = header[:16] + (60_000).to_bytes(4) * 2 + header[24:]  # 3.6 thousand million pixels, it says
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bomb.png").write_bytes(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of a checksum that we broke
        with pytest.raises(ValueError, match="1 of 1 images cannot be used(?s:.*)a/bomb.png: "):
            load_image_folder(tmp_path, 4)
