"""Stage two: the decoder is attached and everything learns to answer.

    python demo/train/train.py --run RUN --steps 20000                         texts share a picture's rows
    python demo/train/train.py --run RUN --steps 26000 --cool 0.2 --exact      as the model is run

Begins with RUN/tower.pt, or with the weights of another run's model.pt (--begin); goes on where RUN/model.pt ends. Needs
RUN/mask_codec.pt. Runs on a GPU if there is one, which wants --workers that render (one a core) and a --batch of hundreds.
"""

import argparse
import time
from pathlib import Path

import torch

import dense
import losses
import pictures
import progress
from decoder import attention_mask
from optimizer import Optimizer
from paligemma import PaliGemma
from world import scene, seeds, words

SHARED_BATCH, EXACT_BATCH = 40, 24
PAGES = 8  # one picture of so many is a page to read
SEED = 1
DENSE_WEIGHT = 0.4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--begin", type=Path, help="a model.pt to begin with: its weights only [default: RUN/tower.pt]")
    parser.add_argument("--last", action="store_true", help="the latest weights of --begin, not their average")
    parser.add_argument("--steps", type=int, required=True, help="stop after this step, counted from the first")
    parser.add_argument("--minutes", type=float, default=1e9, help="or after this time")
    parser.add_argument("--cool", type=float, default=0, help="share of the run, at its end, in which the rate falls")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument("--exact", action="store_true", help="one text a row, which pictures see")
    parser.add_argument("--texts", type=int, default=4, help="about a picture, when exact")
    parser.add_argument("--batch", type=int, help="pictures a step")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint, log = args.run / "model.pt", progress.Log(args.run / "model.jsonl")

    model = PaliGemma().bfloat16().to(device)
    optimizer = Optimizer(model)
    step, rendered = 0, 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        optimizer.load(saved["optimizer"])
        step, rendered = saved["step"], saved["pictures"]
    else:
        saved = torch.load(args.begin or args.run / "tower.pt")
        state, rendered = saved["optimizer"], saved["pictures"]
        if args.begin:
            state = {"tensors": {"master": state["tensors"]["master" if args.last else "average"]}}
        optimizer.load(state, partly=True)
    forward = torch.compile(model)
    size = args.batch or (EXACT_BATCH if args.exact else SHARED_BATCH)
    pages = size // PAGES
    codec = args.run / "mask_codec.pt"
    dataset = pictures.Dialogues(SEED, rendered, size, pages, codec, args.texts if args.exact else 0)
    streams = [seeds.stream(seeds.HELD_OUT, 0, i) for i in range(size)]
    test = dataset.collate([scene.compose(rng, words.held_out) for rng in streams], streams)

    def answer(batch):
        """The losses of tokens and of patches, and what they are losses of."""
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        mask = attention_mask(batch["segments"], batch["prompts"], args.exact, torch.bfloat16)
        inputs = (batch[name] for name in ("patches", "ids", "positions"))
        logits, outputs = forward(*inputs, mask, batch["wanted"], exact=args.exact, pictures=size - pages)
        return losses.answers(logits, batch["targets"]), dense.losses(outputs, batch), (logits, outputs, batch)

    def keep():
        progress.save(checkpoint, {"step": step, "pictures": rendered, "optimizer": optimizer.state()})

    batches = iter(pictures.loader(dataset, args.workers, pinned=device.type == "cuda"))
    begin = saved_at = time.monotonic()
    clock = progress.Clock()
    while (done := max(step / args.steps, (time.monotonic() - begin) / 60 / args.minutes)) < 1:
        answers, patches, _ = answer(next(batches))
        (answers + DENSE_WEIGHT * dense.total(patches)).backward()
        norm = optimizer.step(progress.trapezoid(step, 200, done, args.cool, args.peak))
        step, rendered = step + 1, rendered + size
        clock.tick(size)
        if step % 50 == 0:
            # With gradients, though none are asked for: without, a second graph would be compiled.
            checked, _, (logits, outputs, batch) = answer(test)
            right = losses.accuracy(logits, batch["targets"]) | dense.accuracy(outputs, batch)
            found = {name: round(value.item(), 3) for name, value in patches.items()}
            log.write(step=step, pictures=rendered, rate=clock.rate(), loss=round(answers.item(), 3),
                      test=round(checked.item(), 3), norm=round(norm.item(), 2), **found, right=right)
            del logits, outputs, batch, checked
        if time.monotonic() - saved_at > 300:
            keep()
            saved_at = time.monotonic()
    keep()


if __name__ == "__main__":
    main()
