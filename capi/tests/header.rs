//! `palmtop.h` is written by hand, to be read; what it says is what the library has. The Rust sources are read for
//! every function, struct, constant and callback, written down again in C beside the header's, and a C compiler
//! compares.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use common::{compilers, crate_dir, run};

/// The text of all sources of the library, tests left out.
fn sources() -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(crate_dir().join("src")).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        text += source.split("#[cfg(test)]").next().unwrap();
    }
    // What the macro makes of the handles.
    for handle in ["model", "session", "features", "result", "grammar", "watch", "prefix"] {
        writeln!(text, "pub struct palmtop_{handle} {{\n    pub id: u64,\n}}").unwrap();
    }
    text
}

/// A declaration in C of `name` with a type of ours.
fn in_c(rust: &str, name: &str) -> String {
    declaration(rust, name, false)
}

fn declaration(rust: &str, name: &str, constant: bool) -> String {
    let rust = rust.trim();
    let qualifier = if constant { "const " } else { "" };
    if let Some(to) = rust.strip_prefix("*const ") {
        return declaration(to, &format!("*{qualifier}{name}"), true);
    }
    if let Some(to) = rust.strip_prefix("*mut ") {
        return declaration(to, &format!("*{qualifier}{name}"), false);
    }
    if let Some(array) = rust.strip_prefix('[') {
        let (of, count) = array.trim_end_matches(']').split_once("; ").unwrap();
        return declaration(of, &format!("{name}[{count}]"), constant);
    }
    let base = match rust {
        "u8" => "uint8_t",
        "u16" => "uint16_t",
        "u32" => "uint32_t",
        "i32" => "int32_t",
        "u64" => "uint64_t",
        "usize" => "size_t",
        "f32" => "float",
        "c_char" => "char",
        "c_void" => "void",
        named if named.starts_with("palmtop_") => named,
        other => panic!("{other} has no counterpart in C"),
    };
    format!("{qualifier}{base} {name}")
}

/// `a: A, b: B` as parameters in C.
fn parameters(list: &str) -> String {
    let list: Vec<String> = list
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once(": ").unwrap())
        .map(|(name, kind)| in_c(kind, name))
        .collect();
    if list.is_empty() { "void".to_owned() } else { list.join(", ") }
}

/// Whatever stands between `start` and `end`, each time.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    text.split(start).skip(1).map(|rest| rest.split(end).next().unwrap()).collect()
}

/// `name(parameters) -> result` in C, as a function or, with stars, as a pointer to one.
fn function(signature: &str, name: &str) -> String {
    let (arguments, rest) = signature.split_once(')').unwrap();
    let result = rest.trim().strip_prefix("-> ").unwrap_or("c_void");
    in_c(result, &format!("{name}({})", parameters(arguments)))
}

