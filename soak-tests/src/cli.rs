//! The command line: parses, runs one scenario or benchmark, prints, and ends with an exit code.
//!
//! The result goes to stdout (`-o json`: one object as the last line), everything else to stderr. Exit codes: 0 good, 1 the
//! oracle found errors or the run broke, 2 usage, 130 interrupted.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::bench;
use crate::database::Canary;
use crate::scenario::{self, Scenario};

/// Drives the real binaries with faults and checks every record.
#[derive(Debug, Parser)]
#[command(name = "garam-soak", version, max_term_width = 120, arg_required_else_help = true)]
#[command(after_help = "Examples:\n  garam-soak run core_killed --seconds 60 --seed 7\n  \
garam-soak run steady --canary lose-one -o json    must fail\n  garam-soak bench ship --codec lz4 -o json")]
struct Cli {
    /// How to print.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Format,
    /// Where `garam` and `garam-agent` lie; default: beside this program.
    #[arg(long, global = true, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// One object on the last line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run one scenario and judge it
    Run(RunArgs),
    /// List the scenarios
    List,
    /// Measure something; build with --release first
    #[command(subcommand)]
    Bench(bench::Verb),
}

/// One run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// What is done to the product.
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,
    /// How long faults strike; the run ends when everything has arrived.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Decides what is written and when which fault strikes.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Records a second over all writers.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// Damage a copy of what was delivered before it is judged: the run must fail.
    #[arg(long, value_enum)]
    pub(crate) canary: Option<Canary>,
    /// Keep the work folder. A failed run keeps it anyway.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Work folder, kept; default: a temporary one.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Entry point of the `garam-soak` binary.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome =
        runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(until_interrupted(cli)));
    match outcome {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => ExitCode::from(130),
        Err(error) => {
            say(&format!("garam-soak: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the verb found all well; none when somebody interrupted. Processes end with what holds them.
async fn until_interrupted(cli: Cli) -> anyhow::Result<Option<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = dispatch(cli) => outcome.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
        _ = terminate.recv() => Ok(None),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<bool> {
    let (format, bin_dir) = (cli.output, cli.bin_dir);
    match cli.verb {
        Verb::Run(args) => {
            let report = scenario::run(args, bin_dir.as_deref()).await?;
            print(format, &report, &report.to_string())?;
            Ok(report.ok())
        }
        Verb::List => {
            let text: String = Scenario::ALL
                .iter()
                .map(|scenario| format!("{:<18} {}\n", scenario.to_string(), scenario.story()))
                .collect();
            print(format, &Scenario::ALL, &text)?;
            Ok(true)
        }
        Verb::Bench(verb) => {
            let figures = bench::run(verb, bin_dir.as_deref()).await?;
            print(format, &figures, &figures.to_string())?;
            Ok(true)
        }
    }
}

fn print(format: Format, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match format {
        Format::Table => stdout.write_all(text.as_bytes())?,
        Format::Json => writeln!(stdout, "{}", serde_json::to_string(value)?)?,
    }
    Ok(stdout.flush()?)
}

/// Tells a person how it goes. A closed stderr is no reason to stop.
pub(crate) fn say(line: &str) {
    let _closed_stderr_is_fine = writeln!(std::io::stderr(), "{line}");
}
