//! The rounds on one file system: set up, cut, look, go on, and at the end the oracle.
//!
//! In: disks, programs, a seed. Out: counts in the [`Report`]. Promise: what the rounds compare is read while the programs
//! are stopped, or while the core runs without an agent that could send again what was lost; the first bad round is the last.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::promises::{Promises, Verified, copy_of, readable};
use super::report::{Part, Report};
use super::{Args, Canary};
use crate::admin;
use crate::agent;
use crate::cli::say;
use crate::database;
use crate::generate::Generator;
use crate::ground::{Ground, Pipe, Programs};
use crate::mounts::{Disk, Kind, Tools};
use crate::rig::Rig;
use crate::scenario::judge;

/// How long records may take to move before the disk goes anyway.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the core may take to deliver what its log holds, and both what was written.
const DRAINING: Duration = Duration::from_secs(60);
/// A core that breaks its promises does not drain.
const CANARY_DRAINING: Duration = Duration::from_secs(8);
const GLANCE: Duration = Duration::from_millis(20);

const LOG: &str = "segment_size = \"1MiB\"";
const STREAM: &str = "partitions = 2\nquota = \"128MiB\"\nretain = \"1s\"";
const PIPELINE: &str = "max_wait = \"10ms\"";
const SHIP: &str = "[ship]\nlinger = \"5ms\"\npoll = \"20ms\"\ndiscover = \"100ms\"\n";

/// When which disk goes.
#[derive(Debug, Clone, Copy)]
struct Cut {
    after: Duration,
    core: bool,
    agent: bool,
}

impl Cut {
    fn derive(rng: &mut Rng) -> Self {
        let (core, agent) = [(true, true), (true, false), (true, false), (false, true)]
            .get(rng.usize(..4))
            .copied()
            .unwrap_or((true, true));
        let after = Duration::from_millis(rng.u64(50..1_500));
        Self { after, core, agent }
    }
}

/// One file system, and what runs on it. The processes end before the disks.
pub(super) struct Trial {
    pub(super) rig: Rig,
    core_disk: Disk,
    agent_disk: Disk,
    inside: Pipe,
    outside: Pipe,
    rng: Rng,
    rounds: u32,
    seed: u64,
    rate: u32,
    canary: Option<Canary>,
    part: Part,
}

impl Trial {
    pub(super) async fn set_up(
        kind: Kind,
        folder: &Path,
        programs: Programs,
        args: &Args,
        tools: &Tools,
    ) -> anyhow::Result<Self> {
        let mut ground = Ground::at(folder, programs)?;
        let core_disk = Disk::make(kind, &ground.dir.join("core-disk"), tools).await?;
        let agent_disk = Disk::make(kind, &ground.dir.join("agent-disk"), tools).await?;
        ground.data_dir = ground.dir.join("core-disk/data");
        ground.state = ground.dir.join("agent-disk/state");
        let mut outside = ground.pipe();
        (outside.stream, outside.pipeline) = (STREAM.into(), PIPELINE.into());
        let mut inside = outside.clone();
        inside.name = "inside".into();
        inside.database = ground.dir.join("core-disk/inside.sqlite");
        ground.write_core(LOG, &[outside.clone(), inside.clone()])?;
        ground.write_agent(ground.gateway, SHIP)?;
        ground.make_certificates().await?;
        let mut rig = Rig::new(ground);
        if let Some(canary) = args.canary {
            rig.core_environment.push(("GARAM_CANARY", canary.name().into()));
        }
        let Args { rounds, seed, rate, canary, .. } = *args;
        let rng = Rng::with_seed(seed ^ kind as u64);
        let part = Part::new(kind);
        Ok(Self {
            rig,
            core_disk,
            agent_disk,
            inside,
            outside,
            rng,
            rounds,
            seed,
            rate,
            canary,
            part,
        })
    }

    pub(super) async fn play(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.rig.start_core()?;
        self.rig.core_ready().await?;
        self.rig.start_agent()?;
        let logs = &self.rig.ground.logs;
        let generator = Generator::start_without_rotations(logs, self.seed, self.rate);
        let mut records = 0;
        for round in 1..=self.rounds {
            records = self.rig.progress(records, PATIENCE).await?;
            let cut = Cut::derive(&mut self.rng);
            self.round(cut, report).await.with_context(|| format!("round {round}"))?;
            generator.check()?;
            self.part.rounds += 1;
            let (kind, why) = (self.part.fs.name(), if report.is_clean() { "" } else { "  BAD" });
            say(&format!("{kind} round {round} of {}: {cut:?}{why}", self.rounds));
            if report.is_over() {
                report.parts.push(self.part.clone());
                return Ok(());
            }
        }
        let book = generator.finish().await?;
        self.drain(report, 2 * book.len()).await?;
        for wrong in self.rig.stop().await {
            report.complain(wrong);
        }
        for pipe in [&self.outside, &self.inside] {
            let found = judge::judge(&self.rig.ground, &pipe.name, &pipe.database, &book).await?;
            report.add(self.part.fs, &pipe.name, &found);
        }
        self.part.generated = book.len();
        report.parts.push(self.part.clone());
        Ok(())
    }

