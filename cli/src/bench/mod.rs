//! `palmtop bench`: measures how fast a model answers, and compares it with the limits of the machine.

mod cold;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use palmtop::image::{ImageLimits, RgbImage, decode, decode_file};
use palmtop::model::Model;
use palmtop::model::work::Work;
use palmtop::session::{CancelToken, GenerateOptions, Session};
use palmtop::system::machine::MachineLimits;
use palmtop_convert::Options;
use palmtop_convert::synthetic::{PRESETS, preset};
use palmtop_kernels::Kernels;
use palmtop_present::plain::human_bytes;
use serde::Serialize;

use crate::args::BenchArgs;
use crate::doctor::device_name;
use crate::energy::EnergyMeter;
use crate::errors::{UsageError, WithHint};
use crate::models::Chosen;
use crate::output::{Console, Stdout};
use crate::{Outcome, files, interrupt, models, synthetic};

/// The picture that is looked at if the user names none.
const PICTURE: &[u8] = include_bytes!("../../../demo/scene.png");

pub fn run(args: &BenchArgs, console: Console) -> anyhow::Result<Outcome> {
    let kernels = args.model.machine.kernels()?;
    let picture = match &args.image {
        Some(path) => decode_file(path, &ImageLimits::default())
            .with_context(|| format!("cannot use picture {}", path.display()))?,
        None => decode(PICTURE, &ImageLimits::default())?,
    };
    let cancel = interrupt::listen()?;
    let file = match ModelFile::of(args, console, &cancel) {
        Err(_) if cancel.is_cancelled() => return Ok(Outcome::Interrupted),
        file => file?,
    };
    if args.cold {
        let report = match cold::measure(args, &file.path, &picture, console, &cancel) {
            Err(_) if cancel.is_cancelled() => return Ok(Outcome::Interrupted),
            report => report?,
        };
        let mut out = Stdout::new();
        if args.json {
            out.print_json(&report)?
        } else {
            out.print(&report)?
        }
        return Ok(Outcome::Done);
    }
    let result = measure(args, &file.path, &picture, &kernels, console, &cancel);
    let report = match result {
        Err(_) if cancel.is_cancelled() => return Ok(Outcome::Interrupted),
        report => report?,
    };
    let mut out = Stdout::new();
    if args.json {
        out.print_json(&report)?
    } else if args.report {
        out.print(Row(&report))?
    } else {
        out.print(&report)?
    }
    Ok(Outcome::Done)
}

