//! The command line: `run`, `check`, `enrol`, `status`, `fsck`, `completions`, `man`.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 not running or unreachable ·
//! 5 denied · 6 the state folder is in use · 7 degraded · 78 configuration error · 130 interrupted.

mod check;
mod enrol;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use garam_proto::shown::{self, Harmless};

use crate::config::{Config, DEFAULT_PATH};
use crate::error::AgentError;
use crate::{fsck, metrics, run, status};

/// Tails files and ships them to the core, exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "garam-agent",
    version,
    after_long_help = "Examples:\n  garam-agent check\n  garam-agent run --config /etc/garam-agent/agent.toml\n  garam-agent status -o json\n\nExit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not running or unreachable,\n5 denied, 6 state folder in use or identity there already, 7 degraded, 78 configuration error, 130 interrupted."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM or SIGINT.
    ///
    /// Reads the files the configuration names and ships them over mutual TLS. SIGTERM stops reading, waits up to ten
    /// seconds for acknowledgements, writes the checkpoint and exits with 0; a second signal exits at once with 130.
    /// Logs go to stderr; GARAM_LOG sets what is logged (default `info`, e.g. `garam_agent=debug`).
    #[command(after_long_help = "Example:\n  garam-agent run --config ./agent.toml")]
    Run {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Check configuration, certificates and globs, and print the plan, without starting.
    #[command(after_long_help = "Example:\n  garam-agent check --config ./agent.toml")]
    Check {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Make this host an agent of a core, with a token from `garam token create`.
    ///
    /// Makes a key here, which never leaves, checks by the token that the core is the right one, and has the key signed.
    /// Asking again after a cut connection is safe. The token is read from a file, so that no list of processes shows it.
    #[command(
        after_long_help = "Examples:\n  garam-agent enrol --core core-1.example:7471 --token-file ./web-01.token\n  garam-agent enrol --core 10.0.0.1:7471 --server-name core-1.example --token-file T --identity-dir ./identity"
    )]
    Enrol(enrol::Args),
    /// Show what the running agent reads, has shipped and has not.
    ///
    /// Asks the agent through the socket in its state folder; exits with 4 when none runs there.
    #[command(
        after_long_help = "Examples:\n  garam-agent status\n  garam-agent status --state-dir /var/lib/garam-agent -o json"
    )]
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// State folder of the agent, instead of the one in the configuration.
        #[arg(long, value_name = "DIR", conflicts_with = "config")]
        state_dir: Option<PathBuf>,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Compare what the state folder remembers with the files on the disk; changes nothing.
    ///
    /// Names every file that is gone, was rewritten or cannot be read, and what the next start would read or report as
    /// lost. Exits with 0 when all is sound, 1 when no checkpoint is whole, 3 when there is none, 7 when something is
    /// damaged or gone, 78 when a newer version wrote it.
    #[command(
        after_long_help = "Example:\n  garam-agent fsck --state-dir /var/lib/garam-agent -o json"
    )]
    Fsck {
        #[command(flatten)]
        config: ConfigArgument,
        /// State folder of the agent, instead of the one in the configuration.
        #[arg(long, value_name = "DIR", conflicts_with = "config")]
        state_dir: Option<PathBuf>,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = FsckOutput::Table)]
        output: FsckOutput,
    },
    /// Print a completion script for a shell.
    #[command(
        after_long_help = "Example:\n  garam-agent completions bash > /etc/bash_completion.d/garam-agent"
    )]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page.
    #[command(after_long_help = "Example:\n  garam-agent man | man -l -")]
    Man,
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH, env = "GARAM_AGENT_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
    /// The text format of Prometheus.
    Metrics,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FsckOutput {
    Table,
    Json,
}

/// Parses the arguments and does what they say.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    match execute(arguments.command) {
        Ok(code) => ExitCode::from(code),
        // The reader of our output left (`| head`): not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code =
                error.downcast_ref::<crate::error::AgentError>().map_or(1, |e| e.exit_code());
            // Nobody is left to tell when stderr is closed too.
            drop(writeln!(Harmless::lines(io::stderr()), "garam-agent: {error:#}"));
            ExitCode::from(code)
        }
    }
}

/// The exit code of what went as it should.
fn execute(command: Command) -> anyhow::Result<u8> {
    let mut out = Harmless::lines(io::stdout().lock());
    match command {
        Command::Run { config } => {
            drop(out);
            let plan = load(&config.config)?;
            run::run(&config.config, plan)?;
        }
        Command::Check { config } => {
            check::check(&config.config, &load(&config.config)?, &mut out)?
        }
        Command::Enrol(args) => enrol::enrol(&args, &mut out)?,
        Command::Status { config, state_dir, output } => {
            let state_dir = match state_dir {
                Some(state_dir) => state_dir,
                None => load(&config.config)?.state_dir,
            };
            let status = status::fetch(&state_dir)?;
            match output {
                Output::Table => status::table(&status, &mut out)?,
                Output::Metrics => out.write_all(metrics::text(&status).as_bytes())?,
                Output::Json => writeln!(out, "{}", shown::json(&serde_json::to_string(&status)?))?,
            }
        }
        Command::Fsck { config, state_dir, output } => {
            let state_dir = match state_dir {
                Some(state_dir) => state_dir,
                None => load(&config.config)?.state_dir,
            };
            let findings = fsck::check(&state_dir).map_err(AgentError::from)?;
            match output {
                FsckOutput::Table => fsck::table(&findings, &mut out)?,
                FsckOutput::Json => {
                    writeln!(out, "{}", shown::json(&serde_json::to_string(&findings)?))?;
                }
            }
            return Ok(findings.exit_code);
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "garam-agent", &mut script);
            out.write_all(&script)?;
        }
        Command::Man => clap_mangen::Man::new(Arguments::command()).render(&mut out)?,
    }
    Ok(0)
}

fn load(path: &std::path::Path) -> Result<crate::config::Plan, crate::error::AgentError> {
    Ok(Config::load(path)?)
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GARAM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Harmless::event(io::stderr(), colour))
        .with_ansi(colour)
        // A closed stderr must not turn a log line into a panic.
        .log_internal_errors(false)
        .init();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
