"""Pictures of the classes, cut from Noto Color Emoji, at any size and angle."""

from functools import lru_cache
from math import ceil, cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

from . import fonts
from .classes import CLASSES

EMOJI_FONT = "noto/NotoColorEmoji.ttf"
BITMAP_SIZE = 109  # the only size that the font has
SHRUNK = [1.0, 0.75, 0.55, 0.4]  # kept copies; a sprite is drawn from the smallest that is not smaller than it


@lru_cache(None)
def original(index: int) -> Image.Image:
    """The emoji as the font has it, RGBA, cropped to what is not transparent."""
    font = fonts.load(EMOJI_FONT, BITMAP_SIZE)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), CLASSES[index].emoji, font=font, embedded_color=True)
    return canvas.crop(canvas.getbbox())


@lru_cache(None)
def mean_color(index: int) -> tuple[float, float, float]:
    pixels = np.asarray(original(index), np.float32).reshape(-1, 4)
    weights = pixels[:, 3:]
    return tuple((pixels[:, :3] * weights).sum(0) / weights.sum())


@lru_cache(None)
def _shrunk(index: int, factor: float) -> Image.Image:
    """Premultiplied, so that transparent pixels have no colour to bleed."""
    image = original(index)
    size = tuple(max(1, round(s * factor)) for s in image.size)
    return image.convert("RGBa").resize(size, Image.LANCZOS)


def draw(index: int, side: float, angle: float, mirrored: bool, brightness: float) -> Image.Image:
    """RGBA picture of a class whose longer side had `side` pixels before it was turned by `angle` degrees."""
    wanted = side / max(original(index).size)
    source = _shrunk(index, min((f for f in SHRUNK if f >= wanted), default=1.0))
    scale = side / max(source.size)
    width, height = source.size
    c, s = cos(radians(angle)), sin(radians(angle))
    out_width = ceil(scale * (abs(c) * width + abs(s) * height)) + 2
    out_height = ceil(scale * (abs(s) * width + abs(c) * height)) + 2
    # From a pixel of the result, counted from its middle, to one of the source.
    a, b, d, e = c / scale, s / scale, -s / scale, c / scale
    if mirrored:
        a, b = -a, -b
    x, y = out_width / 2, out_height / 2
    map_back = (a, b, width / 2 - a * x - b * y, d, e, height / 2 - d * x - e * y)
    image = source.transform((out_width, out_height), Image.AFFINE, map_back, Image.BILINEAR).convert("RGBA")
    if brightness != 1.0:
        levels = np.arange(256)
        scaled = np.minimum(255, np.rint(levels * brightness)).astype(int)
        image = image.point([*scaled.tolist() * 3, *levels.tolist()])
    return image.crop(image.getbbox())
