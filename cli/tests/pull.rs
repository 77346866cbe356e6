//! `palmtop pull` and `palmtop models`, and how `-m` finds what they have brought.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ran, assert_says, interrupt, lay_out_checkpoint, palmtop, scene, text};
use palmtop_tests::hub::{Hub, Proxy};
use palmtop_tests::skip;
use serde_json::Value;
use tempfile::TempDir;

const ID: &str = "google/paligemma2-3b-mix-224";
const NAME: &str = "paligemma2-3b-mix-224";

/// A hub with a checkpoint under a published name, and a user with nothing.
struct Setting {
    hub: Hub,
    home: TempDir,
    checkpoint: PathBuf,
}

impl Setting {
    fn new(name: &str) -> Self {
        let (hub, home) = (Hub::new(), tempfile::tempdir().unwrap());
        let checkpoint = home.path().join("checkpoint");
        lay_out_checkpoint(name, &checkpoint);
        hub.add(ID, &checkpoint, 'a');
        Self { hub, home, checkpoint }
    }

    fn models(&self) -> PathBuf {
        self.home.path().join("models")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = palmtop(args);
        command.current_dir(self.home.path());
        command.env("PALMTOP_MODELS", self.models()).env("HOME", self.home.path());
        command.env("HF_ENDPOINT", &self.hub.endpoint).env("HF_HOME", self.home.path().join("hf"));
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"]
        {
            command.env_remove(name);
        }
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    fn succeed(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
        ran
    }

    fn fail(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    /// What `palmtop convert` makes of the checkpoint.
    fn converted(&self, weights: &str) -> Vec<u8> {
        let (target, commit) = (self.home.path().join("wanted.palm"), "a".repeat(40));
        let folder = text(&self.checkpoint);
        let args =
            ["convert", folder, "-o", text(&target), "-w", weights, "--name", ID, "--revision", &commit];
        self.succeed(&args);
        std::fs::read(target).unwrap()
    }
}

#[test]
fn a_pulled_model_is_what_convert_makes_and_answers_from_then_on() {
    let setting = Setting::new("tiny1");
    let picture = scene();
    let picture = text(&picture);
    let before = setting.succeed(&["caption", picture, "--max-new-tokens", "2"]);
    assert_says(&before.stderr, &["no model was named", "palmtop pull"]);

    let ran = setting.succeed(&["pull", NAME]);
    assert_says(&ran.stdout, &[NAME, ", from google/paligemma2-3b-mix-224@aaaaaaaa\n"]);
    assert_says(&ran.stderr, &["Gemma Terms of Use", "it answers now"]);
    let model = setting.models().join(format!("{NAME}.palm"));
    assert!(std::fs::read(&model).unwrap() == setting.converted("int8"));

    // It is the default, by name and by path; the notice is not shown again.
    let short = setting.succeed(&["pull", NAME, "--weights", "int4"]);
    assert!(!short.stderr.contains("Terms of Use"), "{}", short.stderr);
    let int4 = setting.models().join(format!("{NAME}-int4.palm"));
    assert!(std::fs::read(&int4).unwrap() == setting.converted("int4"));
    let answer = |args: &[&str]| {
        let all = [&["caption", picture, "--max-new-tokens", "3"], args].concat();
        let ran = setting.succeed(&all);
        (ran.stdout, ran.stderr)
    };
    let last = answer(&[]);
    assert_says(&last.1, &[&format!("note: {NAME}-int4 answers, which was used last; -m names another")]);
    let by_name = answer(&["-m", NAME]);
    assert_eq!(by_name, answer(&["-m", text(&model)]));
    assert_eq!(by_name.1, "");
    // The folder of a checkpoint with this name is no model.
    std::fs::create_dir(setting.home.path().join(NAME)).unwrap();
    assert_eq!(answer(&["-m", NAME]), by_name);
    // Now that one was used last.
    let last = answer(&[]);
    assert_eq!(last.0, by_name.0);
    assert_says(&last.1, &[&format!("note: {NAME} answers, which was used last")]);
    assert_eq!(answer(&["--quiet"]).1, "");
    let demo = setting.succeed(&["caption", picture, "--max-new-tokens", "2", "-m", "demo"]);
    assert_eq!((demo.stdout, &*demo.stderr), (before.stdout, ""));
    for command in ["inspect", "verify", "plan"] {
        setting.succeed(&[command, NAME]);
    }
    setting.succeed(&["bench", "-m", NAME, "--rounds", "1", "--tokens", "2"]);

    // It need not come twice.
    setting.hub.take_asked();
    let again = setting.succeed(&["pull", NAME]);
    assert_says(&again.stderr, &["is here already; --again pulls it again"]);
    assert!(setting.hub.take_asked().is_empty());
    let json = setting.succeed(&["pull", NAME, "--again", "--as", "mine", "--json"]).json().remove(0);
    assert_eq!((&json["name"], &json["repository"]), (&"mine".into(), &ID.into()));
    assert_eq!(json["commit"], "a".repeat(40));
    assert_eq!(json["bytes"].as_u64().unwrap(), std::fs::metadata(&model).unwrap().len());

    let listed = setting.succeed(&["models", "--json"]).json().remove(0);
    let names: Vec<&str> =
        listed["installed"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mine", NAME, &format!("{NAME}-int4")]);
    assert_eq!(listed["installed"][0]["default"], true);
    assert_eq!(listed["installed"][1]["source"], ID);
    assert_eq!(listed["installed"][1]["license"], "gemma");
    assert_eq!(listed["installed"][1]["pulled_from"], format!("{ID}@{}", "a".repeat(40)));
    let needs = &listed["published"].as_array().unwrap().iter().find(|m| m["name"] == NAME).unwrap()["int8"];
    let file = needs["file_bytes"].as_f64().unwrap();
    assert!((3.0e9..3.4e9).contains(&file), "{file}");
    assert!(needs["session_bytes"].as_f64().unwrap() > 1e7 && needs["tokens_per_s"].as_f64().unwrap() > 0.0);
    let shown = setting.succeed(&["models"]).stdout;
    assert_says(
        &shown,
        &[
            "* mine",
            "just now",
            "google/paligemma2-3b-mix-224@aaaaaaaa",
            "Published",
            "paligemma2-28b-pt-896",
        ],
    );
    let shown = setting.succeed(&["models", "show", NAME]).stdout;
    assert_says(&shown, &["made from", "licence", "gemma", "weights", "int8", "tokens/s or less"]);
    setting.succeed(&["models", "remove", "mine", &format!("{NAME}-int4")]);
    assert!(!int4.exists() && model.exists());
}

#[test]
fn names_that_are_not_there_say_what_is() {
    let setting = Setting::new("tiny1");
    let picture = scene();
    let says = setting.fail(1, &["caption", text(&picture), "-m", NAME]);
    assert_says(
        &says,
        &["error: there is no model 'paligemma2-3b-mix-224'", "hint: get it: palmtop pull paligemma2"],
    );
    let says = setting.fail(1, &["inspect", "paligemma2-3b-mix-244"]);
    assert_says(&says, &["hint: palmtop models lists all; palmtop pull paligemma2-3b-mix-224 gets that one"]);
    let says = setting.fail(1, &["caption", text(&picture), "-m", "missing.palm"]);
    assert_says(&says, &["error: there is no model file missing.palm", "hint: palmtop models"]);
    let says = setting.fail(1, &["pull", "paligemma2-3b-mix"]);
    assert_says(&says, &["is no short name of a model", "hint: there is paligemma2-3b-mix-224"]);
    let says = setting.fail(1, &["pull", "a/../b"]);
    assert_says(&says, &["is no name of a repository"]);
    let says = setting.fail(1, &["models", "remove", "nothing"]);
    assert_says(&says, &["there is no model 'nothing'"]);
    let says = setting.fail(1, &["models", "show", "paligemma2-3b-mix-225"]);
    assert_says(&says, &["there is paligemma2-3b-mix-224"]);
    let says = setting.fail(1, &["models", "show", "google/paligemma-3b-ft-docvqa-448"]);
    assert_says(&says, &["there is no model", "get it: palmtop pull google/paligemma-3b-ft-docvqa-448"]);
    let says = setting.fail(2, &["pull", NAME, "--as", "../x"]);
    assert_says(&says, &["cannot be the name of a model"]);
    // A file of the name comes first.
    std::fs::write(setting.home.path().join(NAME), "no model").unwrap();
    let says = setting.fail(1, &["inspect", NAME]);
    assert!(!says.contains("there is no model"), "{says}");
}

#[test]
fn gates_and_what_needs_the_whole_are_explained() {
    let setting = Setting::new("tiny1");
    setting.hub.state().repos.get_mut(ID).unwrap().gated = true;
    let says = setting.fail(1, &["pull", NAME]);
    let page = format!("{}/{ID}", setting.hub.endpoint);
    assert_says(
        &says,
        &["error: google/paligemma2-3b-mix-224 is gated", "hint: visit", &page, "set HF_TOKEN"],
    );
    // The token's file is used, and no token is shown.
    std::fs::create_dir_all(setting.home.path().join("hf")).unwrap();
    std::fs::write(setting.home.path().join("hf/token"), "hf_right").unwrap();
    setting.hub.state().token = Some("hf_right".into());
    let ran = setting.succeed(&["pull", NAME, "-vv"]);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("hf_right"));
    setting.hub.state().token = Some("hf_other".into());
    let says = setting.fail(1, &["pull", NAME, "--again"]);
    assert_says(&says, &["the token in", "hf/token is wrong or has expired"]);
    let says = setting.fail(1, &["pull", NAME, "--recipe", "auto"]);
    assert_says(
        &says,
        &["needs the whole checkpoint", "hint: fetch all of it", "hf download google/paligemma2-3b-mix-224"],
    );
    let says = setting.fail(1, &["pull", NAME, "-o", "nowhere/model.palm"]);
    assert_says(&says, &["there is no folder nowhere"]);
}

/// Waits until a pull has put something into its journal that is worth going on with.
fn wait_for_journal(path: &Path) -> u64 {
    let start = Instant::now();
    loop {
        let read = std::fs::read(path).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
        let position = read.and_then(|journal| journal["shards"][0]["position"].as_u64()).unwrap_or(0);
        if position > 0 {
            return position;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no journal was written");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pull_that_is_killed_goes_on_where_it_was() {
    for signal in ["-KILL", "-INT"] {
        let setting = Setting::new("tiny1");
        setting.hub.state().stalls = vec![("model.safetensors".into(), 1_200_000)];
        let mut child =
            setting.command(&["pull", NAME]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let part = setting.models().join(format!("{NAME}.palm.part"));
        let position = wait_for_journal(&part.join("journal.json"));
        // A second one is told who works.
        let says = setting.fail(1, &["pull", NAME]);
        assert_says(&says, &[&format!("is being made by another palmtop (process {})", child.id())]);
        match signal {
            "-KILL" => child.kill().unwrap(),
            _ => interrupt(&child),
        }
        let ran = child.wait_with_output().unwrap();
        if signal == "-INT" {
            assert_eq!(ran.status.code(), Some(130));
            let says = String::from_utf8(ran.stderr).unwrap();
            assert_says(&says, &["interrupted; what has come is kept, and the same command goes on with it"]);
        }
        assert!(!setting.models().join(format!("{NAME}.palm")).exists());
        let listed = setting.succeed(&["models", "--json"]).json().remove(0);
        assert_eq!(listed["unfinished"][0]["name"], NAME);
        assert_eq!(listed["unfinished"][0]["repository"], ID);
        setting.hub.state().stalls.clear();
        setting.hub.take_asked();
        let ran = setting.succeed(&["pull", NAME]);
        assert_says(&ran.stderr, &["going on: ", " have come before"]);
        let asked = setting.hub.take_asked();
        let weights = asked.iter().filter(|a| a.is_cdn && a.path.contains("model.safetensors"));
        let starts: Vec<u64> = weights.map(|a| a.range.unwrap().0).collect();
        assert!(starts.len() == 2 && starts[0] == 0 && starts[1] >= position, "{starts:?}, {position}");
        let model = std::fs::read(setting.models().join(format!("{NAME}.palm"))).unwrap();
        assert!(model == setting.converted("int8"), "{signal}");
        assert!(!part.exists());
    }
}

#[test]
fn a_quiet_pull_says_nothing() {
    let setting = Setting::new("tiny2");
    let ran = setting.succeed(&["pull", NAME, "--quiet"]);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_proxy_is_used_and_the_token_goes_to_the_hub_alone() {
    let setting = Setting::new("tiny1");
    let proxy = Proxy::new("hub.example", &setting.hub);
    setting.hub.state().token = Some("hf_right".into());
    let mut command = setting.command(&["pull", NAME]);
    command.env("HF_ENDPOINT", "http://hub.example").env("HF_TOKEN", "hf_right");
    let ran: Ran = command.env("http_proxy", &proxy.address).output().unwrap().into();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(proxy.asked().iter().any(|host| host.starts_with("hub.example")), "{:?}", proxy.asked());
    for asked in setting.hub.take_asked() {
        assert_eq!(asked.authorization.is_some(), !asked.is_cdn, "{}", asked.path);
    }
    assert!(
        std::fs::read(setting.models().join(format!("{NAME}.palm"))).unwrap() == setting.converted("int8")
    );
}

#[test]
fn a_disk_that_is_too_small_is_known_beforehand() {
    let setting = Setting::new("tiny1");
    let script = "mount -t tmpfs -o size=900k none \"$PALMTOP_MODELS\" && exec \"$@\"";
    std::fs::create_dir(setting.models()).unwrap();
    let palmtop = setting.command(&["pull", NAME]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(palmtop.get_program()).args(palmtop.get_args());
    for (name, value) in palmtop.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let Ok(output) = command.output() else { return };
    let ran = Ran::from(output);
    if ran.stderr.contains("unshare") || ran.stderr.contains("mount") {
        return skip::skipped("a small disk", "this machine lets nobody mount a small file system");
    }
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_says(&ran.stderr, &["the model needs ", " bytes more, and the disk has ", "hint: make room"]);
}
