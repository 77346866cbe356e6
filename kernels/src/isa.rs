//! The instruction sets that there are kernels for, and which of them a process uses.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that chooses the default instruction set of a process.
pub const ISA_VARIABLE: &str = "PALMTOP_ISA";

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
    /// AVX2 and AVX-VNNI: x86-64 CPUs without AVX-512 since about 2021. CPUs that have the same instruction as a part
    /// of AVX-512 only run it in that encoding.
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
    type Err = IsaError;
    fn from_str(s: &str) -> Result<Self, IsaError> {
        let named = Self::ALL.into_iter().find(|i| i.name() == s);
        named.ok_or_else(|| IsaError::Unknown { name: s.to_owned() })
    }
}

/// Why there are no kernels of the instruction set that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name.
    Unknown {
        /// What was taken for a name.
        name: String,
    },
    /// This CPU cannot run it; [`Isa::available`] gives those that it can.
    Unavailable {
        /// The set that was asked for.
        isa: Isa,
    },
    /// The environment variable [`ISA_VARIABLE`] asks for a set that cannot be had.
    Variable(Box<IsaError>),
    /// The process has another default already, which was set or used before.
    DefaultIsSet {
        /// The default.
        default: Isa,
        /// The set that should have become it.
        asked: Isa,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |isas: &mut dyn Iterator<Item = Isa>| isas.map(Isa::name).collect::<Vec<_>>().join(", ");
        match self {
            Self::Unknown { name } => {
                let all = names(&mut Isa::ALL.into_iter());
                write!(f, "unknown instruction set '{name}': choose one of {all}")
            }
            Self::Unavailable { isa } => {
                write!(f, "this CPU does not have {isa}: choose one of {}", names(&mut Isa::available()))
            }
            Self::Variable(error) => write!(f, "{ISA_VARIABLE}: {error}"),
            Self::DefaultIsSet { default, asked } => {
                let when = "set the default once, before the first session, or give each session its own";
                write!(
                    f,
                    "{asked} cannot become the default of this process, which is {default} already: {when}"
                )
            }
        }
    }
}

impl std::error::Error for IsaError {}

/// The default of the process, from when it was set or first used.
static DEFAULT: OnceLock<Isa> = OnceLock::new();

/// Makes `isa` the instruction set of all kernels of this process that are made without naming one, whatever
/// `PALMTOP_ISA` says. Call it before the first of them: from then on the default stays as it is.
///
/// # Errors
/// [`IsaError::Unavailable`], and [`IsaError::DefaultIsSet`] if the default is another set already.
pub fn set_default_isa(isa: Isa) -> Result<(), IsaError> {
    isa.check()?;
    match *DEFAULT.get_or_init(|| isa) {
        default if default == isa => Ok(()),
        default => Err(IsaError::DefaultIsSet { default, asked: isa }),
    }
}

impl Isa {
    /// True if this build has kernels for it, as it has for every set of its architecture. Whether the CPU can run them
    /// is another question: [`Isa::is_available`].
    pub const fn is_compiled(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Neon | Self::NeonDotprod | Self::NeonI8mm => cfg!(target_arch = "aarch64"),
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Amx => cfg!(target_arch = "x86_64"),
        }
    }

    /// Those that this CPU can run, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The best that this CPU can run.
    pub fn best() -> Self {
        Self::available().last().expect("plain Rust runs everywhere")
    }

    /// The default of this process: what [`set_default_isa`] was given, or else what the environment variable
    /// `PALMTOP_ISA` names, or else (if that is not set, or empty) [`Isa::best`]. The variable is read once. The first
    /// call that succeeds fixes the default.
    ///
    /// # Errors
    /// [`IsaError::Variable`].
    pub fn select() -> Result<Self, IsaError> {
        static VARIABLE: OnceLock<Option<OsString>> = OnceLock::new();
        if let Some(&isa) = DEFAULT.get() {
            return Ok(isa);
        }
        let read = || std::env::var_os(ISA_VARIABLE).filter(|name| !name.is_empty());
        let isa = match VARIABLE.get_or_init(read) {
            None => Self::best(),
            Some(name) => {
                let named = name.to_string_lossy().parse().and_then(|isa: Self| isa.check().map(|()| isa));
                named.map_err(|error| IsaError::Variable(Box::new(error)))?
            }
        };
        Ok(*DEFAULT.get_or_init(|| isa))
    }

    /// Refuses a set that this CPU cannot run.
    fn check(self) -> Result<(), IsaError> {
        if self.is_available() { Ok(()) } else { Err(IsaError::Unavailable { isa: self }) }
    }
}
