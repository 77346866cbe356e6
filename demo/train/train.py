"""Stage two: the decoder is attached and everything learns to answer.

    python demo/train/train.py --run RUN --steps 20000                         texts share a picture's rows
    python demo/train/train.py --run RUN --steps 26000 --cool 5000 --exact     as the model is run

Begins with RUN/tower.pt and RUN/mask_codec.pt, goes on where RUN/model.pt ends.
"""

import argparse
import time
from pathlib import Path

import torch

import dense
import losses
import pictures
import progress
from optimizer import Optimizer
from paligemma import PaliGemma
from world import scene, seeds, words

BATCH, EXACT_BATCH, PAGES = 40, 24, 8
SEED = 1
DENSE_WEIGHT = 0.4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--steps", type=int, required=True, help="stop after this step, counted from the first")
    parser.add_argument("--cool", type=int, default=0, help="steps at the end over which the rate falls")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument("--exact", action="store_true", help="one text a row, which pictures see")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    checkpoint, log = args.run / "model.pt", progress.Log(args.run / "model.jsonl")

    model = PaliGemma().bfloat16()
    optimizer = Optimizer(model)
    step, rendered = 0, 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        optimizer.load(saved["optimizer"])
        step, rendered = saved["step"], saved["pictures"]
    else:
        saved = torch.load(args.run / "tower.pt")
        optimizer.load(saved["optimizer"], partly=True)
        rendered = saved["pictures"]
    forward = torch.compile(model)
    size = EXACT_BATCH if args.exact else BATCH
    dataset = pictures.Dialogues(SEED, rendered, size, PAGES, args.run / "mask_codec.pt", args.exact)
    streams = [seeds.stream(seeds.HELD_OUT, 0, i) for i in range(size)]
    test = dataset.collate([scene.compose(rng, words.held_out) for rng in streams], streams)

    def answer(batch):
        inputs = (batch[name] for name in ("patches", "ids", "positions", "mask", "wanted"))
        return forward(*inputs, exact=args.exact, pictures=size - PAGES)

    def keep():
        progress.save(checkpoint, {"step": step, "pictures": rendered, "optimizer": optimizer.state()})

    batches = iter(pictures.loader(dataset))
    begin = saved_at = time.monotonic()
    clock = progress.Clock()
    while step < args.steps and time.monotonic() - begin < 60 * args.minutes:
        batch = next(batches)
        logits, outputs = answer(batch)
        answers, patches = losses.answers(logits, batch["targets"]), dense.losses(outputs, batch)
        (answers + DENSE_WEIGHT * dense.total(patches)).backward()
        norm = optimizer.step(progress.trapezoid(step, 200, args.steps, args.cool, args.peak))
        step, rendered = step + 1, rendered + size
        clock.tick(size)
        if step % 50 == 0:
            with torch.no_grad():
                logits, outputs = answer(test)
            right = losses.accuracy(logits, test["targets"]) | dense.accuracy(outputs, test)
            found = {name: round(float(value), 3) for name, value in patches.items()}
            loss, checked = float(answers), float(losses.answers(logits, test["targets"]))
            log.write(step=step, pictures=rendered, rate=clock.rate(), loss=round(loss, 3), test=round(checked, 3),
                      norm=round(norm, 2), **found, right=right)
        if time.monotonic() - saved_at > 300:
            keep()
            saved_at = time.monotonic()
    keep()


if __name__ == "__main__":
    main()
