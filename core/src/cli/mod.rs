//! The operator's command line: parses, calls one room, prints, and ends with a documented exit code.
//!
//! Data goes to stdout, talk to stderr. Verbs that ask a running core go through its admin socket, or with `--core` through its remote
//! admin port; verbs that look at files
//! (`check`, `log`, `dlq`, `query`, `backup`, `verify`, `restore`, `ca`, `agent`, `admin`, `token`) work without one; `resume` does both. Not here: what the verbs do (`app` and the rooms).

mod admin;
mod admin_client;
mod agent;
mod ask;
mod backup;
mod changes;
mod check;
mod confirm;
mod contract;
mod dimension;
mod dlq;
mod exit;
mod log;
mod output;
mod pause;
mod query;
mod quickstart;
mod replay;
mod resume;
mod run;
mod sql;
mod test;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, DEFAULT_PATH, Plan};
use admin_client::Core;
use exit::{Exit, coded};
use output::Format;

/// Carries logs from hosts to where they are used, and loses none on the way.
#[derive(Debug, Parser)]
#[command(name = "garam", version, max_term_width = 120, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unreachable, 5 denied, 6 conflict, 7 degraded, \
78 configuration error, 130 interrupted.\n\nExamples:\n  garam quickstart --seconds 20          see it run on this machine's own logs\n  \
garam check                            explain what the configuration would do\n  garam run                              run the core\n  \
garam lag -o json                      how far behind each pipeline is"
)]
pub(crate) struct Cli {
    /// Configuration file; `conf.d/*.toml` beside it is merged in.
    #[arg(long, short, global = true, env = "GARAM_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// How to print.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    output: Format,
    /// Ask the core on another machine, `HOST:PORT` of its admin.remote_listen: for tree, status, lag, tap, dimension, resume and reload.
    #[arg(long, global = true, value_name = "HOST:PORT", requires = "identity")]
    core: Option<String>,
    /// Folder of `garam admin issue` that says who asks.
    #[arg(long, global = true, value_name = "DIR", requires = "core")]
    identity: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the core until SIGTERM, which drains it
    Run,
    /// Validate the configuration and print what it would do, and what would change
    Check(check::Args),
    /// Let a running core read its configuration again and carry out what changed
    #[command(after_help = "Example: garam check && garam reload\n\n\
Pipelines that changed end at a batch boundary and go on by the new plan; all others run on untouched. A configuration that \
cannot be read or needs a restart changes nothing.\nExit codes: 0 in force, 4 no core answers, 6 refused, 78 configuration error.")]
    Reload,
    /// Set up a core and an agent in a work folder, run both on real files, and show the data
    Quickstart(quickstart::Args),
    /// Show the supervision tree with restarts and last faults
    Tree,
    /// Say whether all is well, and if not, why
    Status,
    /// Show how far behind each pipeline is
    Lag,
    /// Show records as they pass a pipeline
    Tap(ask::TapArgs),
    /// Look into the log's files, verify and repair them
    #[command(subcommand)]
    Log(log::Verb),
    /// Copy everything the core keeps into a new folder, while it runs or not
    Backup(backup::Backup),
    /// Check a backup wholly
    Verify(backup::Verify),
    /// Make an empty data folder out of a backup
    Restore(backup::Restore),
    /// Let a pipeline wait at its cursor, with a reason
    Pause(pause::Args),
    /// Let a paused or parked pipeline go on, by a choice where its cursor does not fit the log
    Resume(resume::Args),
    /// Deliver again what the log still holds, from a time or a place on
    Replay(replay::Args),
    /// Run a read-only SQL query on a pipeline's SQLite destination
    Query(query::Args),
    /// Look at the tables to join, and have one read now
    #[command(subcommand)]
    Dimension(dimension::Verb),
    /// Propose a contract from a sample
    #[command(subcommand)]
    Contract(contract::Verb),
    /// Run an operator's own tests of contracts and SQL
    Test(test::Args),
    /// Try a refinement by SQL on a file of records
    Sql(sql::Args),
    /// Look at quarantined records, deliver them again, export or purge them
    #[command(subcommand)]
    Dlq(dlq::Verb),
    /// Make the certificate authority
    #[command(subcommand)]
    Ca(agent::CaVerb),
    /// Issue certificates, list and revoke agents
    #[command(subcommand)]
    Agent(agent::AgentVerb),
    /// Let people ask this core from other machines
    #[command(subcommand)]
    Admin(admin::Verb),
    /// Let hosts become agents by a token
    #[command(subcommand)]
    Token(token::Verb),
    /// Print a completion script for a shell
    #[command(after_help = "Example: garam completions bash > /etc/bash_completion.d/garam")]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    #[command(after_help = "Example: garam man | man -l -")]
    Man,
}

