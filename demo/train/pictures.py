"""Endless batches of rendered scenes and what is asked about them, from the picture with a given number on."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

import dense
import mask_codec
import texts
from decoder import attention_mask
from sizes import PATCHES
from world import dialogue, scene, seeds, words

SHARED_LENGTH = 256  # tokens of all texts about a picture
EXACT_LENGTH = 80  # of one
EXACT_TEXTS = 4  # a picture
WANTED = 112  # predicted tokens a picture, shared; the rest is left out
EXACT_WANTED = 24  # the same for a row, exact


class Pictures(IterableDataset):
    """Batches of patches and dense targets; picture `i` of a seed is always the same.

    Letters are learnt slowly, and a scene has few: the last `pages` of a batch are pages with much to read.
    """

    def __init__(self, seed: int, start: int, batch: int, pages: int):
        self.seed, self.start, self.batch, self.pages = seed, start, batch, pages

    def __iter__(self):
        torch.set_num_threads(1)
        number = self.start
        while True:
            streams = [seeds.stream(seeds.TRAINING, self.seed, number + i) for i in range(self.batch)]
            number += self.batch
            scenes = [
                (scene.compose_page if i >= self.batch - self.pages else scene.compose)(rng, words.training)
                for i, rng in enumerate(streams)
            ]
            yield self.collate(scenes, streams)

    def collate(self, scenes, streams) -> dict[str, torch.Tensor]:
        wanted = [dense.targets(s) for s in scenes]
        batch = {name: torch.from_numpy(np.stack([w[name] for w in wanted])) for name in wanted[0]}
        batch["patches"] = torch.from_numpy(np.stack([dense.patches(s.pixels) for s in scenes]))
        return batch


class Dialogues(Pictures):
    """The same with texts about all but the pages: one row a picture, or, `exact`, one a text."""

    def __init__(self, seed: int, start: int, batch: int, pages: int, codec: Path, exact: bool):
        super().__init__(seed, start, batch, pages)
        self.codec, self.exact = codec, exact

    def collate(self, scenes, streams):
        batch = super().collate(scenes, streams)
        codec = mask_codec.load(self.codec)
        rows = []
        for picture, rng in list(zip(scenes, streams))[: self.batch - self.pages]:
            items = texts.fill_masks(picture, list(dialogue.items(picture, rng)), codec)
            encoded = [texts.encode(item) for item in items]
            if self.exact:
                fitting = [e for e in encoded if len(e) <= EXACT_LENGTH]
                chosen = rng.choice(len(fitting), EXACT_TEXTS, replace=False)
                rows += [[fitting[i]] for i in chosen]
            else:
                rows.append(texts.fit(encoded, SHARED_LENGTH, rng))
        length, most = (EXACT_LENGTH, EXACT_WANTED) if self.exact else (SHARED_LENGTH, WANTED)
        packed = texts.pack(rows, length, PATCHES)
        mask = attention_mask(packed.segments, packed.prompts, self.exact, torch.bfloat16)
        return batch | dict(ids=packed.ids, positions=packed.positions, mask=mask) | predicted(packed, most)


def predicted(packed: texts.Packed, most: int) -> dict[str, torch.Tensor]:
    """Where answers are predicted, as a list of one length: `wanted` in the flat text and `targets`, -1 to fill up."""
    size = most * len(packed.ids)
    places = torch.nonzero(packed.targets.flatten() >= 0)[:, 0]
    if len(places) > size:
        places = places[torch.randperm(len(places))[:size]]
    wanted, targets = torch.zeros(size, dtype=torch.long), torch.full((size,), -1)
    wanted[: len(places)] = places
    targets[: len(places)] = packed.targets.flatten()[places]
    return dict(wanted=wanted, targets=targets)


def loader(dataset: IterableDataset) -> DataLoader:
    return DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=6)
