"""What can be asked about a scene, with the one right answer to each question.

Answers have one wording each, so that they can be compared letter by letter: objects from left to right, boxes in
the order of the prompt and then from left to right. A question is asked only where its answer is beyond dispute.
"""

from typing import Iterator, NamedTuple

import numpy as np

from . import backgrounds, colors
from .classes import CLASSES
from .scene import Scene, Thing

NUMBERS = ["no", "one", "two", "three", "four", "five"]
CLEAR = 12  # pixels by which places must differ before a question about them is asked
LABELS_MAX = 5  # of a prompt to detect
MASK_LABELS_ODDS = [0.6, 0.25, 0.15]  # of one, two and three labels in a prompt to segment
MASKS_MAX = 3
# How often things are looked for that are not there: alone in training and in held-out sets, and beside others. More in
# training makes it safe to say nothing where a box is not yet certain.
ABSENT_TRAINING, ABSENT_HELD_OUT, ABSENT_BESIDE = 0.1, 0.2, 0.3


class Item(NamedTuple):
    task: str  # caption, answer, ocr, detect or segment
    prompt: str
    answer: str  # `{seg}` stands where the mask codes of the next of `masks` go
    masks: tuple[int, ...] = ()  # indices of things


def items(scene: Scene, rng: np.random.Generator, absent: float = ABSENT_TRAINING) -> Iterator[Item]:
    """Everything to ask about a scene, once each, with a random choice of questions and labels."""
    yield Item("caption", "caption en", caption(scene))
    yield Item("caption", "describe en", description(scene))
    yield Item("ocr", "ocr", scene.text.text if scene.text else "no text")
    yield from _detections(scene, rng, absent)
    yield from _segmentations(scene, rng, absent)
    yield from _questions(scene, rng)


def groups(scene: Scene) -> list[tuple[int, list[Thing]]]:
    """Things of one class together, in the order of the leftmost of each class, from left to right within."""
    found: dict[int, list[Thing]] = {}
    for thing in sorted(scene.things, key=lambda t: t.center[1]):
        found.setdefault(thing.index, []).append(thing)
    return list(found.items())


def caption(scene: Scene) -> str:
    parts = []
    for index, things in groups(scene):
        kind = CLASSES[index]
        parts.append(f"{kind.article} {kind.name}" if len(things) == 1 else f"{NUMBERS[len(things)]} {kind.plural}")
    return _listed(parts)


def description(scene: Scene) -> str:
    text = caption(scene)
    kind, color = scene.background
    if backgrounds.has_color(kind):
        article = "an" if color[0] in "aeiou" else "a"
        text += f" on {article} {color} background"
    else:
        text += " in a landscape" if kind == "landscape" else " on a blurred background"
    if scene.text:
        text += f" with the {scene.text.color} text {scene.text.text}"
    return text


def location(pixel: float, side: int) -> str:
    return f"<loc{min(1023, round(pixel * 1024 / side)):04d}>"


def box_tokens(box, side: int) -> str:
    return "".join(location(edge, side) for edge in box)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _labels(scene, rng, count, alone) -> list[int]:
    """At most `count` classes to look for; the first is not there with odds of `alone`."""
    present = [index for index, _ in groups(scene)]
    absent = [i for i in range(len(CLASSES)) if i not in present]
    chosen: list[int] = []
    for odds in [alone] + [ABSENT_BESIDE] * (count - 1):
        pool = absent if rng.random() < odds else present
        index = int(pool[rng.integers(len(pool))])
        if index not in chosen:
            chosen.append(index)
    return [int(i) for i in rng.permutation(chosen)]


def _asking(verb: str, chosen: list[int]) -> str:
    return f"{verb} " + " ; ".join(CLASSES[index].name for index in chosen)


def _detections(scene, rng, absent) -> Iterator[Item]:
    side = scene.pixels.shape[0]
    by_class = dict(groups(scene))
    for _ in range(2):
        chosen = _labels(scene, rng, int(rng.integers(1, LABELS_MAX + 1)), absent)
        boxes = [
            f"{box_tokens(thing.box, side)} {CLASSES[index].name}"
            for index in chosen
            for thing in by_class.get(index, [])
        ]
        yield Item("detect", _asking("detect", chosen), " ; ".join(boxes))
    if scene.text:
        yield Item("detect", "detect text", f"{box_tokens(scene.text.box, side)} text")


