//! A host enrols, renews, is revoked, comes back after its certificate's end and is rebuilt, while it ships.
//!
//! In: a busy run with certificates of 20 s. Out: every record by its id, and what the core's audit log counts. A quarter of
//! the time each: renewals on the live channel; a revocation, then a token that lets the same agent in again; the agent is
//! off until its certificate has ended, and comes back by its key; the host loses identity and state and is enrolled into its
//! old id. Companions that ship nothing live through all of it and renew again and again. Promise: exact delivery; one agent id from the first to the last. Not here: what tokens and certificates refuse
//! (the core's own tests).

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};

use super::host::Host;
use crate::admin;
use crate::database;
use crate::generate::Generator;
use crate::ground::{Ground, Programs};
use crate::rig::Rig;
use crate::scenario::findings::{self, Errors};
use crate::scenario::home::{Place, play_at};
use crate::scenario::{Verdict, judge};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long records are written. Each quarter must hold the life of a certificate.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(100..=86_400))]
    seconds: u64,
    /// Decides what is written.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second over all writers.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    #[command(flatten)]
    home: Place,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    seconds: u64,
    generated: u64,
    delivered: u64,
    quarantined: u64,
    #[serde(flatten)]
    errors: Errors,
    #[serde(flatten)]
    granted: Granted,
    /// From the end of `agent revoke` until the core listed no session any more.
    revoked_after_ms: u64,
    ok: bool,
    why: Vec<String>,
}

/// What the audit log says was granted.
#[derive(Debug, Clone, Default, Serialize)]
struct Granted {
    enrolled: u64,
    renewed: u64,
    recovered: u64,
    refused: u64,
    agents: u64,
}

const HOST: &str = "soak-host";
/// Hosts that only renew: together dozens of times.
const COMPANIONS: usize = 6;
const LIFE: Duration = Duration::from_secs(20);
/// How long everything may take to arrive at the end.
const HEALING: Duration = Duration::from_secs(120);
/// How long a session may outlive its revocation before the run is given up.
const OUT: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let host = Host::prepare(&rig.ground, LIFE)?;
    rig.ground.garam(&["ca", "init", "--label", "soak"]).await?;
    rig.start_core()?;
    rig.core_ready().await?;
    let mut companions = Vec::new();
    for number in 0..COMPANIONS {
        companions.push(host.companion(&rig.ground, number).await?);
    }
    host.enrol(&rig.ground, &["--host", HOST]).await?;
    rig.start_agent()?;
    let began = Instant::now();
    let quarter = Duration::from_secs(args.seconds) / 4;
    let generator = Generator::start(&rig.ground.logs, args.seed, args.rate, args.seconds);

    sleep_until(began + quarter).await;
    generator.check()?;
    rig.check()?;
    let revoked_after = revoke(rig).await?;
    rig.stop_agent().await?;
    host.enrol(&rig.ground, &["--replace", HOST]).await?;
    rig.restart_agent()?;

    sleep_until(began + quarter * 2).await;
    rig.kill_agent().await?;
    // Certificates begin to count when they are made, so this one has ended by then.
    sleep(LIFE + Duration::from_secs(2)).await;
    rig.restart_agent()?;

    sleep_until(began + quarter * 3).await;
    rig.kill_agent().await?;
    std::fs::remove_dir_all(&rig.ground.state)?;
    std::fs::remove_dir_all(rig.ground.identity())?;
    host.enrol(&rig.ground, &["--replace", HOST]).await?;
    rig.restart_agent()?;

    let book = generator.finish().await?;
    let healed = rig.all_settled(book.len(), HEALING).await?;
    let mut why = Vec::new();
    for mut companion in companions {
        if let Err(error) = companion.check() {
            why.push(error.to_string());
        } else if let Err(error) = companion.stop().await {
            why.push(error.to_string());
        }
    }
    why.extend(rig.stop().await);
    let ground = &rig.ground;
    let granted = granted(ground)?;
    let counters = database::read_counters(&ground.database).await?;
    let found = judge::judge(ground, &ground.pipe().name, &ground.database, &book).await?;
    why.extend(found.examples.iter().cloned());
    let mut errors = Errors::default();
    errors.add(&found);
    let mut demand = |met: bool, complaint: String| {
        if !met {
            why.push(complaint);
        }
    };
    demand(healed, "it does not heal".into());
    demand(book.len() > 0, "nothing was written".into());
    demand(errors.total() == 0, format!("{} errors by id", errors.total()));
    demand(counters.records_in == counters.settled(), format!("unbalanced: {counters:?}"));
    demand(counters.gap == 0, format!("a gap of {}", counters.gap));
    let others = COMPANIONS as u64;
    let ids = granted.agents;
    demand(ids == 1 + others, format!("{ids} agent ids for {} hosts", 1 + others));
    let enrolled = granted.enrolled;
    demand(enrolled == 3 + others, format!("enrolled {enrolled} times, not {}", 3 + others));
    // Certificates end by the clock on the wall, which may be slower than the run's.
    demand(granted.renewed >= 2 * others, format!("renewed {} times", granted.renewed));
    demand(granted.recovered >= 1, "did not come back by its key".into());
    Ok(Report {
        scenario: "cert_churn",
        seed: args.seed,
        seconds: args.seconds,
        generated: book.len(),
        delivered: found.delivered,
        quarantined: found.quarantined,
        errors,
        granted,
        revoked_after_ms: u64::try_from(revoked_after.as_millis()).unwrap_or(u64::MAX),
        ok: why.is_empty(),
        why,
    })
}

/// Revokes the running agent and gives how long it took until it was out.
async fn revoke(rig: &mut Rig) -> anyhow::Result<Duration> {
    rig.ground.garam(&["agent", "revoke", HOST, "--yes"]).await?;
    let revoked = Instant::now();
    while admin::status(&rig.ground.socket()).await?.agents.iter().any(|agent| agent.host == HOST) {
        anyhow::ensure!(revoked.elapsed() < OUT, "a revoked agent is still connected");
        sleep(GLANCE).await;
    }
    Ok(revoked.elapsed())
}

/// A line of the audit log, as far as it is needed.
#[derive(Deserialize)]
struct Line {
    what: String,
    outcome: String,
    agent: Option<String>,
}

fn granted(ground: &Ground) -> anyhow::Result<Granted> {
    let text = std::fs::read_to_string(ground.data_dir.join("audit/audit.jsonl"))?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Line>, _>>();
    let lines = lines.context("the audit log is not what it was")?;
    let allowed = |what: &str| {
        lines.iter().filter(|line| line.what == what && line.outcome == "allowed").count() as u64
    };
    let agents: std::collections::BTreeSet<_> =
        lines.iter().filter_map(|line| line.agent.as_ref()).collect();
    Ok(Granted {
        enrolled: allowed("enrol"),
        renewed: allowed("renew"),
        recovered: allowed("recover"),
        refused: lines.iter().filter(|line| line.outcome == "refused").count() as u64,
        agents: agents.len() as u64,
    })
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "cert_churn  seed {}  {} s  {verdict}", self.seed, self.seconds)?;
        let mut rows = vec![
            ("generated", self.generated),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
            ("enrolled", self.granted.enrolled),
            ("renewed", self.granted.renewed),
            ("recovered", self.granted.recovered),
            ("refused", self.granted.refused),
            ("revoked_after_ms", self.revoked_after_ms),
        ];
        rows.extend(self.errors.rows());
        findings::table(f, &rows, &self.why)
    }
}
