"""Fonts by their paths on Debian."""

from functools import lru_cache

from PIL import ImageFont

FOLDER = "/usr/share/fonts/truetype/"
PACKAGES = "fonts-noto-color-emoji fonts-dejavu-core fonts-liberation fonts-freefont-ttf"


@lru_cache(None)
def load(path: str, size: int) -> ImageFont.FreeTypeFont:
    """The font at `path` below FOLDER."""
    try:
        return ImageFont.truetype(FOLDER + path, size)
    except OSError as error:
        raise SystemExit(f"cannot read the font {FOLDER}{path} ({error}); on Debian: apt-get install {PACKAGES}")
