//! What packages say, held against the sources that they are made of; `release/test` installs and uses them.

use std::collections::BTreeSet;
use std::path::Path;

use palmtop_watch::config::Config;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("there is no {before:?}"));
    rest.split_once(behind).unwrap_or_else(|| panic!("there is no {behind:?} behind {before:?}")).0
}

#[test]
fn the_changelog_names_the_version() {
    let (changelog, version) = (read("CHANGELOG.md"), env!("CARGO_PKG_VERSION"));
    let released = changelog.contains(&format!("\n## [{version}] - "));
    let unreleased = changelog.contains(&format!("\n## [Unreleased]\n\nWhat will be {version}"));
    assert!(released != unreleased, "{version} is a section of CHANGELOG.md, or what will be released next");
    let abi = between(&read("capi/palmtop.h"), "#define PALMTOP_ABI_VERSION ", "u\n").to_owned();
    assert!(changelog.contains(&format!("(`PALMTOP_ABI_VERSION`, now {abi})")));
    let format = palmtop::format::VERSION;
    assert!(changelog.contains(&format!("have a version of their format, now {format}.")));
}

#[test]
fn pip_asks_for_the_rust_that_cargo_asks_for() {
    let rust = between(&read("Cargo.toml"), "rust-version = \"", "\"").to_owned();
    let asked = between(&read("python/build_backend.py"), "RUST = (", ")").replace(", ", ".");
    assert_eq!(asked, rust);
}

/// The lines of a unit's section that set something.
fn settings(unit: &str) -> BTreeSet<String> {
    let section = between(unit, "[Service]\n", "\n[Install]");
    section.lines().filter(|line| line.contains('=') && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn services_may_do_what_they_need_and_no_more() {
    let all = ["watch", "serve"].map(|name| settings(&read(&format!("release/deb/palmtop-{name}.service"))));
    for (settings, command) in all.iter().zip(["watch --config /etc/palmtop/watch.toml", "serve"]) {
        let command = format!("ExecStart=/usr/bin/palmtop {command} $PALMTOP_");
        assert_eq!(settings.iter().filter(|line| line.starts_with(&command)).count(), 1);
        for needed in [
            "User=palmtop",
            "StateDirectory=palmtop",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "MemoryDenyWriteExecute=yes",
            "CapabilityBoundingSet=",
            "DevicePolicy=closed",
            "DeviceAllow=char-video4linux rw",
            "SystemCallFilter=@system-service",
            // Debian 12 has systemd 252, which does not know `notify-reload`.
            "Type=notify",
            "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'",
        ] {
            assert!(settings.contains(needed), "{needed} is not in {settings:?}");
        }
    }
    let differ: Vec<_> = all[0].symmetric_difference(&all[1]).collect();
    assert!(differ.iter().all(|line| line.starts_with("ExecStart=")), "{differ:?}");
}

#[test]
fn the_configuration_of_the_package_can_be_used() {
    let text = read("release/deb/watch.toml");
    let config = Config::parse(&text).unwrap();
    config.check().unwrap();
    assert_eq!((config.cameras.len(), config.questions.len()), (1, 1));
    assert!(config.mqtt.is_none() && config.snapshots.is_none());
    // And what is there to be switched on: behind a # without a space.
    let is_off = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let all: Vec<&str> = text.lines().map(|line| if is_off(line) { &line[1..] } else { line }).collect();
    let config = Config::parse(&all.join("\n")).unwrap();
    config.check().unwrap();
    assert!(config.mqtt.is_some() && config.snapshots.is_some());
}

#[test]
fn what_users_may_change_is_theirs() {
    let script = read("release/deb.sh");
    let conffiles = between(&script, "printf '", "' > \"$root/DEBIAN/conffiles\"").replace("\\n", "\n");
    let put: BTreeSet<String> = script
        .lines()
        .filter_map(|line| line.strip_prefix("put 644 release/deb/")?.split_once(" etc/"))
        .map(|(_, path)| format!("/etc/{path}"))
        .collect();
    assert!(put.iter().map(String::as_str).eq(conffiles.lines()), "{put:?}");
}
