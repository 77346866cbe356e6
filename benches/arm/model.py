"""From counted blocks to predicted times: no processes and no files here, so that `test.py` can hold it to numbers."""

import re
from collections import defaultdict
from dataclasses import dataclass, field

LINE = 64
# Layers of the whole model; `stages.rs` runs one of the encoder's, and two of the decoder's, of which the last one ends
# early.
VISION_LAYERS, TEXT_LAYERS = 27, 18
# A loop that goes round so often on average is longer than what branch predictors remember: its end is mispredicted.
REMEMBERED_ROUNDS = 32
# A region of the pool: threads that spin are woken and waited for, by cache lines that go from core to core.
REGION_SECONDS = 2e-6

DOTS = re.compile(r"^(sdot|smmla|smull2?|udot|sadalp)\b")

# The kinds of work, by what stands in the names of functions; the first that fits. What is not among them is `other`.
KINDS = [
    ("products", r"matmul_integer|matmul_int::|PackedMatrix::stripe"),
    ("float products", r"matmul_f16|matmul_f32|matmul_float"),
    ("attention", r"attention|mean_of_keys|quantize_keys_values|kv_cache|::Tile"),
    ("gelu", r"gelu"),
    ("norms", r"_norm\b|rms_norm|layer_norm"),
    ("quantize", r"quantize_chunk|StagedWriter"),
    ("rope and cache", r"rotate|Rope"),
    ("sums and biases", r"Compute::matmul|compute::|Epilogue|matmul_panels|matmul_activated|Compute::stage"),
    ("picture", r"::image::|resize|normalise"),
    ("choice of the token", r"sum_exp|sampler|likeliest|softcap|sequence::|answering::"),
    ("embedding", r"dequantize|embed"),
    ("copies", r"^(__)?mem(cpy|move|set|cmp)|memcpy|memset"),
]
# Work of one thread while the others wait, whatever the rows; and what is none of the kinds, outside of the layers.
SERIAL = {"picture", "choice of the token", "embedding"}
# What a single row makes serial: threads share rows there.
SERIAL_IF_ONE_ROW = {"norms", "quantize", "rope and cache", "copies", "other"}
# Tasks of a single row's attention with one head of keys and eight of queries, of which a task takes six at most.
ATTENTION_TASKS = 2
# Memory gives these while the others compute: the products fetch their next weights ahead, and what is copied is weights
# on their way to the first level for the most part.
FETCHED_AHEAD = ("products", "unpacking", "copies")


# PaliGemma 3B at 224 pixels: patches, their values; widths and MLP of encoder and decoder, heads, vocabulary.
PATCHES, PATCH_VALUES = 256, 588
VISION, VISION_MLP, VISION_HEADS = 1152, 4304, 16
TEXT, TEXT_MLP, QKV, HEADS, HEAD_DIM, VOCABULARY = 2048, 16384, 2560, 8, 256, 257216
TEXT_LAYER = TEXT * QKV + TEXT * TEXT + 3 * TEXT * TEXT_MLP
# Bits of a weight; the head is int8 with both.
BITS = {"int4": 4.3125, "int8": 8.0625}


def multiply_adds(rows):
    """Of the encoder, and of a prefill of so many rows."""
    layer = VISION * 3 * VISION + VISION * VISION + 2 * VISION * VISION_MLP
    encoder = PATCHES * (VISION * PATCH_VALUES + VISION_LAYERS * layer + VISION * TEXT)
    encoder += VISION_LAYERS * 2 * PATCHES * PATCHES * VISION
    prefill = rows * ((TEXT_LAYERS - 1) * TEXT_LAYER + TEXT * QKV) + TEXT_LAYER - TEXT * QKV + TEXT * VOCABULARY
    prefill += TEXT_LAYERS * 2 * rows * rows * HEADS * HEAD_DIM
    return {"encode": encoder, "prefill": prefill}


def read_for_a_token(weights):
    """Bytes of weights."""
    return (TEXT_LAYERS * TEXT_LAYER * BITS[weights] + TEXT * VOCABULARY * BITS["int8"]) / 8


@dataclass
class Block:
    address: int
    instructions: int
    runs: int
    # Runs that followed a run of the same block.
    again: int
    misses: tuple


@dataclass
class Section:
    """What ran until a write or a reading of the clock."""

    end: str
    blocks: list = field(default_factory=list)


def parse_trace(lines):
    sections, current = [], []
    for line in lines:
        if line.startswith("stage "):
            # The line stands before the blocks of the stage that has ended.
            current = []
            sections.append(Section(line.split()[1], current))
            continue
        address, *numbers = line.split()
        instructions, runs, again, *misses = map(int, numbers)
        current.append(Block(int(address, 16), instructions, runs, again, tuple(misses)))
    return sections


