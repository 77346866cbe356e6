//! What keeps the house in order, checked over its sources: no dependency that nothing uses, no circle of modules wider
//! than two files in the runtime, no link to what is not there, no line of prose too long to read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Columns of a line of prose at most.
const COLUMNS: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// All files below `folder` with one of these endings, in order; without what is built, fetched or hidden.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            let is_ours = !name.starts_with('.') && !name.starts_with("target") && name != "build";
            if path.is_dir() {
                // `shared` is no part of the project.
                folders.extend((is_ours && name != "shared" && name != "node_modules").then_some(path));
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Names, `::`, and single other characters of Rust source without comments that fill a line or end one.
fn tokens(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for line in source.lines() {
        let mut rest = line.split("//").next().unwrap_or(line);
        while let Some(first) = rest.chars().next() {
            let length = match first {
                c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            let (token, behind) = rest.split_at(length);
            if !token.trim().is_empty() {
                tokens.push(token);
            }
            rest = behind;
        }
    }
    tokens
}

// Dependencies

/// The names under `[dependencies]` and its kin of a manifest: those of the package itself, and those of its tests.
fn dependencies(manifest: &str) -> (Vec<String>, Vec<String>) {
    let (mut own, mut of_tests) = (Vec::new(), Vec::new());
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let name: String = line.chars().take_while(|&c| is_name(c) || c == '-').collect();
        if name.is_empty() {
            continue;
        }
        if section.ends_with("dev-dependencies") {
            of_tests.push(name);
        } else if section.ends_with("dependencies") && !section.starts_with("workspace") {
            own.push(name);
        }
    }
    (own, of_tests)
}

/// Whether source uses a crate: `name::` or `use name;`.
fn uses(source: &str, dependency: &str) -> bool {
    let name = dependency.replace('-', "_");
    let tokens = tokens(source);
    tokens.windows(2).any(|pair| pair[0] == name && (pair[1] == "::" || pair[1] == ";" || pair[1] == "as"))
}

#[test]
fn every_dependency_is_used() {
    let mut wrong = String::new();
    let mut seen = 0;
    for manifest in files(&root(), &["Cargo.toml"]) {
        let package = manifest.parent().unwrap();
        if package == root() {
            continue;
        }
        let (own, of_tests) = dependencies(&read(&manifest));
        // What the package is made of, and the rest. A package of tests has nothing else.
        let is_of_tests = |path: &Path| {
            let inside = path.strip_prefix(package).unwrap();
            ["tests", "benches", "examples"].iter().any(|folder| inside.starts_with(folder))
        };
        let (sources_of_tests, sources): (Vec<_>, Vec<_>) =
            files(package, &[".rs"]).into_iter().partition(|path| is_of_tests(path));
        let any = |files: &[PathBuf], name: &str| files.iter().any(|path| uses(&read(path), name));
        for name in &own {
            seen += 1;
            if !any(&sources, name) {
                writeln!(wrong, "{}: nothing uses {name}", manifest.display()).unwrap();
            }
            if of_tests.contains(name) {
                writeln!(wrong, "{}: {name} is named for the tests once more", manifest.display()).unwrap();
            }
        }
        for name in &of_tests {
            seen += 1;
            if !any(&sources_of_tests, name) && !any(&sources, name) {
                writeln!(wrong, "{}: no test uses {name}", manifest.display()).unwrap();
            }
        }
    }
    assert!(seen > 30, "only {seen} dependencies found");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_dependency_of_the_workspace_is_taken_by_a_member() {
    let members: Vec<_> =
        files(&root(), &["Cargo.toml"]).iter().map(|path| dependencies(&read(path))).collect();
    let taken: BTreeSet<&String> =
        members.iter().flat_map(|(own, of_tests)| own.iter().chain(of_tests)).collect();
    let workspace = read(&root().join("Cargo.toml")).replace("[workspace.dependencies]", "[dependencies]");
    let (named, _) = dependencies(&workspace);
    let unused: Vec<_> = named.iter().filter(|name| !taken.contains(name)).collect();
    assert!(named.len() > 20 && unused.is_empty(), "of {} nobody takes {unused:?}", named.len());
}

#[test]
fn manifests_and_uses_are_read_as_cargo_and_rust_do() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nb-c.workspace = true\n# d = \"1\"\n[features]\ne = []\n\
                    [target.'cfg(unix)'.dependencies]\nf = { version = \"1\" }\n[dev-dependencies]\ng.workspace = true\n";
    assert_eq!(dependencies(manifest), (vec!["b-c".to_owned(), "f".to_owned()], vec!["g".to_owned()]));
    for source in ["use b_c::X;", "#[derive(b_c::X)]", "use b_c;", "x = b_c :: y()", "use b_c as z;"] {
        assert!(uses(source, "b-c"), "{source}");
    }
    for source in ["// use b_c::X;", "ab_c::X", "b_cd::X", "let b_c = 1 + b_c.x;"] {
        assert!(!uses(source, "b-c"), "{source}");
    }
}

// Circles of modules

/// A module's place below the crate: `["engine", "cpu"]`; none for the crate itself.
type Module = Vec<String>;

/// The modules of a crate, what each imports or names, and what it passes on by `pub use`.
#[derive(Default)]
struct Modules {
    paths: BTreeMap<Module, Vec<Module>>,
    passed_on: BTreeMap<Module, Vec<Module>>,
}

impl Modules {
    /// Reads files by their names relative to `src`, without their tests.
    fn new(files: impl Iterator<Item = (String, String)>) -> Self {
        let mut modules = Self::default();
        for (name, source) in files {
            let mut module: Module = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            module.pop_if(|last| last == "mod" || last == "lib");
            // Tests stand last; attributes may stand before them.
            let source = source.split("\nmod tests {").next().unwrap_or_default();
            let tokens = tokens(source);
            let (mut paths, mut passed_on) = (Vec::new(), Vec::new());
            let mut at = 0;
            while at < tokens.len() {
                if tokens[at] == "use" {
                    // `pub use` and `pub(crate) use`.
                    let is_public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
                    at += 1;
                    read_use(&tokens, &mut at, &[], if is_public { &mut passed_on } else { &mut paths });
                    continue;
                }
                let end = path_end(&tokens, at);
                if end > at + 1 && (at == 0 || tokens[at - 1] != "::") {
                    paths.push(names(&tokens[at..end]));
                }
                at = end.max(at + 1);
            }
            modules.paths.insert(module.clone(), paths);
            modules.passed_on.insert(module, passed_on);
        }
        modules
    }

    /// The module in which the thing lies that `module` calls `path`, if it is one of this crate.
    fn target(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut place, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (module.clone(), &path[1..]),
            "super" => (module[..module.len().checked_sub(1)?].to_vec(), &path[1..]),
            first if self.paths.contains_key(&child(module, first)) => (module.clone(), path),
            _ => return None,
        };
        while let Some((first, behind)) = rest.split_first() {
            if first == "super" {
                place.pop()?;
            } else if self.paths.contains_key(&child(&place, first)) {
                place = child(&place, first);
            } else {
                // What was passed on lies elsewhere.
                let known =
                    self.passed_on[&place].iter().find(|path| path.last() == Some(first) && depth < 8);
                let further = known.and_then(|path| self.target(&place, path, depth + 1));
                return Some(further.unwrap_or(place));
            }
            rest = behind;
        }
        Some(place)
    }

    /// Groups of modules of which each needs each.
    fn circles(&self) -> BTreeSet<Vec<String>> {
        let needs = |module: &Module| -> BTreeSet<Module> {
            self.paths[module].iter().filter_map(|path| self.target(module, path, 0)).collect()
        };
        let needs: BTreeMap<&Module, BTreeSet<Module>> = self.paths.keys().map(|m| (m, needs(m))).collect();
        let reached = |from: &Module| {
            let (mut all, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                next.extend(needs[&module].iter().filter(|module| all.insert((*module).clone())).cloned());
            }
            all
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> = needs.keys().map(|m| (*m, reached(m))).collect();
        let circle = |module: &Module| -> Vec<String> {
            let back = reached[module].iter().filter(|other| reached[other].contains(module));
            back.map(|module| module.join("/")).collect()
        };
        needs.keys().map(|module| circle(module)).filter(|circle| circle.len() > 1).collect()
    }
}

fn child(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

fn names(path: &[&str]) -> Module {
    path.iter().filter(|&&token| token != "::").map(|&name| name.to_owned()).collect()
}

/// Where the path that begins at `at` ends: names with `::` between them.
fn path_end(tokens: &[&str], at: usize) -> usize {
    let is_name_at = |at: usize| tokens.get(at).is_some_and(|token| token.starts_with(is_name));
    let mut end = at;
    if is_name_at(end) {
        end += 1;
        while tokens.get(end) == Some(&"::") && is_name_at(end + 1) {
            end += 2;
        }
    }
    end
}

/// Reads `a::{b, c::d as e};` from behind `use` or a brace to behind its end, as `a::b` and `a::c::d`.
fn read_use(tokens: &[&str], at: &mut usize, prefix: &[String], found: &mut Vec<Module>) {
    while *at < tokens.len() {
        let end = path_end(tokens, *at);
        let path = [prefix, &names(&tokens[*at..end])].concat();
        *at = end;
        if tokens.get(*at) == Some(&"::") {
            *at += 1;
        }
        if tokens.get(*at) == Some(&"{") {
            *at += 1;
            read_use(tokens, at, &path, found);
        } else {
            found.push(path);
        }
        // Behind another name, or a star.
        while !matches!(tokens.get(*at), None | Some(&("," | "}" | ";"))) {
            *at += 1;
        }
        let end = tokens.get(*at).copied();
        *at += 1;
        if end != Some(",") || tokens.get(*at) == Some(&"}") {
            *at += usize::from(end == Some(","));
            return;
        }
    }
}

#[test]
fn modules_of_the_runtime_do_not_go_round_in_wide_circles() {
    let src = root().join("runtime/src");
    let of_tests = |name: &String| name.contains("test");
    let sources = files(&src, &[".rs"])
        .into_iter()
        .map(|path| (path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/"), read(&path)));
    let modules = Modules::new(sources.filter(|(name, _)| !of_tests(name)));
    assert!(modules.paths.len() > 30, "only {} modules found", modules.paths.len());
    let wide: Vec<_> = modules.circles().into_iter().filter(|circle| circle.len() > 2).collect();
    assert!(wide.is_empty(), "each of these needs each: {wide:#?}");
}

#[test]
fn circles_are_found_through_lists_parents_and_what_is_passed_on() {
    let circles = |files: &[(&str, &str)]| -> Vec<Vec<String>> {
        let files = files.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned()));
        Modules::new(files).circles().into_iter().collect()
    };
    let whole = |names: &[&str]| vec![names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()];
    let a = ("a.rs", "use crate::{b::X, c::{self, Y as Z}};\n");
    let d = ("d/mod.rs", "mod e;\npub use e::F;\n");
    let none = [("lib.rs", "pub mod a;"), a, ("b.rs", "use std::a::X;"), ("c.rs", "// use crate::a;\n"), d];
    assert!(circles(&none).is_empty());
    assert_eq!(circles(&[a, ("b.rs", "fn f() { crate::a::g() }"), ("c.rs", "")]), whole(&["a", "b"]));
    assert_eq!(circles(&[a, ("b.rs", ""), ("c.rs", "use super::a;")]), whole(&["a", "c"]));
    let tests = "#[cfg(test)]\nmod tests {\n use crate::a; }";
    assert!(circles(&[a, ("b.rs", tests), ("c.rs", "")]).is_empty());
    // `crate::d::F` lies in `d/e`, so `d` itself is not needed.
    let e = ("d/e.rs", "use crate::g::H;");
    assert_eq!(circles(&[d, e, ("g.rs", "use crate::d::F;")]), whole(&["d/e", "g"]));
    assert_eq!(circles(&[d, ("d/e.rs", "use super::F;")]), Vec::<Vec<String>>::new());
    assert_eq!(
        circles(&[
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::c::X;\nfn f() {}"),
            ("c.rs", "use crate::a;")
        ]),
        whole(&["a", "b", "c"])
    );
}

// Prose

/// What is to be read of a file as prose: its lines, numbered from 1, without code and tables.
fn prose(path: &Path, text: &str) -> Vec<(usize, String)> {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let mut is_code = false;
    let mut is_comment = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let said = match &*ending {
            "md" => Some(trimmed),
            "rs" => trimmed.strip_prefix("///").or_else(|| trimmed.strip_prefix("//!")).map(str::trim_start),
            // Whole lines of comments.
            "h" => {
                is_comment |= trimmed.starts_with("/*");
                let said = is_comment.then_some(trimmed);
                is_comment &= !trimmed.contains("*/");
                said
            }
            _ => None,
        };
        let Some(said) = said else {
            is_code = false;
            continue;
        };
        if said.starts_with("```") {
            is_code = !is_code;
        } else if !is_code && !said.starts_with('|') && !said.starts_with("/* ----") {
            lines.push((index + 1, line.to_owned()));
        }
    }
    lines
}

/// Columns of a line; where a link leads does not count, since it cannot be broken.
fn columns(line: &str) -> usize {
    let mut columns = 0;
    let mut rest = line;
    while let Some(start) = rest.find("](") {
        columns += rest[..start].chars().count() + 2;
        rest = &rest[start + 2..];
        rest = &rest[rest.find(')').unwrap_or(rest.len())..];
    }
    columns + rest.chars().count()
}

#[test]
fn lines_of_prose_can_be_read() {
    let mut wrong = String::new();
    for path in files(&root(), &[".md", ".rs", ".h"]) {
        for (number, line) in prose(&path, &read(&path)) {
            if columns(&line) > COLUMNS {
                writeln!(wrong, "{}:{number}: {} columns", path.display(), columns(&line)).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "lines of prose have at most {COLUMNS} columns:\n{wrong}");
}

#[test]
fn prose_is_told_from_code_and_tables() {
    let numbers = |name: &str, text: &str| -> Vec<usize> {
        prose(Path::new(name), text).into_iter().map(|(number, _)| number).collect()
    };
    assert_eq!(numbers("a.md", "one\n| table |\n```sh\ncode\n```\nsix"), [1, 6]);
    assert_eq!(
        numbers("a.rs", "//! one\n/// ```\n/// code\n/// ```\n/// five\nlet x; // no\n/// seven"),
        [1, 5, 7]
    );
    assert_eq!(
        numbers("a.h", "/* one\n * two */\nint x; /* no */\n/* four */\n/* ---- five ---- */"),
        [1, 2, 4]
    );
    assert_eq!(columns("see [this](https://example.org/a/long/way) now"), "see [this]() now".len());
    assert_eq!(columns("füß"), 3);
}

// Links

/// Where the links of a page lead, without those in code.
fn links(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut links = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        // Every second part is in backquotes.
        for part in line.split('`').step_by(2).filter(|_| !is_code) {
            for (marker, end) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
                let starts = part.match_indices(marker).map(|(at, _)| &part[at + marker.len()..]);
                links.extend(starts.filter_map(|link| link.split([end, ' ']).next()));
            }
        }
    }
    links
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|&c| is_name(c) || c == '-' || c == ' ');
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut wrong = String::new();
    let mut seen = 0;
    for page in files(&root(), &[".md"]) {
        let text = read(&page);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            if !target.exists() {
                writeln!(wrong, "{}: {link} is not there", page.display()).unwrap();
            } else if !heading.is_empty() && target.extension().is_some_and(|ending| ending == "md") {
                let target = read(&target);
                let headings = target.lines().filter_map(|line| line.strip_prefix('#'));
                if !headings.map(|line| anchor(line.trim_start_matches('#'))).any(|anchor| anchor == heading)
                {
                    writeln!(wrong, "{}: {link} has no such heading", page.display()).unwrap();
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} links found");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn links_are_found_where_readers_see_them() {
    let page = "a [b](c.md#d-e) and ![](f.png \"title\") `[g](h)`\n```\n[i](j)\n```\n<img src=\"k.png\" width=\"2\">";
    assert_eq!(links(page), ["c.md#d-e", "f.png", "k.png"]);
    assert_eq!(anchor(" What's `new`, and 2 more"), "whats-new-and-2-more");
}
