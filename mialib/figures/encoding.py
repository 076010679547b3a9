"""Figures as PNG, in as few bytes as one cannot see."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

COLORS = 256
UNSEEN = 0.8  # root mean square, of 255 levels: lines and text lie below, many-coloured heat maps about 1, photographs above 4


def png(picture: Figure, dpi: float = 150) -> bytes:
    """The picture with `alt`, where it has some, as its Description; `dpi` is dots an inch.

    Its thousands of colours, most of them of blurred edges, become 256 where the eye cannot tell: about a third of the bytes.
    """
    drawn = io.BytesIO()
    loose = {"compress_level": 0}  # it is packed below
    picture.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", pil_kwargs=loose)
    words = PngInfo()
    if getattr(picture, "alt", ""):  # a plain Figure has none
        words.add_itxt("Description", picture.alt)
    packed = io.BytesIO()
    fewer_colors(Image.open(drawn)).save(packed, "png", pnginfo=words, dpi=(dpi, dpi))
    return packed.getvalue()


def fewer_colors(image: Image.Image) -> Image.Image:
    """The image with a palette of 256 colours; as it is if it is transparent somewhere, or if that would be seen."""
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    if image.mode != "RGB":
        return image
    fewer = image.quantize(COLORS, dither=Image.Dither.NONE)
    error = np.asarray(image, np.float32) - np.asarray(fewer.convert("RGB"), np.float32)
    return fewer if np.sqrt(np.square(error).mean()) < UNSEEN else image
