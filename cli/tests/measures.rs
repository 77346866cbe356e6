//! How fast a model and the machine are: bench and doctor; and which instruction set is used.

mod common;

use std::ffi::OsStr;
use std::fs;

use common::{Ran, assert_says, data, fail, model, palmtop, run, scene, succeed, text};
use palmtop_kernels::{ISA_VARIABLE, Isa};
use safetensors::SafeTensors;
use serde_json::Value;

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn sorted<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    names.sort();
    names
}

/// A number that is finite and above zero.
fn positive(value: &Value, key: &str) -> f64 {
    let number = value[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {value}"));
    assert!(number.is_finite() && number > 0.0, "{key}: {value}");
    number
}

fn assert_close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-9 * b.abs(), "{what}: {a} and {b}");
}

/// Runs the program with an instruction set in the environment, or none.
fn run_with_isa(isa: Option<&OsStr>, args: &[&str]) -> Ran {
    let mut command = palmtop(args);
    match isa {
        Some(isa) => command.env(ISA_VARIABLE, isa),
        None => command.env_remove(ISA_VARIABLE),
    };
    command.output().unwrap().into()
}

#[test]
fn bench_reports_times_work_and_limits_that_fit_together() {
    let scene = scene();
    let limits = ["--threads", "2", "--json"];
    let args = ["bench", "-m", model(), "--image", text(&scene), "--tokens", "3", "--rounds", "4"];
    let ran = succeed([&args[..], &limits].concat());
    assert_eq!(ran.stderr, "round 1 of 4\nround 2 of 4\nround 3 of 4\nround 4 of 4\n");
    let [report] = &ran.json()[..] else { panic!("one line, not {}", ran.stdout) };
    let spreads = ["encode_ms", "prefill_ms", "ttft_ms", "decode_tokens_per_s"];
    let documented = sorted([
        "model",
        "isa",
        "threads",
        "rounds",
        "prefix_tokens",
        "new_tokens",
        "load_ms",
        "encode_ms",
        "prefill_ms",
        "ttft_ms",
        "decode_tokens_per_s",
        "joules_per_token",
        "peak_rss_bytes",
        "weights_bytes",
        "plan_bytes",
        "encode_macs",
        "prefill_macs",
        "token_bytes",
        "limit_read_gb_per_s",
        "limit_int8_gmac_per_s",
        "encode_share",
        "prefill_share",
        "decode_share",
        "spread",
    ]);
    assert_eq!(keys(report), documented);
    let number = |key| positive(report, key);
    let others = ["model", "isa", "joules_per_token", "peak_rss_bytes", "spread"];
    for key in documented.into_iter().filter(|key| !others.contains(key)) {
        number(key);
    }
    assert!(report["joules_per_token"].is_null() || number("joules_per_token") > 0.0, "{report}");

    // What was asked for.
    assert_eq!(report["model"], "tiny1");
    assert_eq!(report["isa"], Isa::select().unwrap().name());
    for (key, value) in [("threads", 2), ("rounds", 4), ("new_tokens", 3)] {
        assert_eq!(report[key], value, "{key}");
    }
    let vector = fs::read(data("vectors/tiny1/scene-cap.safetensors")).unwrap();
    let ids = SafeTensors::deserialize(&vector).unwrap().tensor("input_ids").unwrap().shape().to_vec();
    let prefix = *ids.last().unwrap() as u64;
    assert_eq!(report["prefix_tokens"], prefix, "as many as the reference has for the same prompt");

    // Medians lie between least and most, and the first token comes after encoder and prefill of the same round.
    assert_eq!(keys(&report["spread"]), sorted(spreads));
    let of = |key: &str, which: &str| positive(&report["spread"][key], which);
    for key in spreads {
        assert_eq!(keys(&report["spread"][key]), ["max", "median", "min"]);
        assert!(
            of(key, "min") <= of(key, "median") && of(key, "median") <= of(key, "max"),
            "{key}: {report}"
        );
        assert_eq!(number(key), of(key, "median"), "{key}");
    }
    let rounding = 1e-9;
    assert!(of("ttft_ms", "min") >= of("encode_ms", "min") + of("prefill_ms", "min") - rounding, "{report}");
    assert!(of("ttft_ms", "max") <= of("encode_ms", "max") + of("prefill_ms", "max") + rounding, "{report}");

    // The memory is what `plan` says for the same limits, and what is in RAM at most has some of it.
    let plan = succeed([&["plan", model(), "--max-new-tokens", "3"], &limits[..]].concat()).json().remove(0);
    assert_eq!(report["plan_bytes"], plan["session_bytes"]);
    assert_eq!(report["weights_bytes"], plan["weights_bytes"]);
    if cfg!(target_os = "linux") {
        let weights = plan["weights_bytes"].as_f64().unwrap();
        assert!(number("peak_rss_bytes") > weights && number("peak_rss_bytes") < 1e9, "{report}");
    }

    // Multiply-adds and bytes, from the checkpoint's sizes: 16 patches of 588 values, three layers of width 72; four
    // layers of width 96 with four query heads and a key-value head of width 32; gates are filled up from 200 to 208.
    // All is f32.
    let encoder = 3 * (4 * 72 * 72 + 2 * 72 * 137) + 588 * 72 + 72 * 96;
    assert_eq!(report["encode_macs"], 16 * encoder + 3 * 2 * 16 * 16 * 72);
    let (decoder, head) = (4 * (6 * 32 * 96 + 4 * 32 * 96 + 2 * 208 * 96 + 200 * 96), 2176 * 96);
    // Behind the last layer's attention, only the last row goes on.
    let behind = 4 * 32 * 96 + 2 * 208 * 96 + 200 * 96;
    let attention = 4 * 2 * prefix * prefix * (4 * 32);
    assert_eq!(report["prefill_macs"], prefix * decoder - (prefix - 1) * behind + attention + head);
    assert_eq!(report["token_bytes"], 4 * (decoder + head) + 2 * prefix * (4 * 32 * 4));

    // Shares are the one over the other.
    let macs_per_s = 1e9 * number("limit_int8_gmac_per_s");
    for (share, macs, ms) in
        [("encode_share", "encode_macs", "encode_ms"), ("prefill_share", "prefill_macs", "prefill_ms")]
    {
        assert_close(number(share), number(macs) / (1e-3 * number(ms)) / macs_per_s, share);
    }
    let bytes_per_s = number("token_bytes") * number("decode_tokens_per_s");
    assert_close(number("decode_share"), bytes_per_s / (1e9 * number("limit_read_gb_per_s")), "decode_share");
}