    /// One cut, from a busy pipeline to a busy pipeline.
    async fn round(&mut self, cut: Cut, report: &mut Report) -> anyhow::Result<()> {
        sleep(cut.after).await;
        self.rig.check()?;
        let mut promises = Promises::note(&self.rig.ground, &self.inside.database).await?;
        self.rig.freeze().await?;
        if cut.core {
            self.core_disk.cut().await?;
        }
        if cut.agent {
            self.agent_disk.cut().await?;
        }
        self.rig.kill_what_lives().await?;
        self.core_disk.mount_again().await?;
        self.agent_disk.mount_again().await?;
        self.look(&mut promises, report).await?;
        if report.is_over() {
            return Ok(());
        }
        self.read(&promises, report).await?;
        if report.is_over() {
            return Ok(());
        }
        report.restarts += 2;
        self.rig.start_core()?;
        self.rig.start_agent()?;
        let ready = self.rig.core_ready().await;
        if let Err(error) = ready {
            report.restarts_failed += 1;
            report.complain(format!("{error:#}"));
        }
        Ok(())
    }

    /// What lies on the disks, before anything runs that could mend it.
    async fn look(&mut self, promises: &mut Promises, report: &mut Report) -> anyhow::Result<()> {
        let ground = &self.rig.ground;
        let verified = ground.garam(&["log", "verify", "-o", "json"]).await;
        let verified: Vec<Verified> = match verified {
            Ok(text) => serde_json::from_slice(&text).context("`log verify` prints otherwise")?,
            Err(error) => {
                report.damaged += 1;
                report.complain(format!("{error:#}"));
                Vec::new()
            }
        };
        report.damaged += verified.iter().filter(|partition| !partition.ok).count() as u64;
        self.part.torn_tails += verified.iter().filter(|found| found.torn.is_some()).count() as u64;
        // The quarantines lie there, too, but no cursor of these stands in them.
        let verified: Vec<_> =
            verified.into_iter().filter(|found| found.stream == self.outside.name).collect();
        let end: u64 = verified.iter().map(|partition| partition.end).sum();
        if end < promises.end {
            report.regress(format!("the log ends at {end}, and ended durably at {}", promises.end));
        }
        for pipe in [&self.outside, &self.inside] {
            let copy = copy_of(pipe, &ground.dir)?;
            for (partition, next) in database::read_cursors(&copy).await? {
                let end = verified.iter().find(|found| found.partition == partition);
                let end = end.map_or(0, |found| found.end);
                if let Some(beyond) = u64::try_from(next)?.checked_sub(end).filter(|by| *by > 0) {
                    report.phantoms += beyond;
                    report.complain(format!(
                        "{}: the cursor of partition {partition} stands {beyond} entries beyond the log",
                        pipe.name
                    ));
                }
            }
            if pipe.name == self.outside.name {
                promises.outside = database::read_ids(&copy).await?;
            } else {
                let before = promises.inside;
                let after = database::extent(&copy, Some(before.newest)).await?;
                if after.rows < before.rows {
                    let gone = before.rows - after.rows;
                    report.regress(format!("{gone} committed rows are gone from {}", pipe.name));
                }
            }
        }
        self.look_at_checkpoint(promises, report)
    }

    fn look_at_checkpoint(
        &self,
        promises: &mut Promises,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let Some(found) = agent::checkpoint(&self.rig.ground.state)? else {
            report.regress("neither generation of the checkpoint is whole".into());
            return Ok(());
        };
        for (generation, settled) in &promises.checkpoint {
            let now = found.get(generation).map(|frontier| frontier.mark);
            if now.is_none_or(|now| now < settled.mark) {
                let before = settled.mark;
                report.regress(format!("checkpoint of {generation}: {before}, then {now:?}"));
            }
        }
        // What it says was acknowledged, too: it is written behind an answer.
        promises.hear(found);
        Ok(())
    }

    /// The core alone delivers what its log holds: that is what can be read.
    async fn read(&mut self, promises: &Promises, report: &mut Report) -> anyhow::Result<()> {
        report.restarts += 1;
        self.rig.start_core()?;
        self.drain(report, 0).await?;
        if let Err(error) = self.rig.stop_core().await {
            report.restarts_failed += 1;
            report.complain(format!("{error:#}"));
        }
        let acknowledged = promises.acknowledged_ids()?;
        self.part.acknowledged += acknowledged.len() as u64;
        self.part.delivered_at_cuts += promises.outside.len() as u64;
        for pipe in [&self.outside, &self.inside] {
            let there = readable(&self.rig.ground, pipe).await?;
            for id in acknowledged.iter().filter(|id| !there.contains(id)) {
                report.lose(format!("{id} was acknowledged and is not in {}", pipe.name));
            }
            for id in promises.outside.iter().filter(|id| !there.contains(id)) {
                report.lose(format!("{id} was delivered and is not in {}", pipe.name));
            }
        }
        Ok(())
    }

    /// Waits until the log is delivered, and at least so many records.
    async fn drain(&mut self, report: &mut Report, records: u64) -> anyhow::Result<()> {
        let patience = if self.canary.is_some() { CANARY_DRAINING } else { DRAINING };
        let deadline = Instant::now() + patience;
        loop {
            self.rig.check()?;
            let status = admin::status(self.rig.ground.admin).await.ok();
            let drained = status.as_ref().is_some_and(|status| {
                status.is_drained() && status.counters().settled() >= records
            });
            if drained {
                return Ok(());
            }
            if Instant::now() > deadline {
                let why = status.map(|status| (status.counters().settled(), status.why));
                report.complain(format!("not drained after {patience:?}: {why:?}"));
                return Ok(());
            }
            sleep(GLANCE).await;
        }
    }
}
