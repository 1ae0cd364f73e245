//! Secrets and hostile names go everywhere they can, and everything the programs say is searched for them.
//!
//! In: a core with databases whose passwords are known words, an agent that was enrolled by a token and masks with a key, files
//! and records whose names and contents steer terminals. Out: in which output a secret was found, or a character that does
//! something to a terminal. Searched: logs at level debug, what every verb prints in every format, metrics, errors, the audit
//! log, a backup's manifest, the lists of processes. A database that lets nobody in has seen a password come, so there was
//! something to leak. Not here: records, which are data where they are shown on purpose (`tap`, `dlq`, `query`).
//!
//! Reading order: here (the story) → `world` (configurations and secrets) → `search` → `database` (the server that refuses).

mod database;
mod search;
mod world;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::home::{Place, play_at};
use super::{Verdict, findings};
use crate::admin;
use crate::ground::Programs;
use crate::rig::Rig;
use search::Search;
use world::World;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also search a file that holds a secret and a name that steers a terminal: the run must fail.
    #[arg(long)]
    canary: bool,
    /// Decides nothing yet: what is written is the same each time.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    #[command(flatten)]
    home: Place,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    /// Outputs and files that were searched, and their bytes.
    searched: u64,
    bytes: u64,
    secrets: u64,
    /// Connections in which the database was told the password.
    passwords_seen: u64,
    /// `what in where`.
    leaks: Vec<String>,
    ok: bool,
    why: Vec<String>,
}

/// How long what was written may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(50);

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let database = database::refusing().await?;
    let world = World::prepare(&rig.ground, database.address)?;
    let mut search = Search::for_secrets(world.secrets());
    rig.core_environment = world::ENVIRONMENT.map(|(name, value)| (name, value.into())).into();
    rig.agent_environment = vec![(world::DEBUG.0, world::DEBUG.1.into())];
    search.output("ca init", &world.garam(&rig.ground, &["ca", "init"]).await?);
    rig.start_core()?;
    core_answers(rig).await?;
    world.enrol(&rig.ground, &mut search).await?;
    rig.start_agent()?;
    world.write_records(&rig.ground)?;
    let mut why = Vec::new();
    if !arrived(rig).await? {
        why.push("the records did not arrive".into());
    }
    world.ask_everything(&rig.ground, &mut search).await?;
    search.processes(&[&rig.ground.core_config, &rig.ground.agent_config])?;
    why.extend(rig.stop().await);
    world.keys(&rig.ground, &mut search)?;
    search.files(&rig.ground.dir, &["core.log", "agent.log"])?;
    search.folder(&rig.ground.data_dir.join("audit"))?;
    search.file(&rig.ground.dir.join("backup/MANIFEST"))?;
    if args.canary {
        search.file(&rig.ground.dir.join("db.url"))?;
        search.output("canary", world::HOSTILE.as_bytes());
    }
    let passwords_seen = database.passwords_seen(world::URL_PASSWORD);
    if passwords_seen == 0 {
        why.push("the database was told no password: there was nothing to leak".into());
    }
    let leaks = search.leaks();
    let ok = why.is_empty() && leaks.is_empty();
    let (searched, bytes, secrets) = search.size();
    let seed = args.seed;
    Ok(Report {
        scenario: "secrets",
        seed,
        searched,
        bytes,
        secrets,
        passwords_seen,
        leaks,
        ok,
        why,
    })
}

/// It is never ready: one destination refuses and one is not there.
async fn core_answers(rig: &mut Rig) -> anyhow::Result<()> {
    let begun = Instant::now();
    while admin::status(&rig.ground.socket()).await.is_err() {
        rig.check()?;
        anyhow::ensure!(begun.elapsed() < PATIENCE, "the core does not answer");
        sleep(GLANCE).await;
    }
    Ok(())
}

/// Waits until good records are delivered, broken ones put aside, and both databases have been tried.
async fn arrived(rig: &mut Rig) -> anyhow::Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        rig.check()?;
        let counters = admin::status(&rig.ground.socket()).await?.counters();
        if counters.delivered >= world::GOOD && counters.quarantined >= world::BROKEN {
            return Ok(true);
        }
        sleep(GLANCE).await;
    }
    Ok(false)
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "secrets  seed {}  {verdict}", self.seed)?;
        let rows = [
            ("searched", self.searched),
            ("bytes", self.bytes),
            ("secrets", self.secrets),
            ("passwords_seen", self.passwords_seen),
            ("leaks", self.leaks.len() as u64),
        ];
        findings::table(f, &rows, &[&self.leaks[..], &self.why].concat())
    }
}