def _segmentations(scene, rng, absent) -> Iterator[Item]:
    side = scene.pixels.shape[0]
    by_class = dict(groups(scene))
    chosen: list[int] = []
    things: list[Thing] = []
    for index in _labels(scene, rng, 1 + int(rng.choice(len(MASK_LABELS_ODDS), p=MASK_LABELS_ODDS)), 0.0):
        more = by_class.get(index, [])
        if len(things) + len(more) <= MASKS_MAX:
            chosen.append(index)
            things += more
    if things:
        masks = [f"{box_tokens(thing.box, side)}{{seg}} {thing.name}" for thing in things]
        numbers = tuple(scene.things.index(thing) for thing in things)
        yield Item("segment", _asking("segment", chosen), " ; ".join(masks), numbers)
    other = int(rng.integers(len(CLASSES)))
    if rng.random() < absent and all(thing.index != other for thing in scene.things):
        yield Item("segment", f"segment {CLASSES[other].name}", "")


def _questions(scene, rng) -> Iterator[Item]:
    def ask(question, answer):
        return Item("answer", f"answer en {question}", answer)

    side = scene.pixels.shape[0]
    unit = side / 224
    found = groups(scene)
    counts = {index: len(things) for index, things in found}
    some = int(rng.choice(list(counts)))
    other = int(rng.integers(len(CLASSES)))
    yield ask(f"how many {CLASSES[some].plural} are there?", str(counts[some]))
    if rng.random() < 0.3:
        yield ask(f"how many {CLASSES[other].plural} are there?", str(counts.get(other, 0)))
    yield ask("how many objects are there?", str(len(scene.things)))
    if rng.random() < 0.5:
        yield ask(f"is there {CLASSES[some].article} {CLASSES[some].name}?", "yes")
    else:
        yield ask(f"is there {CLASSES[other].article} {CLASSES[other].name}?", "yes" if other in counts else "no")
    if backgrounds.has_color(scene.background.kind):
        yield ask("what color is the background?", scene.background.color)
    if scene.text:
        yield ask("what color is the text?", scene.text.color)
        yield ask("what does the text say?", scene.text.text)
    elif rng.random() < 0.3:
        yield ask("what does the text say?", "no text")
    single = [things[0] for _, things in found if len(things) == 1]
    placed = [(thing, place) for thing in single if (place := _place(thing, side)) is not None]
    if placed:
        thing, place = placed[rng.integers(len(placed))]
        yield ask(f"where is the {thing.name}?", place)
    if len(single) >= 2:
        a, b = (single[i] for i in rng.permutation(len(single))[:2])
        relations = [("left of", b.center[1] - a.center[1]), ("right of", a.center[1] - b.center[1])]
        relations += [("above", b.center[0] - a.center[0]), ("below", a.center[0] - b.center[0])]
        words, gap = relations[rng.integers(4)]
        if abs(gap) > CLEAR * unit:
            yield ask(f"is the {a.name} {words} the {b.name}?", "yes" if gap > 0 else "no")
    ranked = sorted(scene.things, key=lambda t: t.area, reverse=True)
    if len(ranked) >= 2 and ranked[0].area > 1.4 * ranked[1].area:
        yield ask("what is the largest object?", ranked[0].name)


def _place(thing: Thing, side: int) -> str | None:
    """In which ninth of the picture the middle of a thing is; None near a border of ninths."""
    words = []
    for middle, names in zip(thing.center, (("top", "", "bottom"), ("left", "", "right"))):
        third = side / 3
        if min(abs(middle - third), abs(middle - 2 * third)) < CLEAR / 2 * side / 224:
            return None
        words.append(names[int(middle // third)])
    return " ".join(word for word in words if word) or "center"


def vocabulary() -> list[str]:
    """Texts with every word that prompts and answers are made of, for the tokenizer; no words to be read."""
    texts = ["caption en", "describe en", "ocr", "no text", "detect text", "yes", "no", "center", " ; ", " and ", ", "]
    for kind in CLASSES:
        texts += [f"{kind.article} {kind.name}", f"detect {kind.name} ; {kind.name}", f"segment {kind.name}"]
        texts += [f"{number} {kind.plural}" for number in NUMBERS[2:]]
        texts += [
            f"answer en how many {kind.plural} are there?",
            f"answer en is there {kind.article} {kind.name}?",
            f"answer en where is the {kind.name}?",
            f"answer en is the {kind.name} left of the {kind.name}?",
            f"answer en is the {kind.name} right of the {kind.name}?",
            f"answer en is the {kind.name} above the {kind.name}?",
            f"answer en is the {kind.name} below the {kind.name}?",
        ]
    for color in colors.NAMES:
        article = "an" if color[0] in "aeiou" else "a"
        texts += [color, f" on {article} {color} background with the {color} text"]
    texts += [" in a landscape", " on a blurred background"]
    texts += [f"answer en what {rest}" for rest in
              ("color is the background?", "color is the text?", "does the text say?", "is the largest object?")]
    texts += ["answer en how many objects are there?", "top left", "top right", "bottom left", "bottom right"]
    return texts
