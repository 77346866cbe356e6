#!/usr/bin/env python3
"""What the inner loops of the NEON kernels reach at most, by the machine models of llvm-mca.

Compiles the kernels for aarch64 (as tests/aarch64.sh does, which installs what that needs), takes every innermost loop that
multiplies bytes out of the assembly, and prints its multiply-adds per cycle on each model, and the share of what the CPU's
multipliers can do. Memory is taken to be as fast as the first-level cache. Needs llvm-mca, the newer the better (llvm-19).

    python3 benches/mca.py
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "aarch64-unknown-linux-gnu"
# Multiply-adds of an instruction.
MACS = {"smmla": 32, "sdot": 16, "smull": 8, "smull2": 8}
# Multiply-adds per cycle that the multipliers of a CPU can do, by instruction; smull is not rated.
MODELS = {
    "neoverse-n1": {"sdot": 32},
    "neoverse-v1": {"sdot": 64, "smmla": 128},
    "cortex-a76": {"sdot": 32},
}
FUNCTIONS = ["matmul_integer", "matmul_integer_dotprod", "matmul_integer_i8mm"]


def assembly() -> str:
    env = dict(os.environ, RUSTC="/usr/bin/rustc", CARGO="/usr/bin/cargo")
    env["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"] = "aarch64-linux-gnu-gcc"
    target = ROOT / "target-aarch64" / "mca"
    command = ["/usr/bin/cargo", "rustc", "--quiet", "--release", "-p", "palmtop-kernels", "--target", TARGET]
    command += ["--target-dir", str(target), "--", "--emit=asm", "-Cdebuginfo=0", "-Ccodegen-units=1", "-Clto=off"]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    files = sorted((target / TARGET / "release/deps").glob("palmtop_kernels-*.s"), key=lambda f: f.stat().st_mtime)
    return files[-1].read_text()


def functions(text: str):
    """Name and lines of each function that is asked for, and of those that it may call."""
    for match in re.finditer(r"^(_[^\s:]*4arch4neon[^\s:]*):\n(.*?)^\.Lfunc_end", text, re.M | re.S):
        yield match[1], match[2].split("\n")


def loops(lines):
    """The innermost loops: from a label to the branch back to it, with no other such loop inside."""
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.match(r"^\.L\w+:$", line)}
    found = []
    for i, line in enumerate(lines):
        branch = re.match(r"\s+(?:b\.\w+|cbn?z|tbn?z|b)\s.*?(\.L\w+)$", line)
        if branch and labels.get(branch[1], i) < i:
            found.append((labels[branch[1]], i))
    for start, end in found:
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in found):
            body = [l for l in lines[start + 1 : end + 1] if re.match(r"\s+[a-z]", l) and not l.strip().startswith(".")]
            yield [l for l in body if not l.strip().startswith("//")]


def count(body):
    ops = [line.split()[0] for line in body]
    by = {op: ops.count(op) for op in MACS if op in ops}
    return by, sum(MACS[op] * n for op, n in by.items())


def cycles(mca, model, body):
    rounds = 200
    command = [mca, "-mtriple=aarch64", f"-mcpu={model}", "-mattr=+dotprod,+i8mm", f"-iterations={rounds}"]
    out = subprocess.run(command, input="\n".join(body), capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", out)[1]) / rounds


def name(function, by, body):
    ops = [line.split()[0] for line in body]
    nibbles = ops.count("ushr") > 3 or ops.count("mla") > 3
    kind = "smmla" if "smmla" in by else "sdot" if "sdot" in by else "smull"
    n = by.get("smmla", 0) + by.get("sdot", 0) + by.get("smull", 0)
    return kind, nibbles, n


def main():
    mca = next(filter(shutil.which, ["llvm-mca-22", "llvm-mca-21", "llvm-mca-20", "llvm-mca-19", "llvm-mca"]), None)
    if mca is None:
        sys.exit("llvm-mca is missing: install Debian's llvm-19")
    print(subprocess.run([mca, "--version"], capture_output=True, text=True).stdout.strip().split("\n")[0])
    seen = set()
    rows = []
    for function, lines in functions(assembly()):
        for body in loops(lines):
            by, macs = count(body)
            if macs < 128:
                continue
            kind, nibbles, n = name(function, by, body)
            what = {
                ("sdot", False, 80): "many rows, int4 and int8: 5 rows by 16 outputs",
                ("smmla", False, 24): "many rows, int4 and int8: 6 rows by 16 outputs",
                ("sdot", False, 16): "one row, int8",
                ("sdot", True, 16): "one row, int4",
                ("sdot", False, 32): "two rows, int8",
                ("sdot", True, 32): "two rows, int4",
                ("smull", False, 64): "many rows, int4 and int8: 4 rows by 16 outputs",
                ("smull", False, 16): "one row, int8",
                ("smull", True, 16): "one row, int4",
            }.get((kind, nibbles, n))
            if what is None or (kind, what) in seen:
                continue
            seen.add((kind, what))
            row = [kind, what]
            for model, rates in MODELS.items():
                rate = macs / cycles(mca, model, body)
                limit = rates.get(kind)
                row.append(f"{rate:.1f}" + (f" of {limit}" if limit else ""))
            rows.append(row)
    print("| instruction | loop | " + " | ".join(MODELS) + " |")
    print("|---|---|" + "---|" * len(MODELS))
    for row in sorted(rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
