"""Writes the small files beside itself that the image encoders of the tests cannot make.

Each shows 24 x 18 pixels, the left half orange (230, 120, 20), the right half blue (20, 60, 200). Animations go on with
a white frame. Needs Pillow.
"""
import pathlib

import PIL
from PIL import Image

ORANGE, BLUE = (230, 120, 20), (20, 60, 200)


def main():
    folder = pathlib.Path(__file__).parent
    rgb = Image.new("RGB", (24, 18), ORANGE)
    rgb.paste(BLUE, (12, 0, 24, 18))
    white = Image.new("RGB", (24, 18), (255, 255, 255))
    rgba = rgb.copy()
    rgba.putalpha(128)
    rgb.save(folder / "progressive.jpg", progressive=True, quality=90)
    rgb.save(folder / "subsampled.jpg", subsampling="4:2:0", quality=90)
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    rgb.save(folder / "lossy.webp", quality=90)
    rgba.save(folder / "lossy_alpha.webp", quality=90)
    rgb.save(folder / "animated.webp", save_all=True, append_images=[white], duration=100, lossless=True)
    rgb.save(folder / "animated_lossy.webp", save_all=True, append_images=[white], duration=100, quality=90)
    rgb.save(folder / "animated.gif", save_all=True, append_images=[white], duration=100)
    rgb.save(folder / "animated.png", save_all=True, append_images=[white], duration=100)
    rgb.quantize(4).save(folder / "palette.bmp")
    print("Pillow", PIL.__version__)


if __name__ == "__main__":
    main()