/// A model file, and the folder that goes with it if it is a temporary one.
struct ModelFile {
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl ModelFile {
    fn of(args: &BenchArgs, console: Console, cancel: &CancelToken) -> anyhow::Result<Self> {
        let Some(name) = &args.synthetic else {
            return match models::choose(args.model.model.as_deref(), console)? {
                Chosen::File(path) => Ok(Self { path, _folder: None }),
                Chosen::Demo(_) => Err(UsageError(
                    "name a model with -m, or the size of one of random weights with --synthetic".into(),
                )
                .into()),
            };
        };
        if args.model.is_named_by_flag() {
            return Err(UsageError("--synthetic and -m each name a model: give one of them".into()).into());
        }
        let config = preset(name).ok_or_else(|| {
            UsageError(format!(
                "there is no synthetic model '{name}': choose one of {}, where SIZE is 224, 448 or 896",
                PRESETS.join(", ")
            ))
        })?;
        let options = Options {
            name: Some(format!("{name}, random weights")),
            recipe: args.weights.name().parse()?,
            ..Options::default()
        };
        let write = |path: &Path| {
            synthetic::write(config, path, &options, console, cancel)
                .context("cannot make the model of random weights")
        };
        if let Some(path) = &args.keep {
            check_is_new(path)?;
            write(path)?;
            return Ok(Self { path: path.clone(), _folder: None });
        }
        const HINT: &str = "TMPDIR names another place for it, --keep a file of your own";
        let folder = tempfile::Builder::new().prefix("palmtop-").tempdir();
        let folder = folder.context("cannot make a temporary folder").hint(HINT)?;
        let path = folder.path().join("synthetic.palm");
        write(&path).hint(HINT)?;
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Refuses a file that is there: it may be a model of true weights. And a folder that is not.
fn check_is_new(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(anyhow!("cannot write {shown}: it is a folder")).hint("name the .palm file itself");
    }
    if path.symlink_metadata().is_ok() {
        return Err(anyhow!("{shown} exists already"))
            .hint(format!("if it is the model, measure it with -m {shown}; if not, keep another file"));
    }
    files::folder_for(path)?;
    Ok(())
}

/// What a round took.
#[derive(Clone, Copy, Default)]
struct Round {
    encode: f64,
    prefill: f64,
    token: f64,
    first_token: f64,
    /// While tokens are decoded, if the system tells.
    joules_per_token: Option<f64>,
}

fn measure(
    args: &BenchArgs,
    path: &Path,
    picture: &RgbImage,
    kernels: &Kernels,
    console: Console,
    cancel: &CancelToken,
) -> anyhow::Result<Report> {
    let start = Instant::now();
    let model = models::open(path)?;
    let load = start.elapsed();
    let mut limits = args.model.machine.limits();
    limits.new_tokens = args.tokens as usize;
    let mut session = Session::new(&model, &limits).context("cannot start a session")?;
    let mut options = GenerateOptions::default();
    options.stop_at_eos = false;
    options.cancel = cancel.clone();
    let meter = EnergyMeter::find();
    let mut rounds = Vec::new();
    let mut prompt_tokens = 0;
    for i in 0..=args.rounds {
        if i > 0 {
            console.note(format_args!("round {i} of {}", args.rounds));
        }
        let (round, tokens) = one_round(&mut session, picture, &args.prompt, &options, meter.as_ref())?;
        prompt_tokens = tokens;
        if cancel.is_cancelled() {
            return Err(anyhow!("interrupted"));
        }
        if i > 0 {
            rounds.push(round);
        }
    }
    let plan = session.plan().clone();
    let peak_rss = peak_rss_bytes();
    drop(session);
    let machine = MachineLimits::measure(kernels, plan.threads)?;
    let work = model.work(prompt_tokens, limits.kv);
    let name = model_name(&model, path);
    Ok(Report::new(&name, kernels.isa().name(), load, peak_rss, &plan, &machine, &work, &rounds, args.tokens))
}

/// Looks at the picture and answers; also gives the prompt's tokens.
fn one_round(
    session: &mut Session,
    picture: &RgbImage,
    prompt: &str,
    options: &GenerateOptions,
    meter: Option<&EnergyMeter>,
) -> anyhow::Result<(Round, usize)> {
    let mut features = session.new_features()?;
    session.encode(picture.view(), &mut features, options)?;
    let read = || meter.and_then(EnergyMeter::read);
    let mut first = None;
    let answers = session.answer(&features, &[prompt], options, &mut |_| {
        first = first.take().or_else(read);
        ControlFlow::Continue(())
    })?;
    let last = read();
    let prompt_tokens = answers[0].prompt_tokens;
    let t = session.timings();
    let [encode, prefill, decode] = [t.encode, t.prefill, t.decode].map(|d| d.as_secs_f64());
    let token = decode / t.decode_steps.max(1) as f64;
    let watts = meter.zip(first.zip(last)).map(|(meter, (first, last))| meter.watts(&first, &last));
    let joules_per_token = watts.map(|watts| watts * token);
    Ok((Round { encode, prefill, token, first_token: encode + prefill, joules_per_token }, prompt_tokens))
}

/// The name in the file, or else the file's.
fn model_name(model: &Model, path: &Path) -> String {
    let named = model.file().metadata().text("general.name").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| path.display().to_string())
}

/// The most memory that this process has had in RAM, mapped files included; `None` where the system does not tell.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Median, least and most of some rounds.
#[derive(Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (n, half) = (values.len(), values.len() / 2);
        let median = if n.is_multiple_of(2) { (values[half - 1] + values[half]) / 2.0 } else { values[half] };
        Self { median, min: values[0], max: values[n - 1] }
    }
}

/// `docs/json.md` promises this shape.
#[derive(Serialize)]
struct Report {
    model: String,
    isa: &'static str,
    threads: usize,
    rounds: usize,
    prefix_tokens: usize,
    new_tokens: u64,
    load_ms: f64,
    encode_ms: f64,
    prefill_ms: f64,
    ttft_ms: f64,
    decode_tokens_per_s: f64,
    joules_per_token: Option<f64>,
    peak_rss_bytes: Option<u64>,
    weights_bytes: usize,
    plan_bytes: usize,
    encode_macs: u64,
    prefill_macs: u64,
    token_bytes: u64,
    limit_read_gb_per_s: f64,
    limit_int8_gmac_per_s: f64,
    encode_share: f64,
    prefill_share: f64,
    decode_share: f64,
    spread: SpreadJson,
}

#[derive(Serialize)]
struct SpreadJson {
    encode_ms: Spread,
    prefill_ms: Spread,
    ttft_ms: Spread,
    decode_tokens_per_s: Spread,
}

