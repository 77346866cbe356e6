"""The boards that are predicted, and what is assumed of them. Every figure is public; none was measured by us."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """A kind of CPU core."""

    name: str
    # The machine model of llvm-mca that stands for it, and why.
    mca: str
    stands_for: str
    # int8 multiply-adds of a cycle at most, by the instruction that palmtop uses there.
    macs: int
    # Bytes of a cycle that come from the second and from the third level when all of the first one misses.
    l2_bytes: float
    l3_bytes: float
    # Cycles of a mispredicted branch.
    mispredict: int


# Widths of the levels: half of the 32 bytes that lead to the second one, half of that for the third; twice as much on
# the X4.
A72 = Core("Cortex-A72", "cortex-a72", "LLVM's model of the Cortex-A57, the same two vector pipes", 8, 8, 4, 15)
A76 = Core("Cortex-A76", "neoverse-n1", "Neoverse N1 is this core for servers; LLVM's own model of the A76 is the A57's", 32, 16, 8, 11)
A78 = Core("Cortex-A78AE", "neoverse-n2", "Neoverse N2 is the A710, which follows the A78 and has its two vector pipes", 32, 16, 8, 11)
A720 = Core("Cortex-A720", "neoverse-n2", "Neoverse N2 is the A710, two cores before the A720; two vector pipes", 64, 16, 8, 11)
X4 = Core("Cortex-X4", "neoverse-v2", "Neoverse V2 is the X3; four vector pipes as in the X4", 128, 32, 16, 11)


@dataclass(frozen=True)
class Board:
    name: str
    # Which kernels, and the CPU of QEMU that has them.
    isa: str
    qemu: str
    # Kind, number, GHz.
    cores: tuple
    # Bytes and ways of each level that one core uses; shared ones in full.
    caches: tuple
    # GB/s by the data sheet, and what programs are seen to reach.
    dram_peak: float
    dram: float
    dram_source: str
    # Watts of the whole board while it answers, taken to be the same in all phases.
    watts: float | None = None
    watts_source: str = ""


KIB, MIB = 1 << 10, 1 << 20

BOARDS = {
    "pi5": Board(
        "Raspberry Pi 5", "neon-dotprod", "cortex-a76", ((A76, 4, 2.4),),
        ((64 * KIB, 4), (512 * KIB, 8), (2 * MIB, 16)),
        17.1, 10.0, "LPDDR4X-4267, 32 bits; llama.cpp is seen to read 10 GB/s (ggml-org/llama.cpp 26484)",
        8.0, "a USB meter shows 7.9 W while Geekbench keeps all cores busy (geerlingguy/sbc-reviews 21)",
    ),
    "orin": Board(
        "Jetson Orin Nano", "neon-dotprod", "cortex-a76", ((A78, 6, 1.5),),
        ((64 * KIB, 4), (256 * KIB, 8), (2 * MIB, 16)),
        68.0, 34.0, "LPDDR5, 128 bits; half of the data sheet's",
        15.0, "all that NVIDIA's 15 W mode, which has these clocks, allows; its GPU idles here, so less is to be expected",
    ),
    "phone": Board(
        "phone (Snapdragon 8 Gen 3)", "neon-i8mm", "max", ((X4, 1, 3.3), (A720, 5, 3.0)),
        ((64 * KIB, 4), (512 * KIB, 8), (8 * MIB, 16)),
        77.0, 38.0, "LPDDR5X-4800, 64 bits; half of the data sheet's",
    ),
    "pi4": Board(
        "Raspberry Pi 4", "neon", "cortex-a72", ((A72, 4, 1.8),),
        ((32 * KIB, 2), (1 * MIB, 16)),
        12.8, 4.0, "LPDDR4-3200, 32 bits; what STREAM is seen to reach",
    ),
}