#[test]
#[cfg(target_os = "linux")]
fn bench_measures_the_first_answer_of_a_file_that_is_not_in_memory() {
    let scene = scene();
    let args = ["bench", "--cold", "-m", model(), "--image", text(&scene), "--rounds", "2", "--threads", "2"];
    let ran = succeed([&args[..], &["--json"]].concat());
    assert_eq!(ran.stderr, "round 1 of 2\nround 2 of 2\n");
    let [report] = &ran.json()[..] else { panic!("one line, not {}", ran.stdout) };
    let documented =
        ["model", "rounds", "file_bytes", "cold_ms", "warm_ms", "read_bytes", "disk_gb_per_s", "disk_ms"];
    assert_eq!(keys(report), sorted(documented));
    assert_eq!((&report["model"], &report["rounds"]), (&"tiny1".into(), &2.into()));
    let file_bytes = fs::metadata(model()).unwrap().len();
    assert_eq!(report["file_bytes"], file_bytes);
    for key in ["cold_ms", "warm_ms"] {
        assert_eq!(keys(&report[key]), ["max", "median", "min"]);
        let of = |which| positive(&report[key], which);
        assert!(of("min") <= of("median") && of("median") <= of("max"), "{report}");
    }
    let rate = 1e-6 * file_bytes as f64 / positive(report, "disk_ms");
    assert_close(positive(report, "disk_gb_per_s"), rate, "disk_gb_per_s");
    // A file system in memory reads nothing; how much others read around what is asked for is theirs to say.
    assert!(report["read_bytes"].is_null() || report["read_bytes"].is_u64(), "{report}");

    let shown = succeed(args).stdout;
    for line in ["not in memory", "in memory", "read from the disk", "the disk"] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}: {shown}");
    }
    assert!(fail(2, [&args[..], &["--report"]].concat()).contains("--report"));
}