impl Report {
    fn new(
        model_name: &str,
        isa: &'static str,
        load: Duration,
        peak_rss_bytes: Option<u64>,
        plan: &palmtop::Plan,
        machine: &MachineLimits,
        work: &Work,
        rounds: &[Round],
        new_tokens: u64,
    ) -> Self {
        let spread = |f: fn(&Round) -> f64| Spread::of(rounds.iter().map(f));
        let spread = SpreadJson {
            encode_ms: spread(|r| 1e3 * r.encode),
            prefill_ms: spread(|r| 1e3 * r.prefill),
            ttft_ms: spread(|r| 1e3 * r.first_token),
            decode_tokens_per_s: spread(|r| 1.0 / r.token),
        };
        let (encode_ms, prefill_ms) = (spread.encode_ms.median, spread.prefill_ms.median);
        let decode_tokens_per_s = spread.decode_tokens_per_s.median;
        let joules: Option<Vec<f64>> = rounds.iter().map(|r| r.joules_per_token).collect();
        let joules_per_token = joules.map(|joules| Spread::of(joules.into_iter()).median);
        let of_macs = |macs: u64, ms: f64| macs as f64 / (1e-3 * ms) / machine.int8_macs_per_s;
        Self {
            model: model_name.to_owned(),
            isa,
            threads: plan.threads,
            rounds: rounds.len(),
            prefix_tokens: work.prefix_tokens,
            new_tokens,
            load_ms: 1e3 * load.as_secs_f64(),
            encode_ms,
            prefill_ms,
            ttft_ms: spread.ttft_ms.median,
            decode_tokens_per_s,
            joules_per_token,
            peak_rss_bytes,
            weights_bytes: plan.weights_bytes,
            plan_bytes: plan.session_bytes(),
            encode_macs: work.encode_macs,
            prefill_macs: work.prefill_macs,
            token_bytes: work.token_bytes,
            limit_read_gb_per_s: 1e-9 * machine.read_bytes_per_s,
            limit_int8_gmac_per_s: 1e-9 * machine.int8_macs_per_s,
            encode_share: of_macs(work.encode_macs, encode_ms),
            prefill_share: of_macs(work.prefill_macs, prefill_ms),
            decode_share: work.token_bytes as f64 * decode_tokens_per_s / machine.read_bytes_per_s,
            spread,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.spread;
        let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (threads, rounds) = (counted(self.threads, "thread"), counted(self.rounds, "round"));
        writeln!(f, "{}: {}, {threads}, {rounds}", self.model, self.isa)?;
        writeln!(f)?;
        let mut row = |what: &str, value: Spread, unit: &str, share: f64, of: &str| {
            let (Spread { median, min, max }, share) = (value, 100.0 * share);
            writeln!(f, "{what:<22}{median:>9.1} {unit:<8} ({min:.1} to {max:.1}){share:>6.0} % {of}")
        };
        row("look at a picture", s.encode_ms, "ms", self.encode_share, "of the multiply-adds")?;
        row("prefill", s.prefill_ms, "ms", self.prefill_share, "of the multiply-adds")?;
        row("decode", s.decode_tokens_per_s, "tokens/s", self.decode_share, "of the read bandwidth")?;
        let mut line = |what: &str, value: String| writeln!(f, "{what:<22}{value:>9}");
        line("first token after", format!("{:.1} ms", self.ttft_ms))?;
        let joules = self.joules_per_token.map_or("unknown".to_owned(), |j| format!("{j:.2} J"));
        line("energy of a token", joules)?;
        line("open the file", format!("{:.1} ms", self.load_ms))?;
        line("prefix", format!("{} tokens", self.prefix_tokens))?;
        line("weights", human_bytes(self.weights_bytes as u64))?;
        line("session", human_bytes(self.plan_bytes as u64))?;
        let peak = self.peak_rss_bytes.map_or("unknown".to_owned(), human_bytes);
        line("peak in memory", peak)?;
        writeln!(f)?;
        writeln!(
            f,
            "the machine's limits   {:.1} GB/s read, {:.0} G int8 multiply-adds/s",
            self.limit_read_gb_per_s, self.limit_int8_gmac_per_s
        )
    }
}

/// A row of the table of measured devices in `docs/devices.md`.
struct Row<'a>(&'a Report);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let device = device_name().unwrap_or_else(|| "unknown".to_owned());
        let cell = |text: &str| text.replace('|', "/");
        writeln!(
            f,
            "| {} | {} | {}, {} | {:.1} GB/s, {:.0} G | {:.2} s | {:.1} | {} | {} |",
            cell(&device),
            cell(&report.model),
            report.isa,
            report.threads,
            report.limit_read_gb_per_s,
            report.limit_int8_gmac_per_s,
            1e-3 * report.ttft_ms,
            report.decode_tokens_per_s,
            report.peak_rss_bytes.map_or("unknown".to_owned(), human_bytes),
            env!("CARGO_PKG_VERSION"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |values: &[f64]| {
            let Spread { median, min, max } = Spread::of(values.iter().copied());
            (median, min, max)
        };
        assert_eq!(spread(&[5.0]), (5.0, 5.0, 5.0));
        assert_eq!(spread(&[5.0, 1.0]), (3.0, 1.0, 5.0));
        assert_eq!(spread(&[5.0, 1.0, 2.0]), (2.0, 1.0, 5.0));
        assert_eq!(spread(&[9.0, 5.0, 1.0, 2.0]), (3.5, 1.0, 9.0));
    }
}
