//! Finds out whether this ggml's kernels for Intel's tile unit can be used: `cfg(ggml_tiles)`.

use std::path::{Path, PathBuf};

/// The first GCC whose `_tile_loadconfig` is trusted. That of 12.2 tells its optimizer of 8 of the 64 bytes that the
/// instruction reads, so that the others are never written, and ggml dies of a fault (GCC bug 114098).
const GCC_MAJOR_MIN: u32 = 14;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ggml_tiles)");
    println!("cargo::rerun-if-changed=build.rs");
    // Told by llama-cpp-sys-2: the folder lib/cmake of what it has installed. What cmake knows of the compiler lies
    // beside.
    println!("cargo::rerun-if-env-changed=DEP_LLAMA_GGML_CMAKE_DIR");
    let Some(installed) = std::env::var_os("DEP_LLAMA_GGML_CMAKE_DIR").map(PathBuf::from) else { return };
    match installed.ancestors().nth(2).and_then(compiler) {
        Some((id, version)) if id == "GNU" && version < GCC_MAJOR_MIN => {}
        Some(_) => println!("cargo::rustc-cfg=ggml_tiles"),
        None => println!("cargo::warning=cannot tell ggml's C++ compiler: its tile kernels are not used"),
    }
}

/// Name and major version of the C++ compiler.
fn compiler(out: &Path) -> Option<(String, u32)> {
    let folders = std::fs::read_dir(out.join("build/CMakeFiles")).ok()?;
    let text = folders
        .flatten()
        .find_map(|f| std::fs::read_to_string(f.path().join("CMakeCXXCompiler.cmake")).ok())?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("set(")?.strip_prefix(name))?;
        line.split('"').nth(1)
    };
    let version = value("CMAKE_CXX_COMPILER_VERSION ")?;
    Some((value("CMAKE_CXX_COMPILER_ID ")?.to_owned(), version.split('.').next()?.parse().ok()?))
}
