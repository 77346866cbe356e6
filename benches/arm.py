#!/usr/bin/env python3
"""Predicts what a whole picture, prompt and token of PaliGemma 3B take on boards with 64-bit Arm.

Compiles the library for aarch64 and runs a model of full width and few layers in QEMU's user emulation. A plugin counts
how often every block of instructions runs, and which accesses miss in the board's caches; nothing that runs is left
out. llvm-mca says how many cycles each block takes on the model of a core; the layers that were left out are added by
arithmetic. What is assumed stands in `arm/boards.py` and `arm/model.py`, and is printed.

    python3 benches/arm.py                    # all boards, int4
    python3 benches/arm.py --board pi5 --weights int8 --hottest 20
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "arm"))
import boards
import mca
import model
import report

ROOT = Path(__file__).resolve().parent.parent
TARGET = "aarch64-unknown-linux-gnu"
FOLDER = ROOT / "target-aarch64"
RUST = Path("/usr/lib/rustlib") / TARGET


def tools():
    """The programs that this takes; says which Debian packages are missing."""
    found, missing = {}, []
    for name in ("llvm-mca", "llvm-objdump", "llvm-nm"):
        path = next((p for v in mca.VERSIONS if (p := shutil.which(f"{name}-{v}"))), None)
        found[name] = path
    if None in found.values():
        missing.append("llvm-19")
    # The one that is linked statically loads no plugin.
    for name, package in (("qemu-aarch64", "qemu-user"), ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"), ("gcc", "gcc")):
        found[name] = shutil.which(name)
        if found[name] is None:
            missing.append(package)
    if not (Path("/usr/bin/cargo").exists() and RUST.exists()):
        missing.append("rustc-web cargo-web libstd-rust-web-dev:arm64")
    if missing:
        raise SystemExit("missing; on Debian: apt-get install --no-install-recommends " + " ".join(missing))
    return found


def cargo(*more):
    """Builds `stages`, without link-time optimisation: it takes longest, and kernels are called by pointers."""
    env = {k: v for k, v in os.environ.items() if k not in ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR")}
    env |= {"RUSTC": "/usr/bin/rustc", "CARGO": "/usr/bin/cargo"}
    env |= {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_DEBUG": "0"}
    env["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"] = "aarch64-linux-gnu-gcc"
    # Loaded where it was linked for, so that addresses name instructions.
    env["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS"] = "-C target-feature=+crt-static -C relocation-model=static"
    command = ["/usr/bin/cargo", "build", "--release", "-p", "palmtop-benches", "--features", "stages", "--bin", "stages"]
    subprocess.run([*command, "--target-dir", str(FOLDER), *more], cwd=ROOT, env=env, check=True)


def model_file(weights):
    """A model of random weights, made on this machine, where that is fast."""
    file = FOLDER / f"stages-{weights}.palm"
    if not file.exists():
        cargo()
        subprocess.run([str(FOLDER / "release/stages"), "make", str(file), weights], check=True)
    return file


def plugin(found):
    said = subprocess.run([found["qemu-aarch64"], "--version"], capture_output=True, text=True, check=True).stdout
    version = 1 if int(said.split("version ")[1].split(".")[0]) < 9 else 2
    out = FOLDER / "blocks.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-DPLUGIN_VERSION={version}", "-o", str(out)]
    subprocess.run([*command, str(ROOT / "benches/arm/blocks.c")], check=True)
    return out


def count(found, board, weights):
    """Runs the model in emulation; gives the program, each phase's name and sections, and the prefill's rows."""
    file = model_file(weights)
    cargo("--target", TARGET)
    program = FOLDER / TARGET / "release/stages"
    caches = "/".join(f"{size}:{ways}" for size, ways in board.caches)
    trace = FOLDER / f"trace-{board.isa}-{weights}-{caches.replace('/', '-').replace(':', 'x')}"
    said = trace.with_name(trace.name + ".names")
    if not said.exists() or said.stat().st_mtime < program.stat().st_mtime:
        print(f"counting for {board.name}: some minutes", file=sys.stderr)
        argument = f"{plugin(found)},out={trace},caches={caches}"
        command = [found["qemu-aarch64"], "-cpu", board.qemu, "-plugin", argument, str(program), "run", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"the model did not run in emulation; if {file} is an old one, delete it:\n{done.stderr[-2000:]}")
        said.write_text(done.stdout)
    names = said.read_text().split("\n")[:-1]
    if names[0] != f"begin {board.isa}":
        raise SystemExit(f"emulation chose other kernels than {board.isa}: {names[0]}")
    with trace.open() as lines:
        return program, model.phases(model.parse_trace(lines), names), int(names[-1].split()[1])


def predict(found, board, weights, hottest):
    program, phases, rows = count(found, board, weights)
    program = mca.Program(program, found["llvm-objdump"], found["llvm-nm"])
    blocks = [b for _, sections in phases for section in sections for b in section.blocks]
    functions = {b.address: program.function(b.address) for b in blocks}
    texts = {(b.address, b.instructions): program.text(b) for b in blocks}
    attends = lambda section: any(model.kind_of(functions[b.address]) == "attention" for b in section.blocks)

    def kind(block):
        kind = model.kind_of(functions[block.address])
        if kind == "products":
            dots = any(model.DOTS.match(line) for line in texts[block.address, block.instructions])
            return "products" if dots else "unpacking"
        return kind

    # Encode, prefill, and the second of the tokens.
    chosen = [p for p in phases if p[0] in ("encode", "prefill")] + [[p for p in phases if p[0] == "token"][-1]]
    works, clocks, hot = [], [], defaultdict(lambda: [0.0, 0.0])
    for core, n, ghz in board.cores:
        cycles = mca.cycles(found["llvm-mca"], core.mca, texts.values())
        cost = lambda b: (kind(b), cycles.get(texts[b.address, b.instructions], float(b.instructions)))
        works.append({p[0]: model.total(p, cost, core, attends) for p in chosen})
        clocks.append((n, ghz * 1e9))
        if len(works) == 1:
            for p in chosen:
                for section, times, _ in model.weights_of_sections(*p, attends):
                    for b in section.blocks:
                        k, c = cost(b)
                        sums = hot[p[0], k, functions[b.address]]
                        sums[0] += times * model.block_work(b, c, core).cycles
                        sums[1] += times * b.runs * b.instructions
    out = {}
    for name, _ in chosen:
        per_core = [w[name] for w in works]
        out[name] = (model.seconds(name, per_core, board, clocks), per_core[0])
    print(f"\n## {board.name}, {weights}\n")
    report.assumptions(board)
    print()
    report.stages(out)
    print()
    if hottest:
        report.hottest(hot, hottest)
        print()
    report.summary(board, model.multiply_adds(rows), out, model.read_for_a_token(weights))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--board", choices=boards.BOARDS, action="append")
    parser.add_argument("--weights", choices=["int4", "int8"], default="int4")
    parser.add_argument("--hottest", type=int, default=0, metavar="N", help="also the N functions with the most cycles")
    args = parser.parse_args()
    found = tools()
    models = sorted({core.mca for board in boards.BOARDS.values() for core, _, _ in board.cores})
    print("Instructions a cycle, the models' of what Arm's guides say:\n")
    report.table([("", *models), *mca.guides(found["llvm-mca"], models)])
    for name in args.board or boards.BOARDS:
        predict(found, boards.BOARDS[name], args.weights, args.hottest)


if __name__ == "__main__":
    main()
