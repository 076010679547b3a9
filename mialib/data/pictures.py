"""Pictures from anywhere, decoded: upright, 8 bits a channel, whatever the file's format and depth."""

import os
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageOps

from mialib.progress import follow

# formats that pictures are stored in; Pillow knows others that start other programs
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MAX_PIXELS = 89_478_485  # a quarter of a gigabyte in colour, where Pillow begins to warn
NAMED = 10  # broken pictures that an error names
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(file: BinaryIO, *, grey: bool) -> Image.Image:
    """The picture in an open file, of mode "L" or "RGB", turned as its EXIF orientation says.

    16-bit grey is divided by 257, so that 65535 is 255. Raises ValueError for pixels of 32 bits, whose range is not
    stated, and for more than `MAX_PIXELS`; Pillow raises errors of many kinds on broken files.
    """
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        image.load()  # this turns TIFF's, and clears their note of it
        return _upright(_eight_bits(image), image).convert("L" if grey else "RGB")


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # unreadable tags turn nothing; Pillow raises what its parsers raise
        return pixels
    turn = _TURNS.get(orientation)
    return pixels if turn is None else pixels.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Done here because Pillow's own conversions cut off what is above 255."""
    if image.mode in _EIGHT_BITS:
        return image
    # Pillow scales a PPM's values to 0..65535 whatever their range, and gives them 32 bits
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format in ("PPM", "PNG")):
        raise ValueError(f"pixels of mode {image.mode!r} have no stated range; store them with 8 or 16 bits")
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits = tags.get(_BITS, (16,))[0]  # 12, where a TIFF says so
    values = np.rint(np.asarray(image).astype(np.float32) * (255 / (2**bits - 1)))
    values = values.clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - values if tags.get(_PHOTOMETRIC) == 0 else values)  # 0 is white there


def decode_images(
    names: Sequence[str], open_file: Callable[[str], BinaryIO], size: int, *, grey: bool, title: str
) -> np.ndarray:
    """Decode images into uint8 (n, 3 or 1, size, size), in parallel threads with a progress bar on stderr.

    Each is turned as its EXIF orientation says, brought to 8 bits, scaled (bilinear, antialiased) so that its short
    side is `size`, and its centre square is kept. open_file: name -> binary file; called from several threads. Raises
    ValueError that counts the images that are broken or too large, and names the first ten.
    """
    shape = (len(names), 1 if grey else 3, size, size)
    _check_memory(shape)
    images = np.empty(shape, np.uint8)

    def decode(i: int) -> tuple[int, str] | None:
        try:
            with open_file(names[i]) as file:
                picture = read_picture(file, grey=grey)
            square = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow raises errors of a dozen kinds on broken files
            return i, f"cannot decode {names[i]}: {str(error) or type(error).__name__}"
        images[i] = np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1)
        return None

    # Pillow lets go of the interpreter lock while it decodes and scales; all threads write into the one array
    work = Parallel(n_jobs=-1, require="sharedmem", return_as="generator_unordered")
    decoded = work(delayed(decode)(i) for i in range(len(names)))
    problems = [problem for problem in follow(decoded, title, "image", total=len(names)) if problem]
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(names)} images cannot be used; mend or remove them"
            + "".join(f"\n  {text}" for _, text in sorted(problems)[:NAMED])
            + (f"\n  and {len(problems) - NAMED} more" if len(problems) > NAMED else "")
        )
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
