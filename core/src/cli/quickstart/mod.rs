//! `garam quickstart`: a real core and a real agent on this machine, on real files, in one work folder.
//!
//! In: globs or a generator's rate. Out: a live view, then a summary that says where the data is and whether every record
//! that was read is accounted for. Promise: nothing outside the work folder is written; a second run continues where the
//! first stopped; both processes are stopped by the one that started them.
//!
//! Reading order: here (the story) → `setup` (folder, certificates, configuration) → `children` (the two processes) →
//! `generate` (a synthetic, rotating log) → `view` (the screen) → `summary` (the count at the end).

mod children;
mod generate;
mod setup;
mod summary;
mod view;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::exit::{Exit, eprintln_quietly};
use super::output::{self, Format};
use children::Children;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam quickstart                                  tail /var/log/**/*.log until Ctrl-C\n  \
garam quickstart --seconds 20 -o json             the same for 20 seconds, summary as JSON\n  \
garam quickstart --tail '/srv/app/*.log'          your own files\n  \
garam quickstart --tail app.log --postgres db.url  into the server whose address is the line of db.url\n  \
garam quickstart --generate 5000                  a synthetic application log, 5000 lines a second, rotating"
)]
pub(crate) struct Args {
    /// Files to tail; may be given several times. Default: `/var/log/**/*.log`.
    #[arg(long, value_name = "GLOB")]
    tail: Vec<String>,
    /// Also write a synthetic application log at this many lines a second, into a real, rotating file.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generate: Option<u32>,
    /// Deliver into PostgreSQL instead of a file: the only line of FILE is `postgres://USER:PASSWORD@HOST/DATABASE`.
    #[arg(long, value_name = "FILE")]
    postgres: Option<PathBuf>,
    /// Stop after this many seconds; default: run until Ctrl-C.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Work folder: configuration, certificates, log, data. Kept, so that a second run continues.
    #[arg(long, value_name = "DIR", default_value = "garam-quickstart")]
    dir: PathBuf,
    /// Port for agents; default: a free one.
    #[arg(long, value_name = "PORT")]
    gateway_port: Option<u16>,
    /// Port for health, metrics and questions; default: a free one.
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
}

/// How long the core may take to deliver what is in its log once the agent has stopped.
const DRAIN: Duration = Duration::from_secs(60);

pub(crate) fn quickstart(args: Args, format: Format) -> anyhow::Result<Exit> {
    let ground = setup::prepare(&args)?;
    let summary = super::block_on(async {
        run(&args, &ground, format).await?;
        summary::count(&ground).await
    })?;
    output::print_text(format, &summary, &summary.text(&ground))?;
    Ok(if summary.holds() { Exit::Ok } else { Exit::Failed })
}

/// Runs both processes until time is up or somebody interrupts; both are stopped when it returns.
async fn run(args: &Args, ground: &setup::Ground, format: Format) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut children = Children::default();
    let outcome = async {
        children.start_core(ground).await?;
        summary::remember_start(ground).await?;
        children.start_agent(ground).await?;
        let generator =
            args.generate.map(|rate| generate::Generator::start(&ground.logs, rate)).transpose()?;
        let on_terminal = format == Format::Table && std::io::stdout().is_terminal();
        let mut view = view::View::new(ground, on_terminal);
        watch(args, started, &mut children, &mut view).await?;
        if let Some(generator) = generator {
            generator.stop().context("the generator failed")?;
        }
        children.stop_agent().await?;
        view.drained(DRAIN).await
    }
    .await;
    children.stop_all().await;
    outcome
}

/// Shows what happens each second until time is up, a child ends, or somebody interrupts.
async fn watch(
    args: &Args,
    started: Instant,
    children: &mut Children,
    view: &mut view::View<'_>,
) -> anyhow::Result<()> {
    let until = args.seconds.map(Duration::from_secs);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = tokio::signal::ctrl_c() => {
                eprintln_quietly("stopping: the agent first, then the core once it has delivered everything");
                return Ok(());
            }
            _ = terminate.recv() => return Ok(()),
        }
        children.check()?;
        view.draw(started.elapsed()).await;
        if until.is_some_and(|until| started.elapsed() >= until) {
            return Ok(());
        }
    }
}
