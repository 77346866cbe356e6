//! The program `palmtop`: asks PaliGemma about pictures, and converts, inspects and verifies its model files.

mod answer;
mod args;
mod bench;
mod convert;
mod demo;
mod doctor;
mod energy;
mod errors;
mod eval;
mod files;
mod inspect;
mod interrupt;
mod library;
mod mapping;
mod models;
mod output;
mod plan;
mod progress;
mod pull;
mod retrieval;
mod save;
mod serve;
mod service;
mod synthetic;
mod trace;
mod version;
mod watch;

use std::process::ExitCode;

use anyhow::Context;
use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};
use output::Stdout;
use palmtop_present::plain::visible;

/// How a command ended that did not fail as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Some pictures could not be used; each was reported.
    SomeFailed,
    /// Stopped by Ctrl-C.
    Interrupted,
}

fn main() -> ExitCode {
    let cli = read_arguments();
    output::log_to_stderr(cli.verbose);
    mapping::report_bus_errors();
    match run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(error) => errors::report(&error),
    }
}

/// The arguments. A variable of the environment that is set but empty is one that is not there.
fn read_arguments() -> Cli {
    let ignore_empty_variables = |command: clap::Command| {
        command.mut_args(|arg| {
            let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if is_empty { arg.env(Resettable::Reset) } else { arg }
        })
    };
    let matches = Cli::command().mut_subcommands(ignore_empty_variables).try_get_matches();
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).unwrap_or_else(|error| {
        if error.kind() == ErrorKind::DisplayVersion && version::is_verbose(std::env::args_os()) {
            // A closed pipe is no failure, as for clap's own line.
            let _ = Stdout::new().write_all(version::lines().as_bytes());
            std::process::exit(0);
        }
        // What the user typed is in it, or whatever made the command line: control characters stay visible.
        let text = error.to_string();
        if visible(&text) != text {
            output::say(text);
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let console = output::Console { quiet: cli.quiet, verbose: cli.verbose > 0 };
    match cli.command {
        Command::Caption(args) => answer::run(&args.into(), console),
        Command::Ask(args) => answer::run(&args.into(), console),
        Command::Ocr(args) => answer::run(&args.into(), console),
        Command::Detect(args) => answer::run(&args.into(), console),
        Command::Segment(args) => answer::run(&args.into(), console),
        Command::Run(args) => answer::run(&args.into(), console),
        Command::Watch(args) => watch::run(&args, console),
        Command::Serve(args) => serve::run(&args, console),
        Command::Embed(args) => retrieval::embed::run(&args, console),
        Command::Find(args) => retrieval::find::run(&args, console),
        Command::Pull(args) => pull::run(&args, console),
        Command::Models(args) => library::run(&args, console),
        Command::Convert(args) => convert::run(&args, console),
        Command::Inspect(args) => inspect::inspect(&args, console),
        Command::Verify(args) => inspect::verify(&args, console),
        Command::Plan(args) => plan::run(&args, console),
        Command::Trace(args) => trace::run(&args, console),
        Command::Eval(args) => eval::run(&args, console),
        Command::Bench(args) => bench::run(&args, console),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => {
            // Into memory first: the generator does not expect a closed pipe.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "palmtop", &mut script);
            Stdout::new().write_all(&script)?;
            Ok(Outcome::Done)
        }
        Command::Man { folder } => {
            clap_mangen::generate_to(Cli::command(), &folder)
                .with_context(|| format!("cannot write manual pages into {}", folder.display()))?;
            Ok(Outcome::Done)
        }
    }
}
