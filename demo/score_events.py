#!/usr/bin/env python3
"""Compares the events that `palmtop watch` told with those that there were, and prints precision and recall.

    palmtop watch --config demo/street.toml --json > events.jsonl
    python3 demo/score_events.py events.jsonl [--truth demo/street.json] [--tolerance 2.0]

Needs only Python. What is scored are turns: beginnings and ends of events. For each turn the truth gives two times, in
seconds: when the world began to change (an object shows its first pixel, or hides its first one), and when that was
done. Events that were told are taken in the order of their beginnings. Each takes the first event of the truth

- that has the same rule and, if the truth has a label, the same label,
- that no other one took, and
- whose beginning it tells in time: not before the change began, and at most the tolerance after it was done.

Both beginnings are right then; if there is none, the one that was told is wrong. The event's end is right if it is told
in time of the end of the same event of the truth. What is still open when the film is over is ended by the loop with
the last picture; such ends do not count as told.

Precision is the share of right turns of those told, recall their share of those that there were.
"""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
TOLERANCE = 2.0  # seconds
SLACK = 1e-3  # of times that were rounded


def events(lines, last):
    """What was told, in the order of beginnings: rule, label, and the seconds of beginning and end.

    There is no end if it was open at the last picture.
    """
    found = {}
    for line in lines:
        record = json.loads(line)
        if record.get("record") != "event":
            continue
        second = record["since_start_ms"] / 1000
        if record["phase"] == "begin":
            event = {"rule": record["rule"], "label": record["label"], "begin": second, "end": None}
            found[record["id"]] = event
        elif record["id"] in found and second < last - SLACK:
            found[record["id"]]["end"] = second
    return list(found.values())


def in_time(second, span, tolerance):
    return span[0] - SLACK <= second <= span[1] + tolerance + SLACK


def match(told, true, tolerance):
    """How many turns were right, and sentences about those that were not."""
    right, wrong, taken = 0, [], set()
    for event in told:
        name = event["rule"] + (f", {event['label']}" if event["label"] else "")
        for i, e in enumerate(true):
            is_it = i not in taken and e["rule"] == event["rule"] and e["label"] in (None, event["label"])
            if is_it and in_time(event["begin"], e["begin"], tolerance):
                break
        else:
            wrong.append(f"{event['begin']:6.1f} s  begins and should not: {name}")
            continue
        taken.add(i)
        right += 1
        if event["end"] is not None and e["end"] is not None and in_time(event["end"], e["end"], tolerance):
            right += 1
        elif event["end"] is not None or e["end"] is not None:
            when = "never" if event["end"] is None else f"at {event['end']:.1f} s"
            wrong.append(f"{event['begin']:6.1f} s  begins, and ends {when} instead of {e['end']}: {name}")
    for i, e in enumerate(true):
        if i not in taken:
            label = f", {e['label']}" if e["label"] else ""
            wrong.append(f"{e['begin'][0]:6.1f} s  was not told: {e['rule']}{label}")
    return right, wrong


def turns(events):
    return sum(1 + (event["end"] is not None) for event in events)


def score(lines, truth, tolerance=TOLERANCE):
    """Precision, recall, how many turns were told and how many there were, and what is wrong."""
    film = truth["film"]
    last = (film["pictures"] - 1) / film["rate"]
    told = events(lines, last)
    right, wrong = match(told, truth["events"], tolerance)
    told, true = turns(told), turns(truth["events"])
    precision = right / told if told else 1.0
    return {"precision": precision, "recall": right / true, "told": told, "true": true, "wrong": wrong}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("told", help="what `palmtop watch --json` printed, or - for standard input")
    parser.add_argument("--truth", type=pathlib.Path, default=HERE / "street.json")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="seconds [default: 2]")
    args = parser.parse_args()
    lines = sys.stdin if args.told == "-" else open(args.told)
    found = score(lines, json.loads(args.truth.read_text()), args.tolerance)
    print(f"{found['told']} turns told, {found['true']} there were")
    print(f"precision {found['precision']:.3f}, recall {found['recall']:.3f}")
    for sentence in found["wrong"]:
        print(sentence)


if __name__ == "__main__":
    main()
