"""Stage one: the image encoder learns what every patch shows.

    python demo/train/pretrain_tower.py --run RUN --steps 6000 [--minutes 60]

Goes on where RUN/tower.pt ends.
"""

import argparse
import time
from pathlib import Path

import torch

import dense
import pictures
import progress
from optimizer import Optimizer
from tower import Tower
from world import scene, seeds, words

BATCH = 32
PEAK = 2e-3
SEED = 1


class Pretraining(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.dense = Tower(), dense.DenseHeads()

    def forward(self, patches):
        return self.dense(self.tower(patches))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--cool", type=float, default=0, help="share of the steps at the end in which the rate falls")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.run / "tower.pt", progress.Log(args.run / "tower.jsonl")

    model = Pretraining().bfloat16()
    optimizer = Optimizer(model)
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        optimizer.load(saved["optimizer"])
        step = saved["step"]
    forward = torch.compile(model)
    streams = [seeds.stream(seeds.HELD_OUT, 0, i) for i in range(BATCH)]
    test = pictures.Pictures(0, 0, BATCH, 0).collate([scene.compose(rng, words.held_out) for rng in streams], streams)
    batches = iter(pictures.loader(pictures.Pictures(SEED, step * BATCH, BATCH, BATCH // 2)))
    begin = saved_at = time.monotonic()
    clock = progress.Clock()
    while step < args.steps and time.monotonic() - begin < 60 * args.minutes:
        batch = next(batches)
        parts = dense.losses(forward(batch["patches"]), batch)
        loss = dense.total(parts)
        loss.backward()
        norm = optimizer.step(progress.trapezoid(step, 300, step / args.steps, args.cool, PEAK))
        step += 1
        clock.tick(BATCH)
        if step % 50 == 0:
            with torch.no_grad():
                right = dense.accuracy(forward(test["patches"]), test)
            found = {name: round(value.item(), 3) for name, value in parts.items()}
            log.write(step=step, pictures=step * BATCH, rate=clock.rate(), loss=round(loss.item(), 3), norm=round(norm.item(), 2), **found, right=right)
        if time.monotonic() - saved_at > 300 or step == args.steps:
            progress.save(checkpoint, {"step": step, "pictures": step * BATCH, "optimizer": optimizer.state()})
            saved_at = time.monotonic()
    progress.save(checkpoint, {"step": step, "pictures": step * BATCH, "optimizer": optimizer.state()})


if __name__ == "__main__":
    main()
