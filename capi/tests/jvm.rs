//! `mobile`'s class for Java and Kotlin on a real virtual machine, over the shared library.

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;

use common::{bits, compilers, crate_dir, exists, libraries, run, skipped};
use palmtop::image::{ImageLimits, decode_file};
use palmtop::{GenerateOptions, Limits, Model, Session};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, data, uniform};

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

#[test]
fn the_jvm_hears_what_the_rust_library_says() {
    let Some(headers) = jdk() else {
        skipped("the class for Java and Kotlin, since no JDK is here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mobile = crate_dir().join("../mobile");
    let library = folder.path().join(format!(
        "{}palmtop_jni{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ));
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let mut command = compilers()[0].c();
    command
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-I"])
        .arg(crate_dir());
    command.arg("-I").arg(&headers).arg("-I").arg(headers.join(system)).arg(mobile.join("jni/palmtop_jni.c"));
    command
        .arg("-L")
        .arg(libraries())
        .args(["-lpalmtop_capi", &format!("-Wl,-rpath,{}", libraries().display())]);
    run(command.arg("-o").arg(&library));
    let classes = folder.path().join("classes");
    let mut command = Command::new("javac");
    command
        .args(["-Xlint:all", "-Werror", "--release", "8", "-Xlint:-options", "-encoding", "UTF-8", "-d"])
        .arg(&classes);
    command.arg(mobile.join("java/dev/palmtop/Palmtop.java")).arg(mobile.join("tests/PalmtopTest.java"));
    run(&mut command);

    let model = converted("tiny1", uniform(WeightFormat::Int8));
    let picture = data().join("images/scene_640x361.png");
    let mut command = Command::new("java");
    // With every check of the arguments of native calls that the machine has.
    command.args(["-Xcheck:jni", "-ea", "-cp"]).arg(&classes);
    command.arg(format!("-Djava.library.path={}", folder.path().display())).arg("PalmtopTest");
    let said = run(command.arg(&model.path).arg(&picture));

    let mut limits = Limits::default();
    limits.new_tokens = 40;
    let mut session = Session::new(&Model::open(&model.path).unwrap(), &limits).unwrap();
    let (mut features, options) = (session.new_features().unwrap(), GenerateOptions::default());
    let picture = decode_file(picture, &ImageLimits::default()).unwrap();
    session.encode(picture.view(), &mut features, &options).unwrap();
    let answers =
        session.answer(&features, &["caption en"], &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(!said.contains("WARNING"), "{said}");
    assert_eq!(said, bits(&answers[0]));
}
