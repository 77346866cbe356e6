"""Cycles of blocks of instructions: disassembled by llvm-objdump, simulated by llvm-mca."""

import bisect
import json
import re
import subprocess

# Tools that know Neoverse's models.
VERSIONS = range(22, 17, -1)
# What the simulators cannot run: calls of the system, barriers, hints.
SKIPPED = re.compile(r"^(svc|brk|udf|hlt|msr|mrs|dmb|dsb|isb|hint|nop|bti|paciasp|autiasp|clrex|sys|dc|ic|yield|wfe|sev|prfm)\b")
FEATURES = "+dotprod,+i8mm,+fullfp16,+lse"
# Where a model is wrong by what Arm's Software Optimization Guides say: an instruction stands in that it has right.
# Products of whole registers of bytes run on one unit of the N1 and A76, every other cycle, as those of words do.
CORRECTIONS = {
    "neoverse-n1": [(re.compile(r"^(mul|mla|mls) (v\d+)\.16b, (v\d+)\.16b, (v\d+)\.16b$"), r"\1 \2.4s, \3.4s, \4.4s")],
}
# Rounds of a block in the simulation, fewer for long ones.
ROUNDS, LONG, ROUNDS_OF_LONG = 100, 64, 30


# Instructions a cycle by Arm's Software Optimization Guides of the A72, A76, A78 and X4, to hold the models against.
GUIDES = [
    ("sdot v{d}.4s, v20.16b, v21.4b[1]", {"neoverse-n1": 2, "neoverse-n2": 2, "neoverse-v2": 4}),
    ("smmla v{d}.4s, v20.16b, v21.16b", {"neoverse-n2": 2, "neoverse-v2": 4}),
    ("smull v{d}.8h, v20.8b, v21.8b", {"cortex-a72": 1, "neoverse-n1": 1}),
    ("sadalp v{d}.4s, v20.8h", {"cortex-a72": 1, "neoverse-n1": 1}),
    ("mul v{d}.16b, v20.16b, v21.16b", {"cortex-a72": 0.5, "neoverse-n1": 0.5, "neoverse-n2": 1, "neoverse-v2": 2}),
    ("fmla v{d}.4s, v20.4s, v21.4s", {"cortex-a72": 1, "neoverse-n1": 2, "neoverse-n2": 2, "neoverse-v2": 4}),
    ("scvtf v{d}.4s, v20.4s", {"cortex-a72": 1, "neoverse-n1": 0.5, "neoverse-n2": 0.5, "neoverse-v2": 1}),
    ("add v{d}.4s, v20.4s, v21.4s", {"cortex-a72": 2, "neoverse-n1": 2, "neoverse-n2": 2, "neoverse-v2": 4}),
]


class Program:
    """Instructions and functions of a program that is loaded where it was linked for."""

    def __init__(self, path, objdump, nm):
        text = run([objdump, "-d", "--no-show-raw-insn", "--no-leading-headers", str(path)])
        self.at = {}
        for line in text.split("\n"):
            match = re.match(r"^\s*([0-9a-f]+):\s+(\S.*)$", line)
            if match:
                self.at[int(match[1], 16)] = match[2]
        symbols = []
        for line in run([nm, "-C", "--defined-only", str(path)]).split("\n"):
            match = re.match(r"^([0-9a-f]+) [tTwW] (.*)$", line)
            if match and not match[2].startswith("$"):
                symbols.append((int(match[1], 16), match[2]))
        symbols.sort()
        self.starts, self.names = [s for s, _ in symbols], [n for _, n in symbols]

    def function(self, address):
        i = bisect.bisect_right(self.starts, address) - 1
        return self.names[i] if i >= 0 else "?"

    def text(self, block):
        """The block's instructions as an assembler reads them; addresses of code become labels."""
        out = []
        for i in range(block.instructions):
            line = self.at.get(block.address + 4 * i)
            if line is None or SKIPPED.match(line):
                continue
            line = re.sub(r"\s*//.*$", "", line)
            line = re.sub(r"\s+", " ", line)
            out.append(re.sub(r"0x[0-9a-f]+ <[^<]*>$|(?<=, )0x[0-9a-f]+ <.*>$|0x[0-9a-f]+ <.*>$", ".Ltarget", line))
        return tuple(out)


def corrected(model, line):
    for pattern, instead in CORRECTIONS.get(model, ()):
        line = pattern.sub(instead, line)
    return line


def cycles(mca, model, texts):
    """Cycles of a round of each block, when it follows itself."""
    texts = sorted(set(text for text in texts if text))
    out = {(): 1.0}
    for rounds, part in (
        (ROUNDS, [t for t in texts if len(t) <= LONG]),
        (ROUNDS_OF_LONG, [t for t in texts if len(t) > LONG]),
    ):
        if not part:
            continue
        source = []
        for i, text in enumerate(part):
            source += [f"# LLVM-MCA-BEGIN {i}", *(corrected(model, line) for line in text), f"# LLVM-MCA-END {i}"]
        command = [mca, "-mtriple=aarch64", f"-mcpu={model}", f"-mattr={FEATURES}", f"-iterations={rounds}", "-json"]
        command += ["-skip-unsupported-instructions=any"]
        report = json.loads(run(command, "\n".join(source) + "\n"))
        for region in report["CodeRegions"]:
            out[part[int(region["Name"])]] = region["SummaryView"]["TotalCycles"] / rounds
    return out


def run(command, given=None):
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def guides(mca, models):
    """Rows of instructions: what each model does a cycle, and what the guide of the core says."""
    texts = [tuple(text.format(d=d) for d in range(16)) for text, _ in GUIDES]
    found = {model: cycles(mca, model, texts) for model in models}
    for (text, said), block in zip(GUIDES, texts):
        both = [(f"{16 / found[m][block]:.2g}", f"{said[m]:.2g}" if m in said else "-") for m in models]
        yield [text.split()[0] + (" (16 bytes)" if "{d}.16b" in text else ""), *(f"{a} of {b}" for a, b in both)]