/// Entry point of the `garam` binary.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Segments, agents' connections: a log of 64 GiB alone has a thousand. What the system refuses is said by whoever lacks it.
    let _as_it_was = garam_disk::raise_descriptor_limit();
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error).into(),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let (format, config) = (cli.output, cli.config);
    let there = cli.core.zip(cli.identity);
    let there = there.map(|(address, identity)| Core::There { address, identity });
    if let Some(core) = there {
        return ask_elsewhere(&core, cli.verb, format);
    }
    let here = || Ok::<_, anyhow::Error>(Core::Here { socket: load(&config)?.admin.socket });
    match cli.verb {
        Verb::Run => run::run(&load(&config)?, &config),
        Verb::Reload => changes::reload(&here()?, format),
        Verb::Check(args) => check::check(&load(&config)?, &args, format),
        Verb::Quickstart(args) => quickstart::quickstart(args, format),
        Verb::Tree => ask::tree(&here()?, format),
        Verb::Status => ask::status(&here()?, format),
        Verb::Lag => ask::lag(&here()?, format),
        Verb::Tap(args) => ask::tap(&here()?, &args),
        Verb::Log(verb) => log::dispatch(&load(&config)?, verb, format),
        Verb::Backup(args) => backup::backup(&load(&config)?, &args, format),
        Verb::Verify(args) => backup::verify(&args, format),
        Verb::Restore(args) => backup::restore(&load(&config)?, &args, format),
        Verb::Resume(args) => resume::resume(&load(&config)?, &args, format),
        Verb::Pause(args) => pause::pause(&load(&config)?, &args, format),
        Verb::Replay(args) => replay::replay(&load(&config)?, &args, format),
        Verb::Query(args) => query::query(&load(&config)?, &args, format),
        Verb::Dimension(verb) => dimension::dispatch(&here()?, verb, format),
        Verb::Contract(verb) => contract::dispatch(verb, format),
        Verb::Test(args) => test::test(&load(&config)?, &args, format),
        Verb::Sql(args) => sql::sql(&args, || load(&config), format),
        Verb::Dlq(verb) => dlq::dispatch(&load(&config)?, verb, format),
        Verb::Ca(verb) => agent::ca(&load(&config)?, &verb),
        Verb::Agent(verb) => agent::agent(&load(&config)?, verb, format),
        Verb::Admin(verb) => admin::dispatch(&load(&config)?, verb, format),
        Verb::Token(verb) => token::dispatch(&load(&config)?, verb, format),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "garam", &mut script);
            output::emit(&String::from_utf8_lossy(&script)).map(|()| Exit::Ok)
        }
        Verb::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            output::emit(&String::from_utf8_lossy(&page)).map(|()| Exit::Ok)
        }
    }
}

/// Verbs that need nothing but a running core.
fn ask_elsewhere(core: &Core, verb: Verb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        Verb::Tree => ask::tree(core, format),
        Verb::Status => ask::status(core, format),
        Verb::Lag => ask::lag(core, format),
        Verb::Tap(args) => ask::tap(core, &args),
        Verb::Dimension(verb) => dimension::dispatch(core, verb, format),
        Verb::Resume(args) => resume::start_again(core, &args, format),
        Verb::Reload => changes::reload(core, format),
        _ => {
            let text = "--core is for tree, status, lag, tap, dimension, resume and reload: run this verb on the core's own machine";
            Err(coded(Exit::Usage, anyhow::anyhow!(text)))
        }
    }
}

fn load(path: &std::path::Path) -> anyhow::Result<Plan> {
    config::load(path).and_then(config::Config::check).map_err(|error| coded(Exit::Config, error))
}

/// A small runtime for verbs that need one for a moment.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
