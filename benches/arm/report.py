"""Prints what was predicted."""

import model

# Of a caption.
ANSWER_TOKENS = 12
WEIGHT_PHASES = {"encode": "image encoder", "prefill": "prefill", "token": "token"}


def milliseconds(seconds):
    return f"{seconds * 1e3:.1f}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def table(rows):
    for i, row in enumerate(rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
        if i == 0:
            print("|" + "---|" * len(row))


def assumptions(board):
    """What the prediction of a board stands on."""
    for kind, n, ghz in board.cores:
        print(f"- {n} {kind.name} at {ghz} GHz, {kind.macs} int8 multiply-adds a cycle; llvm-mca's {kind.mca}: {kind.stands_for}")
        print(f"  A line from the second level takes {model.LINE / kind.l2_bytes:.0f} cycles, from the third {model.LINE / kind.l3_bytes:.0f}, and nothing hides them")
    caches = ", ".join(f"{size >> 10} KiB of {ways} ways" for size, ways in board.caches)
    print(f"- kernels {board.isa}; caches: {caches}, those that cores share in full for one of them")
    print(f"- memory gives {board.dram:.0f} of {board.dram_peak:.0f} GB/s: {board.dram_source}")
    print(f"- a kind of work takes what cores compute or what memory gives, whichever is longer; weights come while others are multiplied")
    print(f"- the end of a loop of more than {model.REMEMBERED_ROUNDS} rounds is mispredicted; a region of the pool costs {model.REGION_SECONDS * 1e6:.0f} µs")
    print("- not in it: address translation, instruction fetches, cores in each other's way, clocks that heat lowers")


def stages(phases):
    """`phases`: `{name: ({(where, kind): (time, compute, memory)}, {(where, kind): Work of the first core})}`."""
    rows = [("phase", "work", "G instructions", "G cycles", "of them for caches", "GB from memory", "ms", "share")]
    for name, (times, works) in phases.items():
        whole = sum(t for t, _, _ in times.values())
        by_kind = {}
        for (where, kind), (time, _, _) in times.items():
            label = "products of the head" if name != "encode" and where == "behind" and kind.startswith("products") else kind
            work, seconds = by_kind.setdefault(label, (model.Work(), [0.0]))
            work.add(works[where, kind])
            seconds[0] += time
        for label, (work, (time,)) in sorted(by_kind.items(), key=lambda item: -item[1][1][0]):
            rows.append((
                WEIGHT_PHASES[name], label, f"{work.instructions / 1e9:.3f}", f"{(work.cycles + work.cache_cycles) / 1e9:.3f}",
                f"{work.cache_cycles / 1e9:.3f}", f"{work.dram_lines * model.LINE / 1e9:.3f}", milliseconds(time),
                f"{100 * time / whole:.1f} %",
            ))
    table(rows)


def summary(board, macs, phases, floor_bytes):
    rows = [("board", "phase", "predicted", "at the limit", "share of the limit", "what limits")]
    whole = {}
    peak = sum(n * ghz * 1e9 * kind.macs for kind, n, ghz in board.cores)
    for name, (times, _) in phases.items():
        waiting = model.regions(name) * model.REGION_SECONDS
        whole[name] = sum(t for t, _, _ in times.values()) + waiting
        if name == "token":
            limit, what = floor_bytes / (board.dram * 1e9), f"{floor_bytes / 1e9:.3f} GB at {board.dram:.0f} GB/s"
        else:
            limit, what = macs[name] / peak, f"{macs[name] / 1e9:.0f} G multiply-adds at {peak / 1e9:.0f} G/s"
        rows.append((
            board.name, WEIGHT_PHASES[name], f"{milliseconds(whole[name])} ms", f"{milliseconds(limit)} ms",
            f"{100 * limit / whole[name]:.1f} %", what,
        ))
    first = whole["encode"] + whole["prefill"]
    rows.append((board.name, "first token", f"{first:.2f} s", "", "", ""))
    table(rows)
    if board.watts is not None:
        joules = model.joules(board.watts, first, whole["token"], ANSWER_TOKENS)
        print(f"\n{board.name}: {joules:.1f} J for an answer of {ANSWER_TOKENS} tokens, {joules_of_token(board, whole):.2f} J a token")
        print(f"  at {board.watts} W: {board.watts_source}")
    return whole


def joules_of_token(board, whole):
    return board.watts * whole["token"]


def hottest(blocks, n):
    """What is worth looking at: functions by their cycles."""
    rows = [("phase", "work", "function", "M cycles", "M instructions")]
    for (phase, kind, function), (cycles, instructions) in sorted(blocks.items(), key=lambda item: -item[1][0])[:n]:
        rows.append((phase, kind, function[:110], f"{cycles / 1e6:.1f}", f"{instructions / 1e6:.1f}"))
    table(rows)
