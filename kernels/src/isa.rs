//! The instruction sets that there are kernels for.

use std::fmt;
use std::str::FromStr;

/// An instruction set that there are kernels for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the definition.
    Scalar,
    /// NEON as in Armv8.0: every 64-bit Arm CPU, such as Cortex-A72.
    Neon,
    /// NEON with the dot product of bytes, such as in Cortex-A76.
    NeonDotprod,
    /// NEON with the matrix product of bytes too, such as in Cortex-X3.
    NeonI8mm,
    /// AVX2, with FMA and F16C: x86-64 CPUs since about 2013.
    Avx2,
    /// AVX2 and AVX-VNNI: x86-64 CPUs without AVX-512 since about 2021.
    AvxVnni,
    /// AVX-512 with VNNI.
    Avx512,
    /// AVX-512 with VNNI, and AMX with int8.
    Amx,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Self; 8] = [
        Self::Scalar,
        Self::Neon,
        Self::NeonDotprod,
        Self::NeonI8mm,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Amx,
    ];

    /// The name used on the command line and in `PALMTOP_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|i| i.name() == s)
            .ok_or_else(|| format!("unknown instruction set '{s}': choose one of {}", all()))
    }
}
