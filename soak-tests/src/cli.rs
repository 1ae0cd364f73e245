//! The command line: parses, runs one scenario or benchmark, prints, and ends with an exit code.
//!
//! The result goes to stdout (`-o json`: one object as the last line), everything else to stderr. Exit codes: 0 good, 1 the
//! oracle found errors or the run broke, 2 usage, 130 interrupted.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench;
use crate::ground::Programs;
use crate::mounts;
use crate::scenario::Scenario;
use crate::tracer;

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
    #[command(subcommand, arg_required_else_help = true)]
    Run(Box<Scenario>),
    /// List the scenarios
    List,
    /// Run a program and strike at one of its calls on files; `run crash_points` uses it
    #[command(hide = true)]
    Trace(tracer::Args),
    /// Measure something; build with --release first
    #[command(subcommand)]
    Bench(bench::Verb),
}

/// Entry point of the `garam-soak` binary.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    // The tracer is one thread by nature: the kernel knows it by its thread.
    if let Verb::Trace(args) = &cli.verb {
        return tracer::run(args).unwrap_or_else(|error| {
            say(&format!("garam-soak trace: {error:#}"));
            ExitCode::FAILURE
        });
    }
    // So is a mount name space, until there are more threads to inherit it.
    if let Verb::Run(scenario) = &cli.verb
        && scenario.mounts()
        && let Err(error) = mounts::keep_private()
    {
        say(&format!("garam-soak: {error:#}"));
        return ExitCode::FAILURE;
    }
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
        Verb::Run(scenario) => {
            let outcome = scenario.run(Programs::find(bin_dir.as_deref())?).await?;
            print(format, &outcome.json, &outcome.text)?;
            Ok(outcome.ok)
        }
        Verb::List => {
            let run = Scenario::augment_subcommands(clap::Command::new("run"));
            let stories: Vec<(&str, String)> = run
                .get_subcommands()
                .map(|scenario| {
                    let story = scenario.get_about().map(ToString::to_string);
                    (scenario.get_name(), story.unwrap_or_default())
                })
                .collect();
            let names: Vec<&str> = stories.iter().map(|(name, _)| *name).collect();
            let text: String =
                stories.iter().map(|(name, story)| format!("{name:<26} {story}\n")).collect();
            print(format, &serde_json::to_string(&names)?, &text)?;
            Ok(true)
        }
        Verb::Trace(_) => anyhow::bail!("the tracer runs before the runtime"),
        Verb::Bench(verb) => {
            let figures = bench::run(verb, bin_dir.as_deref()).await?;
            print(format, &serde_json::to_string(&figures)?, &figures.to_string())?;
            Ok(true)
        }
    }
}

fn print(format: Format, json: &str, text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match format {
        Format::Table => stdout.write_all(text.as_bytes())?,
        Format::Json => writeln!(stdout, "{json}")?,
    }
    Ok(stdout.flush()?)
}

/// Tells a person how it goes. A closed stderr is no reason to stop.
pub(crate) fn say(line: &str) {
    let _closed_stderr_is_fine = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_fits_together() {
        Cli::command().debug_assert();
    }
}
