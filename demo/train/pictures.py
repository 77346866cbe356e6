"""Endless batches of rendered scenes and what is asked about them, from the picture with a given number on."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import dense
import mask_codec
import texts
from sizes import PATCHES
from world import dialogue, scene, seeds, words

SHARED_LENGTH = 256  # tokens of all texts about a picture
EXACT_LENGTH = 80  # of one
WANTED = 112  # predicted tokens a picture, shared; the rest is left out
EXACT_WANTED = 12  # the same for a row, exact
ALWAYS = ("caption", "detect", "segment")  # asked about every picture when few texts are


class Pictures(IterableDataset):
    """Batches of patches and dense targets; picture `i` of a seed is always the same.

    Letters are learnt slowly, and a scene has few: the last `pages` of a batch are pages with much to read.
    """

    def __init__(self, seed: int, start: int, batch: int, pages: int):
        self.seed, self.start, self.batch, self.pages = seed, start, batch, pages

    def __iter__(self):
        torch.set_num_threads(1)
        worker = get_worker_info()
        # Batches of all workers in turn are those of one.
        number, stride = self.start + worker.id * self.batch, worker.num_workers * self.batch
        while True:
            streams = [seeds.stream(seeds.TRAINING, self.seed, number + i) for i in range(self.batch)]
            number += stride
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
    """The same with texts about all but the pages: one row a picture, or so many rows of one text each if `exact`."""

    def __init__(self, seed: int, start: int, batch: int, pages: int, codec: Path, exact: int):
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
                fitting = [(item.task, e) for item, e in zip(items, encoded) if len(e) <= EXACT_LENGTH]
                rows += [[fitting[i][1]] for i in chosen([task for task, _ in fitting], self.exact, rng)]
            else:
                rows.append(texts.fit(encoded, SHARED_LENGTH, rng))
        length, most = (EXACT_LENGTH, EXACT_WANTED) if self.exact else (SHARED_LENGTH, WANTED)
        packed = texts.pack(rows, length, PATCHES)
        read = dict(ids=packed.ids, positions=packed.positions, segments=packed.segments, prompts=packed.prompts)
        return batch | read | predicted(packed, most)


def chosen(tasks: list[str], count: int, rng: np.random.Generator) -> list[int]:
    """Indices of `count` of the texts: one of each task of ALWAYS, if there is one, and others at random."""
    order = [int(i) for i in rng.permutation(len(tasks))]
    first = [next((i for i in order if tasks[i] == task), None) for task in ALWAYS]
    first = [i for i in first if i is not None]
    return (first + [i for i in order if i not in first])[:count]


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


def loader(dataset: IterableDataset, workers: int = 1, pinned: bool = False) -> DataLoader:
    prefetch = 6 if workers == 1 else 2
    return DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=prefetch, pin_memory=pinned)