#[test]
fn bench_makes_a_row_for_the_table_of_devices() {
    let scene = scene();
    let args =
        ["bench", "-m", model(), "--image", text(&scene), "--tokens", "3", "--rounds", "1", "--report"];
    let ran = succeed(args);
    let cells = |line: &str| line.trim().matches('|').count();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/devices.md")).unwrap();
    let measured = page.split("## What was measured").nth(1).unwrap();
    let head = measured.lines().find(|line| line.starts_with('|')).unwrap();
    let [row] = ran.stdout.lines().collect::<Vec<_>>()[..] else { panic!("one line, not {}", ran.stdout) };
    assert!(row.starts_with("| ") && row.ends_with(" |"), "{row}");
    assert_eq!(cells(row), cells(head), "{row}\n{head}");
    assert!(row.contains(" GB/s, ") && row.contains(env!("CARGO_PKG_VERSION")), "{row}");
}

#[test]
fn bench_of_a_synthetic_model_reads_well_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let args = [
        "bench",
        "--synthetic",
        "tiny2",
        "--weights",
        "int4",
        "--rounds",
        "1",
        "--tokens",
        "2",
        "--threads",
        "1",
    ];
    let ran = Ran::from(
        palmtop([&args[..], &["--quiet"]].concat()).env("TMPDIR", temporary.path()).output().unwrap(),
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let isa = Isa::select().unwrap().name();
    assert_says(
        &ran.stdout,
        &[
            &format!("tiny2, random weights: {isa}, 1 thread, 1 round\n"),
            "look at a picture",
            " ms ",
            "% of the multiply-adds",
            "prefill",
            " ms ",
            "% of the multiply-adds",
            "decode",
            " tokens/s ",
            "% of the read bandwidth",
            "first token after",
            "open the file",
            "prefix",
            " tokens\n",
            "weights",
            "session",
            "peak in memory",
            "the machine's limits",
            " GB/s read, ",
            " G int8 multiply-adds/s\n",
        ],
    );
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// Fails behind the making of a model, and before anything is measured.
const TOO_LONG: &str = "a prompt that is too long, \
    and again a prompt that is too long, and again, and again, and again, and again, and again, and again, and again";

#[test]
fn what_bench_keeps_is_a_whole_model_in_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let prompt = TOO_LONG.repeat(10);
    let keep =
        |name: &str| fail(1, ["bench", "--synthetic", "tiny", "--keep", text(&at(name)), "-p", &prompt]);
    assert_says(&keep("kept.palm"), &["error: the prompt has", "shorten it"]);
    assert_says(&succeed(["verify", text(&at("kept.palm"))]).stdout, &["all as written"]);

    // It could be a model of true weights.
    let before = fs::read(at("kept.palm")).unwrap();
    let says = keep("kept.palm");
    assert_says(&says, &["error: ", "kept.palm exists already", "hint: ", "-m ", "kept.palm"]);
    assert!(fs::read(at("kept.palm")).unwrap() == before);
    fs::write(at("notes.txt"), "mine").unwrap();
    assert_says(&keep("notes.txt"), &["error: ", "notes.txt exists already"]);
    assert_eq!(fs::read(at("notes.txt")).unwrap(), b"mine");
    assert_says(&keep(""), &["error: cannot write", "it is a folder", "hint: name the .palm file"]);
    let says = keep("no/such/folder/m.palm");
    assert_says(&says, &["error: cannot write", "there is no folder", "hint: make the folder"]);
    // A file in the place of a folder.
    assert_says(&keep("notes.txt/m.palm"), &["error: cannot write", "there is no folder"]);

    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["kept.palm", "notes.txt"]);
}

