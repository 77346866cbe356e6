"""A model of the hub that the environment names: python test_pull.py"""

import os
import sys

import palmtop


def refused(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"not refused with {kind}")


ID = "google/paligemma-test"
seen = []


def follow(done, total):
    assert 0 <= done <= total or total == 0, (done, total)
    seen.append(done)


class Enough(Exception):
    pass


def enough(done, total):
    raise Enough


# What is no name, or no format.
assert "no short name of a model" in refused(ValueError, lambda: palmtop.pull("nothing"))
assert "no name of a repository" in refused(ValueError, lambda: palmtop.pull("a/../b"))
refused(ValueError, lambda: palmtop.pull(ID, weights="int5"))
refused(ValueError, lambda: palmtop.pull(ID, recipe="text=int5"))
assert "HF_TOKEN" in refused(palmtop.Error, lambda: palmtop.pull("nobody/nothing"))

# Whoever raises ends it, and nothing half-done has the model's name.
here = os.path.join(os.environ["PALMTOP_MODELS"], "paligemma-test-int4.palm")
refused(Enough, lambda: palmtop.pull(ID, weights="int4", progress=enough))
assert not os.path.exists(here)

path = palmtop.pull(ID, weights="int4", progress=follow)
assert path == here and seen and not os.path.exists(here + ".part")
assert palmtop.Model(path).generation == 1
# It is there: nothing is fetched.
os.environ["HF_HUB_OFFLINE"] = "1"
assert palmtop.pull(ID, weights="int4", progress=enough) == here
assert "forbids" in refused(palmtop.Error, lambda: palmtop.pull(ID, weights="int4", again=True))
sys.stdout.write(path)
