//! An enrolment is killed, or half a write is torn, at every call with which the agent changes its identity folder.
//!
//! In: a running core. Each run has a fresh host, a fresh token and no identity; the enrolment is struck at one call that none
//! before was struck at, and is run again with the same token until nothing is left to strike. Promise: after the second
//! run the host is an agent that the core lets in, under one id; a token that is used once was used once.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::host::{Host, complaint};
use crate::admin;
use crate::cli::say;
use crate::ground::{Ground, Programs};
use crate::processes::Tracing;
use crate::rig::Rig;
use crate::scenario::Verdict;
use crate::scenario::findings;
use crate::scenario::home::{Place, play_at};
use crate::tracer::Fault;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    home: Place,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    /// Enrolments that were cut, each at another call.
    struck: u64,
    /// Hosts that were agents after the second run.
    enrolled: u64,
    /// Agent ids the core knows.
    agents: u64,
    ok: bool,
    why: Vec<String>,
}

const LIFE: Duration = Duration::from_secs(3_600);
/// How long a new agent may take until the core lists it.
const PATIENCE: Duration = Duration::from_secs(20);
/// An enrolment makes some twenty calls on files; far beyond that something is wrong with the count.
const MOST: u64 = 200;
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(rig).await).await
}

async fn play(rig: &mut Rig) -> anyhow::Result<Report> {
    let host = Host::prepare(&rig.ground, LIFE)?;
    rig.ground.garam(&["ca", "init", "--label", "soak"]).await?;
    rig.start_core()?;
    rig.core_ready().await?;
    let mut report = Report { scenario: "enrol_killed", ..Report::default() };
    for fault in [Fault::Kill, Fault::Tear] {
        strike_everywhere(rig, &host, fault, &mut report).await?;
        say(&format!("{}: {} enrolments were cut so far", fault.name(), report.struck));
    }
    report.agents = agents(&rig.ground).await?;
    report.why.extend(rig.stop().await);
    if report.agents != report.enrolled {
        let (agents, enrolled) = (report.agents, report.enrolled);
        report.why.push(format!("the core knows {agents} agents, {enrolled} hosts enrolled"));
    }
    if report.struck < 10 {
        report.why.push(format!("only {} calls were struck", report.struck));
    }
    report.ok = report.why.is_empty();
    Ok(report)
}

async fn strike_everywhere(
    rig: &mut Rig,
    host: &Host,
    fault: Fault,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut spared = BTreeSet::new();
    loop {
        let name = format!("{}-{}", fault.name(), spared.len());
        host.make_token(&rig.ground, &["--host", &name]).await?;
        let Some(call) = enrol_struck(&rig.ground, host, fault, &spared).await? else {
            // Nothing was left to strike: this one is an agent, too.
            report.enrolled += 1;
            return forget(&rig.ground);
        };
        report.struck += 1;
        anyhow::ensure!(report.struck < MOST, "an enrolment has no end of calls: {call}");
        // It refuses where the first run had come to its end.
        let mut again = host.command(Command::new(&rig.ground.programs.agent), &rig.ground);
        let again = again.output().await?;
        match is_let_in(rig, &name).await? {
            true => report.enrolled += 1,
            false => {
                report.why.push(format!("{} at {call}: {}", fault.name(), complaint(&again)));
            }
        }
        spared.insert(call);
        forget(&rig.ground)?;
    }
}

/// Enrols under the tracer. Gives the call that was struck; none when all had been before.
async fn enrol_struck(
    ground: &Ground,
    host: &Host,
    fault: Fault,
    spared: &BTreeSet<String>,
) -> anyhow::Result<Option<String>> {
    let list = ground.dir.join("spared");
    let sites: String = spared.iter().map(|site| format!("{site}\n")).collect();
    std::fs::write(&list, sites)?;
    let tracing = Tracing {
        state: vec![ground.identity()],
        report: ground.dir.join("calls"),
        strike: Some((list, fault)),
    };
    let output = host.command(tracing.command(&ground.programs.agent)?, ground).output().await?;
    let struck = tracing.calls()?.struck;
    anyhow::ensure!(
        struck.is_some() != output.status.success(),
        "an enrolment ended with {}, struck at {struck:?}: {}",
        output.status,
        complaint(&output)
    );
    Ok(struck)
}

/// Runs the agent until the core lists it under this name, or it has ended.
async fn is_let_in(rig: &mut Rig, name: &str) -> anyhow::Result<bool> {
    rig.start_agent()?;
    let deadline = Instant::now() + PATIENCE;
    let mut listed = false;
    while !listed && Instant::now() < deadline {
        if rig.agent_ended()?.is_some() {
            return Ok(false);
        }
        listed = admin::status(&rig.ground.socket()).await?.agents.iter().any(|a| a.host == name);
        sleep(GLANCE).await;
    }
    rig.stop_agent().await?;
    Ok(listed)
}

/// The next host has nothing of this one.
fn forget(ground: &Ground) -> anyhow::Result<()> {
    for folder in [ground.identity(), ground.state.clone()] {
        if folder.try_exists()? {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

async fn agents(ground: &Ground) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Agent {
        agent: String,
    }
    let listed = ground.garam(&["agent", "ls", "-o", "json"]).await?;
    let listed: Vec<Agent> = serde_json::from_slice(&listed)?;
    Ok(listed.into_iter().map(|agent| agent.agent).collect::<BTreeSet<_>>().len() as u64)
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "enrol_killed  {}", if self.ok { "ok" } else { "FAILED" })?;
        let rows = [("struck", self.struck), ("enrolled", self.enrolled), ("agents", self.agents)];
        findings::table(f, &rows, &self.why)
    }
}