#[test]
fn the_header_says_what_the_library_has() {
    let sources = sources();
    let header = std::fs::read_to_string(crate_dir().join("palmtop.h")).unwrap();
    let mut c = String::from("#include <palmtop.h>\n#include <assert.h>\n#include <stdint.h>\n");
    let mut names = BTreeSet::new();

    // Functions: a second declaration must be the same as the first.
    for signature in between(&sources, "extern \"C\" fn palmtop_", " {") {
        let (name, rest) = signature.split_once('(').unwrap();
        names.insert(name.to_owned());
        writeln!(c, "{};", function(rest, &format!("palmtop_{name}"))).unwrap();
    }
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '#']) && !line.starts_with("typedef"))
        .filter_map(|line| Some(line.split_once('(')?.0.rsplit_once("palmtop_")?.1.to_owned()))
        .collect();
    assert_eq!(declared, names, "functions of the header and of the library");
    assert!(names.len() > 25, "{names:?}");

    // Structs: the same fields at the same places.
    let structs = between(&sources, "pub struct palmtop_", "\n}");
    assert!(structs.len() > 15, "{}", structs.len());
    let mut types = BTreeSet::new();
    for body in structs {
        let (name, fields) = body.split_once(" {").unwrap();
        let name = format!("palmtop_{name}");
        writeln!(c, "struct mirror_{name} {{").unwrap();
        let fields: Vec<_> = fields
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub ")?.trim_end_matches(',').split_once(": "))
            .collect();
        for (field, kind) in &fields {
            writeln!(c, "    {};", in_c(kind, field)).unwrap();
        }
        writeln!(c, "}};\n_Static_assert(sizeof(struct mirror_{name}) == sizeof({name}), \"{name}\");")
            .unwrap();
        for (field, _) in &fields {
            let at = |kind: &str| format!("offsetof({kind}, {field})");
            let (ours, theirs) = (at(&format!("struct mirror_{name}")), at(&name));
            writeln!(c, "_Static_assert({ours} == {theirs}, \"{name}.{field}\");").unwrap();
            // Pointers to the fields may be compared only if the fields have the same type.
            writeln!(
                c,
                "static inline int same_{name}_{field}(struct mirror_{name} *a, {name} *b) {{ return &a->{field} == \
                 &b->{field}; }}"
            )
            .unwrap();
        }
        types.insert(name);
    }
    // Callbacks.
    for body in between(&sources, "pub type palmtop_", ";") {
        let (name, definition) = body.split_once(" =").unwrap();
        let name = format!("palmtop_{name}");
        if let Some(signature) = definition.split("extern \"C\" fn(").nth(1) {
            let pointer = function(signature.trim_end().trim_end_matches('>'), "(*mirror)");
            writeln!(c, "static inline {name} same_{name}({pointer}) {{ return mirror; }}").unwrap();
        }
        types.insert(name);
    }
    let typedefs: BTreeSet<String> = between(&header, "typedef ", "\n")
        .into_iter()
        .filter_map(|line| line.split("palmtop_").nth(1))
        .map(|rest| {
            format!("palmtop_{}", rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        })
        .collect();
    assert_eq!(typedefs, types, "types of the header and of the library");

    // Constants.
    let mut constants = BTreeSet::new();
    for line in between(&sources, "pub const PALMTOP_", ";") {
        let (name, rest) = line.split_once(": ").unwrap();
        let value = rest.split_once(" = ").unwrap().1;
        writeln!(c, "_Static_assert(PALMTOP_{name} == {value}, \"PALMTOP_{name}\");").unwrap();
        constants.insert(name.to_owned());
    }
    for (name, _) in
        header.match_indices("PALMTOP_").map(|(at, _)| header[at + 8..].split_once([' ', ',']).unwrap())
    {
        let is_definition = header.contains(&format!("PALMTOP_{name} = "));
        assert!(!is_definition || constants.contains(name), "PALMTOP_{name} is not in the library");
    }
    assert!(constants.len() > 40, "{constants:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mirror.c");
    std::fs::write(&file, &c).unwrap();
    for compiler in compilers() {
        let mut command = compiler.c();
        command
            .args(["-std=c11", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-fsyntax-only", "-I"])
            .arg(crate_dir())
            .arg(&file);
        run(&mut command);
    }
}

#[test]
fn the_header_is_clean_c_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    for (name, standard) in
        [("a.c", "-std=c11"), ("b.c", "-std=c17"), ("c.cpp", "-std=c++17"), ("d.cpp", "-std=c++20")]
    {
        let file = folder.path().join(name);
        // Twice, since headers are.
        std::fs::write(&file, "#include <palmtop.h>\n#include <palmtop.h>\npalmtop_model model;\n").unwrap();
        for compiler in compilers() {
            let mut command = if name.ends_with(".c") { compiler.c() } else { compiler.cpp() };
            command.args([
                standard,
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Wconversion",
                "-Werror",
                "-fsyntax-only",
                "-I",
            ]);
            run(command.arg(crate_dir()).arg(&file));
        }
    }
}