#[test]
fn benches_that_make_no_sense() {
    let scene = scene();
    let tiny = ["bench", "--synthetic", "tiny"];
    for (code, args, says) in [
        (
            2,
            &["bench", "--synthetic", "huge"][..],
            &["there is no synthetic model 'huge'", "tiny, tiny2", "paligemma-3b-SIZE", "224, 448 or 896"][..],
        ),
        (2, &["bench", "--synthetic", "paligemma-3b-225"], &["'paligemma-3b-225'", "224, 448 or 896"]),
        (2, &["bench"], &["name a model with -m", "--synthetic"]),
        (2, &["bench", "--synthetic", "tiny", "-m", "model.palm"], &["--synthetic and -m each name a model"]),
        (2, &["bench", "-m", "model.palm", "--weights", "int4"], &["--synthetic"]),
        (2, &["bench", "-m", "model.palm", "--keep", "kept.palm"], &["--synthetic"]),
        (2, &[&tiny[..], &["--weights", "q5"]].concat(), &["use f32, f16, int8 or int4"]),
        (2, &[&tiny[..], &["--rounds", "0"]].concat(), &["0 is not in 1..=1000"]),
        // One token comes from the prefill: there would be no decoding to time.
        (2, &[&tiny[..], &["--tokens", "1"]].concat(), &["1 is not in 2..=8192"]),
        (1, &["bench", "-m", "missing.palm"], &["there is no model file missing.palm", "hint: "]),
        (1, &["bench", "-m", text(&scene)], &["because: not a .palm file", "hint: "]),
        (1, &[&tiny[..], &["--image", "missing.png"]].concat(), &["cannot use picture missing.png"]),
    ] {
        assert_says(&fail(code, args), &[&["error: "], says].concat());
    }
    let nowhere = palmtop(tiny).env("TMPDIR", "/no/such/folder").output().unwrap();
    let ran = Ran::from(nowhere);
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["error: cannot make a temporary folder", "because: ", "hint: TMPDIR names"]);
}

#[test]
fn a_synthetic_model_takes_the_place_of_the_one_in_the_environment() {
    let prompt = TOO_LONG.repeat(10);
    let args = ["bench", "--synthetic", "tiny", "-p", &prompt];
    let ran = Ran::from(palmtop(args).env("PALMTOP_MODEL", "missing.palm").output().unwrap());
    assert_eq!(ran.code, Some(1));
    assert_says(&ran.stderr, &["error: the prompt has"]);
}

const DOCTOR_KEYS: [&str; 12] = [
    "cpu",
    "logical_cores",
    "physical_cores",
    "memory_bytes",
    "available_bytes",
    "isas",
    "isa",
    "isa_forced",
    "threads",
    "one_thread",
    "all_threads",
    "warnings",
];

