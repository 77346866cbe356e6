"""Describes a picture: python caption.py MODEL PICTURE"""

import sys

import palmtop

_, path, picture = sys.argv
session = palmtop.Model(path).session()
features = session.encode(picture)
for piece in session.stream(features, "caption en"):
    print(piece, end="", flush=True)
print()
