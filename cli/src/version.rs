//! `palmtop --version --verbose`: what this program is made of, one fact a line.

use std::fmt::Write;

use palmtop_kernels::Isa;

/// The lines. `docs/json.md` has the names of the instruction sets.
pub fn lines() -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        let _ = writeln!(text, "{what}: {}", if value.is_empty() { "unknown" } else { value });
    };
    line("version", env!("CARGO_PKG_VERSION"));
    line("commit", env!("PALMTOP_COMMIT"));
    line("target", env!("PALMTOP_TARGET"));
    line("features", if cfg!(feature = "ros2") { "ros2" } else { "none" });
    line("model files", &format!("version {}", palmtop::format::VERSION));
    let names = |isas: &mut dyn Iterator<Item = Isa>| isas.map(Isa::name).collect::<Vec<_>>().join(", ");
    line("instruction sets", &names(&mut Isa::ALL.into_iter().filter(|isa| isa.is_compiled())));
    line("of this CPU", &names(&mut Isa::available()));
    text
}

/// Whether the arguments before a command ask for more than the version's number.
pub fn is_verbose(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.skip(1).any(|argument| {
        let argument = argument.to_string_lossy();
        let is_short = argument.starts_with('-') && !argument.starts_with("--");
        argument == "--verbose" || (is_short && argument.contains('v'))
    })
}
