//! `mobile`'s classes for Java and Kotlin on a real virtual machine, over the shared library.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{compilers, crate_dir, exists, libraries, run, tiny_model_and_caption};
use palmtop_tests::bits;
use palmtop_tests::skip::{missing, skipped};

/// The folder of the JDK's headers.
fn jdk() -> Option<PathBuf> {
    if !exists("javac") || !exists("java") {
        return None;
    }
    let javac = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("javac")).find(|p| p.exists())
    });
    let home = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let of_javac = javac.and_then(|javac| Some(javac.canonicalize().ok()?.parent()?.parent()?.to_owned()));
    home.into_iter().chain(of_javac).map(|home| home.join("include")).find(|p| p.join("jni.h").exists())
}

/// Where Kotlin's compiler is: that of the command `kotlinc`, or else the copy that `tests/setup.sh` fetches.
fn kotlin() -> Option<PathBuf> {
    let is_whole = |home: &Path| home.join("lib/kotlinx-coroutines-core-jvm.jar").exists();
    let installed = std::env::var_os("PATH").and_then(|path| {
        let mut folders = std::env::split_paths(&path).map(|folder| folder.join("kotlinc"));
        let home =
            folders.find_map(|kotlinc| Some(kotlinc.canonicalize().ok()?.parent()?.parent()?.to_owned()));
        home.filter(|home| is_whole(home))
    });
    installed.or_else(|| {
        let home = crate_dir().join("../target/kotlin/node_modules/kotlin-compiler");
        is_whole(&home).then_some(home)
    })
}

/// Builds the native side into `folder`.
fn build_native_side(folder: &Path, headers: &Path) {
    let library = format!("{}palmtop_jni{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let mut command = compilers()[0].c();
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-I"]);
    command.arg(crate_dir()).arg("-I").arg(headers).arg("-I").arg(headers.join(system));
    command.arg(crate_dir().join("../mobile/jni/palmtop_jni.c")).arg("-L").arg(libraries());
    command.args(["-lpalmtop_capi", &format!("-Wl,-rpath,{}", libraries().display())]);
    run(command.arg("-o").arg(folder.join(library)));
}

/// The virtual machine with every check of the arguments of native calls that it has.
fn java(folder: &Path, classes: &[&Path], main: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xcheck:jni", "-ea", "-cp"]).arg(std::env::join_paths(classes).unwrap());
    command.arg(format!("-Djava.library.path={}", folder.display())).arg(main);
    command
}

#[test]
fn the_jvm_hears_what_the_rust_library_says() {
    let Some(headers) = jdk() else {
        missing("the classes for Java and Kotlin", "no JDK is here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    build_native_side(folder, &headers);
    let mobile = crate_dir().join("../mobile");
    let classes = folder.join("classes");
    let mut command = Command::new("javac");
    command
        .args(["-Xlint:all", "-Werror", "--release", "8", "-Xlint:-options", "-encoding", "UTF-8", "-d"])
        .arg(&classes);
    command.arg(mobile.join("java/dev/palmtop/Palmtop.java")).arg(mobile.join("tests/PalmtopTest.java"));
    run(&mut command);

    let (model, picture, caption) = tiny_model_and_caption(40);
    let said = run(java(folder, &[&classes], "PalmtopTest").arg(&model.path).arg(&picture));
    assert!(!said.contains("WARNING"), "{said}");
    assert_eq!(said, bits(&caption));

    let Some(kotlin) = kotlin() else {
        skipped("the flows of Kotlin", "Kotlin's compiler is not here (tests/setup.sh)");
        return;
    };
    let [coroutines, standard] =
        ["kotlinx-coroutines-core-jvm.jar", "kotlin-stdlib.jar"].map(|jar| kotlin.join("lib").join(jar));
    let mut kotlinc = Command::new("bash");
    kotlinc.arg(kotlin.join("bin/kotlinc")).args(["-Werror", "-cp"]);
    kotlinc.arg(std::env::join_paths([&classes, &coroutines]).unwrap()).arg("-d").arg(&classes);
    run(kotlinc
        .arg(mobile.join("kotlin"))
        .args(["FlowsTest.kt", "WatchingTest.kt"].map(|t| mobile.join("tests").join(t))));
    let on_jvm = |main| {
        let mut java = java(folder, &[&classes, &coroutines, &standard], main);
        run(java.arg(&model.path).arg(&picture))
    };
    assert_eq!(on_jvm("FlowsTestKt"), "ok\n");
    assert_eq!(on_jvm("WatchingTestKt"), "ok\n");
    let sample = on_jvm("SampleKt");
    assert!(sample.starts_with(&caption.text), "{sample}");
}