#[test]
fn doctor_reports_what_the_machine_has() {
    let ran = run_with_isa(None, &["doctor", "--threads", "1", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let [report] = &ran.json()[..] else { panic!("one line, not {}", ran.stdout) };
    assert_eq!(keys(report), sorted(DOCTOR_KEYS));
    let isas: Vec<Value> = Isa::ALL
        .into_iter()
        .map(|isa| serde_json::json!({"name": isa.name(), "available": isa.is_available()}))
        .collect();
    assert_eq!(report["isas"], Value::from(isas));
    let best = Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap();
    assert_eq!((&report["isa"], &report["isa_forced"]), (&best.name().into(), &false.into()));
    assert_eq!(report["threads"], 1);
    let cores: usize = std::thread::available_parallelism().unwrap().into();
    assert_eq!(report["logical_cores"], cores);
    for limits in [&report["one_thread"], &report["all_threads"]] {
        assert_eq!(keys(limits), sorted(["read_gb_per_s", "int8_gmac_per_s"]));
        positive(limits, "read_gb_per_s");
        positive(limits, "int8_gmac_per_s");
    }
    assert_eq!(report["one_thread"], report["all_threads"], "one thread is all there are");
    assert!(report["warnings"].as_array().unwrap().iter().all(Value::is_string));
    if cfg!(target_os = "linux") {
        positive(report, "physical_cores");
        assert!(positive(report, "available_bytes") <= positive(report, "memory_bytes"));
    }
}

#[test]
fn doctor_reads_well_and_warns() {
    // The last but one of what this CPU has, and a thread more than it has cores.
    let available: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    let (best, forced) = (available[available.len() - 1], available[available.len().saturating_sub(2)]);
    let physical = palmtop::system::machine::physical_cores();
    let threads = (physical.unwrap_or(1) + 1).to_string();
    let ran = run_with_isa(Some(forced.name().as_ref()), &["doctor", "--threads", &threads]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
    assert_says(
        &ran.stdout,
        &[
            "processor",
            "cores",
            "memory",
            "instruction sets",
            &names.join(", "),
            "kernels",
            &format!("{forced} (forced)\n"),
            "threads",
            &threads,
            "one thread",
            " GB/s read, ",
            " G int8 multiply-adds/s\n",
            "all threads",
            " GB/s read, ",
            " G int8 multiply-adds/s\n",
        ],
    );
    if forced != best {
        let warning = format!("warning: {forced} is forced, but this CPU has {best}, which is faster");
        assert_says(&ran.stdout, &[&warning]);
    }
    if let Some(physical) = physical {
        assert_says(&ran.stdout, &[&format!("warning: {threads} threads on {physical} physical cores")]);
    }
}

#[test]
fn instruction_sets_that_cannot_be_had_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept.palm");
    let scene = scene();
    let commands: [&[&str]; 6] = [
        &["doctor"],
        &["bench", "--synthetic", "tiny", "--keep", text(&kept)],
        &["caption", text(&scene)],
        &["trace", text(&scene), "--prompt", "ocr", "-o", text(&kept)],
        &["eval", text(&kept)],
        &["convert", "nowhere", "-o", text(&kept), "--calibrate", "nowhere.jsonl"],
    ];
    let foreign = Isa::ALL
        .into_iter()
        .find(|isa| !isa.is_available())
        .expect("no CPU has the sets of two architectures");
    let lacks = ["this CPU does not have", foreign.name(), "choose"];
    let all = Isa::ALL.map(Isa::name).join(", ");
    for command in commands {
        for (isa, says) in [(foreign.name(), &lacks[..]), ("mmx", &["unknown instruction set 'mmx'", &all])] {
            for (ran, origin) in [
                (run_with_isa(Some(isa.as_ref()), command), ISA_VARIABLE),
                (run_with_isa(None, &[command, &["--isa", isa]].concat()), "--isa"),
            ] {
                assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{command:?}");
                assert_says(&ran.stderr, &["error: "]);
                assert!(ran.stderr.contains(origin), "{origin}: {}", ran.stderr);
                assert_says(&ran.stderr, says);
                assert!(!ran.stderr.contains("note: "), "{}", ran.stderr);
            }
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn an_instruction_set_that_is_no_text_is_refused_too() {
    use std::os::unix::ffi::OsStrExt;
    let ran = run_with_isa(Some(OsStr::from_bytes(b"amx\xff")), &["doctor"]);
    assert_eq!(ran.code, Some(2));
    assert_says(&ran.stderr, &["PALMTOP_ISA: unknown instruction set 'amx"]);
}

#[test]
fn the_flag_goes_before_the_environment() {
    let scene = scene();
    let args = ["caption", text(&scene), "-m", model(), "--max-new-tokens", "2", "--isa", "scalar", "-v"];
    let ran = run_with_isa(Some("mmx".as_ref()), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_says(&ran.stderr, &["kernels: scalar"]);
    // Memory is the same with all of them.
    assert_eq!(run_with_isa(Some("mmx".as_ref()), &["plan", model()]).code, Some(0));
}

#[test]
fn help_names_every_instruction_set() {
    for command in ["caption", "plan", "trace", "bench", "doctor", "eval", "convert"] {
        let help = run([command, "--help"]).stdout;
        let isa = &help[help.find("--isa").unwrap()..];
        for name in Isa::ALL.map(Isa::name) {
            assert!(isa.contains(name), "{command} does not name {name}:\n{isa}");
        }
    }
}
