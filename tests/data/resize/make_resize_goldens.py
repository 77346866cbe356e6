"""Writes bicubic.txt and bilinear.txt beside itself: hashes of what Pillow's 8-bit resize makes of generated images.
With `aliased` as an argument bilinear-aliased.txt instead, of what TensorFlow's bilinear resize without antialias
makes of them, cut to bytes.

One line a case: source width and height, seed, output width and height, XXH3-64 of the output's RGB bytes in hex.
Byte i (row-major, R G B) of a source is that of `source` below, which the Rust test repeats: odd seeds give
noise, even ones noise in the lowest five bits over a gradient, so that both clamping and smooth areas occur.

Needs numpy and xxhash, and TensorFlow or Pillow up to 12.1. Later ones run the vertical pass first on some images: 12.2 on those over
a hundred times as high as wide, 13 on many tall ones.
"""
import pathlib
import sys

import numpy as np
import xxhash

SOURCES = [
    (1, 1), (1, 2), (2, 1), (3, 3), (1, 500), (500, 1), (2, 333), (333, 2), (5, 7), (13, 11), (37, 1200), (1200, 37),
    (55, 57), (56, 56), (57, 55), (97, 61), (111, 113), (224, 224), (224, 300), (300, 224), (225, 223), (333, 517),
    (448, 448), (448, 97), (640, 480), (641, 359), (896, 896), (1024, 768), (35, 2000), (2000, 35), (1920, 1080),
    (4000, 3000), (16384, 3), (3, 16384),
]
OUTPUTS = [(56, 56), (112, 112), (224, 224), (448, 448), (896, 896)]
EXTRA = [
    ((640, 361), (1, 1)), ((640, 361), (1, 300)), ((640, 361), (300, 1)), ((17, 19), (16, 20)), ((400, 300), (300, 224)),
    ((100, 50), (100, 60)), ((100, 50), (110, 50)), ((7, 5), (7, 5)), ((1000, 10), (10, 1000)), ((16384, 2), (1, 2)),
    ((3, 300), (40, 30)), ((3, 301), (40, 30)), ((3, 301), (3, 30)), ((3, 301), (40, 302)), ((5, 501), (2, 500)),
]


def source(width, height, seed):
    i = np.arange(width * height * 3, dtype=np.uint32)
    z = i * np.uint32(0x9E3779B1) + np.uint32(seed * 0x85EBCA6B & 0xFFFFFFFF)
    z = (z ^ (z >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    z = (z ^ (z >> np.uint32(12))) * np.uint32(0x297A2D39)
    noise = (z >> np.uint32(24)).astype(np.uint8)
    if seed % 2 == 0:
        pixel = i // np.uint32(3)
        x, y, c = pixel % np.uint32(width), pixel // np.uint32(width), i % np.uint32(3)
        noise = ((x + y * (c + np.uint32(1))) & np.uint32(0xE0)).astype(np.uint8) | (noise & np.uint8(0x1F))
    return noise.reshape(height, width, 3)


def pillow(filter):
    import PIL
    from PIL import Image

    version = tuple(int(part) for part in PIL.__version__.split(".")[:2])
    assert version < (12, 2), "Pillow before 12.2, please: later ones changed the order of the passes"
    filter = Image.Resampling[filter.upper()]
    return f"Pillow {PIL.__version__}", lambda pixels, size: np.asarray(Image.fromarray(pixels).resize(size, filter))


def tensorflow():
    import tensorflow as tf

    def resize(pixels, size):
        out = tf.image.resize(pixels, size[::-1], method="bilinear", antialias=False)
        return tf.cast(tf.clip_by_value(out, 0, 255), tf.uint8).numpy()

    return f"TensorFlow {tf.__version__}", resize


def write(name, by, resize):
    cases = [(size, out) for size in SOURCES for out in OUTPUTS] + EXTRA
    lines = [f"# made by make_resize_goldens.py with {by}", "# width height seed out_width out_height xxh3_64"]
    for n, ((width, height), out) in enumerate(cases):
        seed = n + 1
        digest = xxhash.xxh3_64_hexdigest(resize(source(width, height, seed), out).tobytes())
        lines.append(f"{width} {height} {seed} {out[0]} {out[1]} {digest}")
    (pathlib.Path(__file__).parent / f"{name}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["aliased"]:
        write("bilinear-aliased", *tensorflow())
    else:
        for name in ["bicubic", "bilinear"]:
            write(name, *pillow(name))