def kind_of(name):
    return next((kind for kind, pattern in KINDS if re.search(pattern, name)), "other")


def phases(sections, names):
    """The sections of each phase, by the line that ended it."""
    found, current = [], []
    names = iter(names)
    for section in sections:
        current.append(section)
        if section.end == "write":
            found.append((next(names), current))
            current = []
    return found


def weights_of_sections(name, sections, is_layer):
    """How often each section of a phase happens in the whole model, and whether it lies before, in or behind the layers.

    Sections that attend are layers; those before, between and behind them happen once.
    """
    layers = [i for i, section in enumerate(sections) if is_layer(section)]
    if not layers:
        raise SystemExit(f"{name}: no layer was found in what was counted")
    wanted = 1 if name == "encode" else 2
    if len(layers) != wanted:
        raise SystemExit(f"{name}: {len(layers)} layers were found in what was counted, not {wanted}")
    out = []
    for i, section in enumerate(sections):
        where = "before" if i < layers[0] else "behind" if i > layers[-1] else "layers"
        times = 1
        if i == layers[0]:
            times = VISION_LAYERS if name == "encode" else TEXT_LAYERS - 1
        out.append((section, times, where))
    return out


@dataclass
class Work:
    """Of one kind in one phase, over all cores."""

    cycles: float = 0.0
    cache_cycles: float = 0.0
    dram_lines: float = 0.0
    instructions: float = 0.0

    def add(self, other, times=1):
        self.cycles += times * other.cycles
        self.cache_cycles += times * other.cache_cycles
        self.dram_lines += times * other.dram_lines
        self.instructions += times * other.instructions


def block_work(block, cycles, core):
    """`cycles` is what the block takes when it runs again and again."""
    work = Work()
    work.instructions = block.instructions * block.runs
    work.cycles = max(cycles, 1.0) * block.runs
    ends = block.runs - block.again
    if ends and block.runs / ends > REMEMBERED_ROUNDS:
        work.cycles += ends * core.mispredict
    misses = block.misses
    # Lines that come from the second and from the third level; those of the last level come from memory.
    for level, bytes_per_cycle in zip(range(1, len(misses)), (core.l2_bytes, core.l3_bytes)):
        work.cache_cycles += (misses[level - 1] - misses[level]) * LINE / bytes_per_cycle
    work.dram_lines = misses[-1] if misses else 0
    return work


def total(phase, kind_and_cycles, core, is_layer):
    """`{(where, kind): Work}` of a phase of the whole model."""
    name, sections = phase
    out = defaultdict(Work)
    for section, times, where in weights_of_sections(name, sections, is_layer):
        for block in section.blocks:
            kind, cycles = kind_and_cycles(block)
            out[where, kind].add(block_work(block, cycles, core), times)
    return out


def threads_of(kind, where, one_row, cores):
    if kind in SERIAL or (one_row and kind in SERIAL_IF_ONE_ROW) or (kind == "other" and where != "layers"):
        return 1
    return min(cores, ATTENTION_TASKS) if one_row and kind == "attention" else cores


def seconds(name, works, board, clocks):
    """`{(where, kind): (time, compute, memory)}` in seconds.

    `works` has for each kind of core the same work in its cycles; `clocks` are (cores, hertz) of each. A kind takes what
    the cores compute or what memory gives, whichever is longer; those that are fetched ahead do so together.
    """
    one_row = name == "token"
    out = {}
    for (where, kind), first in works[0].items():
        rates, left = [], threads_of(kind, where, one_row, sum(cores for cores, _ in clocks))
        for work, (cores, hertz) in zip(works, clocks):
            cycles = work[where, kind].cycles + work[where, kind].cache_cycles
            used = min(cores, left)
            left -= used
            rates.append(used * hertz / max(cycles, 1e-9))
        compute, memory = 1 / sum(rates), first.dram_lines * LINE / (board.dram * 1e9)
        out[where, kind] = (max(compute, memory), compute, memory)
    for where in {where for where, _ in out}:
        ahead = [(where, kind) for kind in FETCHED_AHEAD if (where, kind) in out]
        compute, memory = (sum(out[key][i] for key in ahead) for i in (1, 2))
        for key in ahead:
            share = out[key][1] / compute if compute else 0
            out[key] = (max(compute, memory) * share, *out[key][1:])
    return out


def regions(name):
    """Regions of the pool in a phase of the whole model: see `vision.rs` and `text.rs`."""
    if name == "encode":
        return 3 + VISION_LAYERS * 9
    return 6 + TEXT_LAYERS * 9


def joules(watts, first_token, token, tokens):
    return watts * (first_token + (tokens - 1) * token)
