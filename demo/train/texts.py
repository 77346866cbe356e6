"""Items of dialogue as rows of token ids, packed for the decoder."""

from typing import NamedTuple

import numpy as np
import torch

import mask_codec
import vocabulary as v
from world.dialogue import Item
from world.scene import Scene

# How much a token of an answer counts in the loss. Mask codes are many and rarely beyond doubt.
WEIGHT, LOCATION_WEIGHT, SEGMENT_WEIGHT = 1.0, 0.6, 0.35


class Encoded(NamedTuple):
    prompt: tuple[int, ...]  # with <bos> and the final line feed
    answer: tuple[int, ...]  # with <eos>

    def __len__(self):
        return len(self.prompt) + len(self.answer) - 1  # <eos> is predicted and never read


class Packed(NamedTuple):
    """Rows of texts, all i64 [B, T] unless said."""

    ids: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor  # from 1; 0 fills up
    prompts: torch.Tensor  # bool
    targets: torch.Tensor  # the next token where an answer is predicted, else -1


def seg_tokens(codes) -> str:
    return "".join(f"<seg{int(c):03d}>" for c in codes)


def fill_masks(scene: Scene, items: list[Item], codec: mask_codec.MaskCodec) -> list[Item]:
    """The items with the codes of their masks written out."""
    needed = sorted({number for item in items for number in item.masks})
    if not needed:
        return items
    crops = torch.from_numpy(np.stack([mask_codec.crop(scene.things[n].mask) for n in needed])).float()
    with torch.no_grad():
        codes = dict(zip(needed, codec.codes(crops)))
    return [item._replace(answer=_fill(item, codes)) if item.masks else item for item in items]


def _fill(item: Item, codes) -> str:
    text = item.answer
    for number in item.masks:
        text = text.replace("{seg}", seg_tokens(codes[number]), 1)
    return text


def encode(item: Item) -> Encoded:
    return Encoded((v.BOS, *v.encode(item.prompt + "\n")), (*v.encode(item.answer), v.EOS))


def pack(rows: list[list[Encoded]], length: int, first_position: int) -> Packed:
    """Each row's texts one after the other; positions of every text begin where the picture's end."""
    shape = (len(rows), length)
    ids, positions, segments = (np.zeros(shape, np.int64) for _ in range(3))
    prompts, targets = np.zeros(shape, bool), np.full(shape, -1, np.int64)
    for row, texts in enumerate(rows):
        at = 0
        for number, (prompt, answer) in enumerate(texts, 1):
            size = len(prompt) + len(answer) - 1
            ids[row, at : at + size] = prompt + answer[:-1]
            positions[row, at : at + size] = first_position + np.arange(size)
            segments[row, at : at + size] = number
            prompts[row, at : at + len(prompt)] = True
            targets[row, at + len(prompt) - 1 : at + size] = answer
            at += size
    return Packed(*(torch.from_numpy(a) for a in (ids, positions, segments, prompts, targets)))


def fit(texts: list[Encoded], length: int, rng: np.random.Generator) -> list[Encoded]:
    """As many of the texts, in random order, as fit into a row."""
    chosen, used = [], 0
    for i in rng.permutation(len(texts)):
        if used + len(texts[i]) <= length:
            chosen.append(texts[i])
            used += len(texts[i])
    return chosen
