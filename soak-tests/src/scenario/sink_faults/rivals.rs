//! Who else writes there: a session that locks rows in the opposite order, and a second core.
//!
//! Promise: the competitor's transactions change nothing; the second core works on a copy of the first one's data, taken while
//! that one is stopped where it stands, as after a failover to a copy of its disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{FELT, GLANCE, HEALING, Report};
use crate::admin;
use crate::ground::free_port;
use crate::processes::Process;
use crate::proxy::{Proxy, Weather};
use crate::rig::Rig;
use crate::server::{Db, Server, Session};

/// Rows that make the competitor the heavier transaction, so that the server gives up the core's.
const BALLAST: &str = "insert into ballast select seq from applied limit 5000";

/// A session that locks the last writer's total and then the first one's.
pub(super) struct Competitor {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Competitor {
    pub(super) fn start(server: &Server, seed: u64) -> Self {
        let (db, owner) = (server.db, server.owner());
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let mut rng = fastrand::Rng::with_seed(seed ^ 1);
        let task = tokio::spawn(async move {
            while !asked.load(Ordering::Relaxed) {
                // A server that is down, or that gives up this transaction, is what happens here.
                if let Ok(mut session) = owner.session().await {
                    while !asked.load(Ordering::Relaxed)
                        && compete(db, &mut session, &mut rng).await.is_ok()
                    {}
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { stop, task }
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the competitor panicked")
    }
}

async fn compete(db: Db, session: &mut Session, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    let lock = |writer: u32| format!("update totals set n = n where writer = {writer}");
    sleep(Duration::from_millis(rng.u64(100..300))).await;
    session.run("begin").await?;
    if db.is_server() {
        session.run(BALLAST).await?;
    }
    session.run(&lock(crate::generate::WRITERS - 1)).await?;
    sleep(Duration::from_millis(rng.u64(5..60))).await;
    session.run(&lock(0)).await?;
    session.run("rollback").await
}

/// Freezes the core in a transaction, has a second one take over on a copy of its data, wakes the first one, and goes on with
/// the second.
pub(super) async fn take_over_from_a_sleeper(
    rig: &mut Rig,
    proxy: &Proxy,
    report: &mut Report,
) -> anyhow::Result<()> {
    // What it sends and what it is answered stands still: a transaction is open, and more waits in the log.
    proxy.set(Weather::Stalled);
    sleep(Duration::from_millis(400)).await;
    rig.stop_agent().await?;
    rig.freeze().await?;
    proxy.set(Weather::Clear);
    let mut ground = rig.ground.clone();
    ground.data_dir = ground.dir.join("second");
    ground.core_config = ground.dir.join("second.toml");
    ground.gateway = free_port(&[rig.ground.gateway, rig.ground.admin])?;
    ground.admin = free_port(&[rig.ground.gateway, rig.ground.admin, ground.gateway])?;
    let mut copy = Command::new("cp");
    let copied = copy.arg("-a").arg(&rig.ground.data_dir).arg(&ground.data_dir).status().await?;
    anyhow::ensure!(copied.success(), "the data folder cannot be copied");
    let first = std::fs::read_to_string(&rig.ground.core_config)?;
    let second = first
        .replace(&format!("{:?}", rig.ground.data_dir), &format!("{:?}", ground.data_dir))
        .replace(&rig.ground.gateway.to_string(), &ground.gateway.to_string())
        .replace(&rig.ground.admin.to_string(), &ground.admin.to_string());
    std::fs::write(&ground.core_config, second)?;
    let (program, log) = (&ground.programs.core, ground.dir.join("core.log"));
    let mut process = Process::start("second core", program, &ground.core_config, None, &[], &log)?;
    let deadline = Instant::now() + HEALING;
    while !admin::status(&ground.socket()).await.is_ok_and(|status| status.is_drained()) {
        process.check()?;
        anyhow::ensure!(Instant::now() < deadline, "the second core does not take over");
        sleep(GLANCE).await;
    }
    report.takeovers += 1;
    rig.thaw()?;
    let deadline = Instant::now() + FELT;
    // It finds that everything is done, or that it is not the owner any more.
    while !admin::status(&rig.ground.socket()).await.is_ok_and(|status| status.is_drained())
        && Instant::now() < deadline
    {
        sleep(GLANCE).await;
    }
    rig.kill_core().await?;
    process.kill().await?;
    rig.ground = ground;
    rig.ground.write_agent(rig.ground.gateway, "")?;
    rig.restart_core()?;
    rig.start_agent()
}
