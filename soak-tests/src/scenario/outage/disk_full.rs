//! The core's disk and the agent's run full, of bytes and of inodes, while records keep coming.
//!
//! In: a seed, a rate. Out: a [`Report`] with the time each outage took to be felt and to heal. Promise: the core must say
//! that it is full and the agent that it cannot write its checkpoint; neither may end of it; when there is room again both go
//! on without anybody's hand. The sources and the destination lie elsewhere.
//! Not here: a core that starts on a full disk; its partition stays stopped until it is started again with room.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ballast::{Ballast, Room};
use super::report::{Outage, Report};
use super::{Args, FELT, GLANCE, HEALED, until};
use crate::cli::say;
use crate::generate::Generator;
use crate::ground::{Ground, Programs};
use crate::mounts::Tmpfs;
use crate::rig::Rig;
use crate::scenario::Verdict as _;
use crate::scenario::home::Home;
use crate::scenario::judge;

/// The core's disk, and its agent's.
const CORE: (u32, u32) = (256, 1_024);
const AGENT: (u32, u32) = (16, 128);
/// How long a disk stays full once that is felt.
const LASTING: Duration = Duration::from_secs(2);

/// Small segments: each new one needs an inode.
const LOG: &str = "segment_size = \"1MiB\"";
const STREAM: &str = "partitions = 1\nquota = \"128MiB\"\nretain = \"1h\"";
const SHIP: &str = "[ship]\ncodec = \"none\"\n";
/// What the agent says when it cannot write.
const AGENT_SAYS: &str = "cannot write checkpoint";

struct Phase {
    name: &'static str,
    core: Option<Room>,
    agent: Option<Room>,
    /// The core is killed once it has felt it, and started again.
    start: Option<Start>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// On the room that the core gave up.
    OnReserve,
    /// That is taken by somebody else too.
    OnNothing,
}

const fn phase(
    name: &'static str,
    core: Option<Room>,
    agent: Option<Room>,
    start: Option<Start>,
) -> Phase {
    Phase { name, core, agent, start }
}

const PHASES: [Phase; 6] = [
    phase("core without bytes", Some(Room::Bytes), None, None),
    phase("core without inodes", Some(Room::Inodes), None, None),
    phase("core started on its reserve", Some(Room::Bytes), None, Some(Start::OnReserve)),
    phase("core started on a full disk", Some(Room::Bytes), None, Some(Start::OnNothing)),
    phase("agent without bytes", None, Some(Room::Bytes), None),
    phase("agent without inodes", None, Some(Room::Inodes), None),
];

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    let home = Home::make(&args.home)?;
    let mut ground = Ground::at(home.path(), programs)?;
    let core = Tmpfs::make(&ground.dir.join("core-disk"), CORE.0, CORE.1)?;
    let agent = Tmpfs::make(&ground.dir.join("agent-disk"), AGENT.0, AGENT.1)?;
    ground.data_dir = core.folder().join("data");
    ground.state = agent.folder().join("state");
    let mut pipe = ground.pipe();
    pipe.stream = STREAM.into();
    ground.write_core(LOG, &[pipe])?;
    ground.write_agent(ground.gateway, SHIP)?;
    ground.make_certificates().await?;
    let mut trial = Trial { rig: Rig::new(ground), core, agent, healthy_before: 0 };
    let mut report = Report::new("disk_full", args.seed);
    let outcome = trial.play(args, &mut report).await;
    report.conclude(PHASES.len());
    if outcome.is_err() || !report.ok() {
        say(&trial.rig.last_words());
    }
    home.leave(outcome.is_ok() && report.ok());
    outcome.map(|()| report)
}

/// The processes end before the disks.
struct Trial {
    rig: Rig,
    core: Tmpfs,
    agent: Tmpfs,
    /// Records the pipeline had taken in when the last outage began.
    healthy_before: u64,
}

impl Trial {
    async fn play(&mut self, args: &Args, report: &mut Report) -> anyhow::Result<()> {
        self.rig.start_core()?;
        self.rig.core_ready().await?;
        self.rig.start_agent()?;
        let logs = &self.rig.ground.logs;
        let generator = Generator::start_without_rotations(logs, args.seed, args.rate);
        for phase in &PHASES {
            self.healthy_before = self.rig.progress(self.healthy_before, HEALED).await?;
            let outage = self.strike(phase).await?;
            say(&outage.to_string());
            let healed = outage.healed_s.is_some();
            report.outages.push(outage);
            generator.check()?;
            if !healed {
                break;
            }
        }
        let book = generator.finish().await?;
        let written = book.len();
        let arrived =
            until(&mut self.rig, HEALED, |status| status.counters().settled() >= written).await?;
        if !arrived {
            report.why.push(format!("not all of {written} records arrived"));
        }
        report.why.extend(self.rig.stop().await);
        let ground = &self.rig.ground;
        let name = ground.pipe().name;
        let found = judge::judge(ground, &name, &ground.database, &book).await?;
        report.add(&name, written, &found);
        Ok(())
    }

    async fn strike(&mut self, phase: &Phase) -> anyhow::Result<Outage> {
        let said = self.agent_said()?;
        let began = Instant::now();
        let fill = |room: Option<Room>, disk: &Tmpfs| {
            room.map(|room| Ballast::fill(disk.folder(), room)).transpose()
        };
        let mut ballast = vec![fill(phase.core, &self.core)?, fill(phase.agent, &self.agent)?];
        let mut felt = true;
        if phase.core.is_some() {
            felt &= self.core_feels_it().await?;
        }
        if let Some(start) = phase.start {
            self.rig.kill_core().await?;
            if start == Start::OnNothing {
                ballast.push(fill(phase.core, &self.core)?);
            }
            self.rig.restart_core()?;
            match start {
                Start::OnReserve => self.rig.core_ready().await?,
                // Not ready before there is room, but it answers and says why.
                Start::OnNothing => felt &= self.core_feels_it().await?,
            }
        }
        if phase.agent.is_some() && phase.core.is_none() {
            felt &= self.agent_says_so_again(said).await?;
        }
        let felt_s = felt.then(|| began.elapsed().as_secs_f64());
        sleep(LASTING).await;
        self.rig.check()?;
        let freed = Instant::now();
        for ballast in ballast.into_iter().flatten() {
            ballast.free()?;
        }
        // Healthy again, and delivering what came meanwhile.
        let before = self.rig.progress(0, HEALED).await?;
        let healed = until(&mut self.rig, HEALED, |status| {
            status.why.is_empty() && status.counters().records_in > before
        });
        let healed_s = healed.await?.then(|| freed.elapsed().as_secs_f64());
        Ok(Outage { name: phase.name, felt_s, healed_s })
    }

    async fn core_feels_it(&mut self) -> anyhow::Result<bool> {
        let full = |why: &Vec<String>| {
            why.iter().any(|why| why.contains("disk is full") || why.contains("free space"))
        };
        until(&mut self.rig, FELT, |status| full(&status.why)).await
    }

    fn agent_said(&self) -> anyhow::Result<usize> {
        let log = std::fs::read_to_string(self.rig.ground.dir.join("agent.log"))?;
        Ok(log.matches(AGENT_SAYS).count())
    }

    async fn agent_says_so_again(&mut self, said: usize) -> anyhow::Result<bool> {
        let deadline = Instant::now() + FELT;
        while self.agent_said()? <= said {
            self.rig.check()?;
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(GLANCE).await;
        }
        Ok(true)
    }
}
