"""What every patch of a picture shows, as targets that pretrain the image encoder. Dropped from the final model.

SigLIP comes to PaliGemma pretrained on billions of pairs; here the renderer knows the answer for every patch.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sizes import GRID, IMAGE, PATCH, PATCHES, VISION
from world import colors
from world.classes import CLASSES
from world.scene import Scene
from world.words import CHARACTERS

TEXT_CLASS = 1 + len(CLASSES)
CELLS = 7  # a patch is cut into 7 x 7 cells of two pixels
NO_COLOR = len(colors.NAMES)

# (name, number of outputs)
HEADS = [
    ("kind", TEXT_CLASS + 1),
    ("box", 4),
    ("cells", CELLS * CELLS),
    ("letter", 1 + len(CHARACTERS)),  # 0 is not used: what is not written upon is not asked
    ("place", 7),  # of the letter in its word
    ("ground", NO_COLOR + 1),
    ("ink", NO_COLOR + 1),
]
WEIGHTS = dict(kind=1.0, box=2.0, cells=0.5, letter=2.0, place=0.3, ground=0.1, ink=0.2)


def patches(pixels: np.ndarray) -> np.ndarray:
    """u8 [224, 224, 3] to u8 [256, 588]."""
    cut = pixels.reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(cut).reshape(PATCHES, -1)


def targets(scene: Scene) -> dict[str, np.ndarray]:
    """For each patch what HEADS should say. Integers below 0 are not asked."""
    owner = scene.owner.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(PATCHES, -1)
    shares = np.stack([(owner == n).sum(1) for n in range(len(scene.things) + 1)], 1)
    shares[:, 0] //= 3  # an object need not fill half of a patch to own it
    winner = shares.argmax(1)
    kinds = np.array([0] + [1 + thing.index for thing in scene.things])
    boxes = np.array([(0, 0, 0, 0)] + [thing.box for thing in scene.things], np.float32)
    kind, box = kinds[winner], boxes[winner]
    letter, place = np.full(PATCHES, -1), np.full(PATCHES, -1)
    ink = np.full(PATCHES, -1)
    for text in scene.texts:
        _mark_text(text, kind, box, letter, place, ink)
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) * PATCH
    centers = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(PATCHES, 2)
    box = (box - np.tile(centers, 2)) / IMAGE
    step = PATCH // CELLS
    cells = (scene.owner > 0).reshape(GRID, CELLS, step, GRID, CELLS, step).mean((2, 5)).swapaxes(1, 2)
    color = scene.background.color
    return dict(
        kind=kind.astype(np.int16),
        box=box.astype(np.float32),
        cells=(cells.reshape(PATCHES, -1) * 4).astype(np.uint8),
        letter=letter.astype(np.int16),
        place=place.astype(np.int16),
        ground=np.full(PATCHES, colors.NAMES.index(color) if color else NO_COLOR, np.int16),
        ink=ink.astype(np.int16),
    )


def _mark_text(text, kind, box, letter, place, ink):
    y1, x1, y2, x2 = text.box
    for row in range(GRID):
        if min(y2, (row + 1) * PATCH) - max(y1, row * PATCH) < 4:
            continue
        for column in range(GRID):
            left, right = column * PATCH, (column + 1) * PATCH
            shares = [min(right, b) - max(left, a) for a, b in text.letters]
            best = int(np.argmax(shares))
            if shares[best] < 3:
                continue
            at = row * GRID + column
            kind[at], box[at] = TEXT_CLASS, text.box
            letter[at], place[at] = 1 + CHARACTERS.index(text.text[best]), best
            ink[at] = colors.NAMES.index(text.color)


class DenseHeads(nn.Module):
    """One linear map from a patch's features to all that is asked of it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(VISION.hidden, sum(n for _, n in HEADS))
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features):
        return self.linear(features)


def losses(outputs: torch.Tensor, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mean loss of each head, f32."""
    said = dict(zip([n for n, _ in HEADS], outputs.float().split([n for _, n in HEADS], -1)))
    found = {}
    for name in ("kind", "letter", "place", "ground", "ink"):
        found[name] = F.cross_entropy(said[name].flatten(0, 1), wanted[name].flatten().long(), ignore_index=-1)
    owned = (wanted["kind"] > 0).float()
    miss = F.smooth_l1_loss(said["box"], wanted["box"], reduction="none", beta=0.02).sum(-1)
    found["box"] = (miss * owned).sum() / owned.sum().clamp(min=1)
    found["cells"] = F.binary_cross_entropy_with_logits(said["cells"], wanted["cells"].float() / 4)
    return found


def total(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(WEIGHTS[name] * loss for name, loss in parts.items())


@torch.no_grad()
def accuracy(outputs: torch.Tensor, wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    """Shares of patches told right, where there is something to tell; `box` is the mean miss of an edge in pixels."""
    said = dict(zip([n for n, _ in HEADS], outputs.float().split([n for _, n in HEADS], -1)))
    owned = wanted["kind"] > 0
    right = {"kind": (said["kind"].argmax(-1) == wanted["kind"])[owned].float().mean()}
    written = wanted["letter"] >= 0
    right["letter"] = (said["letter"].argmax(-1) == wanted["letter"])[written].float().mean()
    right["box"] = ((said["box"] - wanted["box"]).abs()[owned] * IMAGE).mean()
    right["ground"] = (said["ground"].argmax(-1) == wanted["ground"]).float().mean()
    return {name: round(float(value), 4) for name, value in right.items()}
