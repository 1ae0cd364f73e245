//! The registry of what `garam-soak run` can do: one line per scenario here, one file or folder per subject beside it.
//!
//! In: a scenario with its own arguments. Out: an [`Outcome`], good or not, for people and for programs. Promise: the oracle
//! looks only after everything has healed and the processes have stopped; a run that cannot be judged is an error, never a
//! good outcome. Not here: what a scenario does.
//!
//! | file | subject |
//! |---|---|
//! | [`crash_points`] | a fault at every single call on files, of the core and of the agent |
//! | [`refine`] | formats, contracts and what breaks them: put aside, mended, requeued |
//! | [`plan_change`] | definitions that change under load, and kills in the middle of it |
//! | [`hostile`] | every bad peer against the doors, while an honest agent ships |
//! | [`identity`] | how hosts become agents and stay so: certificates under load, enrolments that are cut |
//! | [`replay`] | a table that lost rows, made whole from the log under kills |
//! | [`restore`] | a core or a destination restored from an older copy |
//! | [`outage`] | a disk without room, a destination that is locked; both come back |
//! | [`power_loss`] | the disk is taken away under a busy core, again and again |
//! | [`secrets`] | secrets and hostile names, and everything that is said is searched for them |
//! | [`files`] | what files do on bad days: the stories of `docs/scenarios.md` |
//! | [`sink_faults`] | kills, cuts, lost replies, deadlocks and a second core around a database's COMMIT |
//! | [`torment`] | kills, cut links, lost state and wrong clocks, at seeded moments of a busy run |

mod crash_points;
mod files;
mod findings;
pub(crate) mod home;
mod hostile;
mod identity;
mod ids;
mod judge;
mod outage;
mod plan_change;
mod power_loss;
mod refine;
mod replay;
mod restore;
mod secrets;
mod sink_faults;
mod torment;

use std::fmt::Display;

use serde::Serialize;

use crate::ground::Programs;
use restore::Lost;
use torment::Torment;

/// What is done to the product.
#[derive(Debug, clap::Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// Nothing is done to it
    Steady(torment::Args),
    /// kill -9 the agent about once a second, at times while it starts
    AgentKilled(torment::Args),
    /// kill -9 the core about once a second, at times while it starts
    CoreKilled(torment::Args),
    /// Cut, stall, swallow, slow and refuse connections between them
    LinkCut(torment::Args),
    /// Kill the agent and remove its state while files rotate
    AgentStateLost(torment::Args),
    /// Set the wall clocks of the core and the agent forward and back, by minutes and by years
    ClocksJump(torment::Args),
    /// Kill, or fail, at every single call with which the core or the agent changes its files
    CrashPoints(crash_points::Args),
    /// Lose the core while records go on, and restore it from an older backup
    RestoreCoreOlder(restore::Args),
    /// Put an older copy in the destination's place
    RestoreDestinationOlder(restore::Args),
    /// Put a copy in the destination's place that is older than what the log still holds
    RestoreDestinationTooOld(restore::Args),
    /// Take the disks of the core and the agent away while a pipeline reads, on ext4 and XFS
    PowerLoss(power_loss::Args),
    /// Let the disks of the core and the agent run full, of bytes and of inodes, and make room again
    DiskFull(outage::Args),
    /// Lock a destination until its stream's quota is used up, beside one that must not notice
    DestinationDown(outage::destination_down::Args),
    /// Every bad peer against the gateway and the enrolment port, while an honest agent ships
    Hostile(hostile::Args),
    /// Everything that can go wrong around a COMMIT, in a real database
    SinkFaults(sink_faults::Args),
    /// Renew, revoke, recover and replace the agent's certificate while it ships
    CertChurn(identity::cert_churn::Args),
    /// Kill an enrolment at every single call on files, and enrol again with the same token
    EnrolKilled(identity::enrol_killed::Args),
    /// Map three formats onto one contract under kills, put what breaks it aside, mend it, requeue
    Refine(refine::Args),
    /// Change definitions by SIGHUP under load, and kill the core in the middle of it
    PlanChange(plan_change::Args),
    /// Remove rows of a table, replay the log, and kill the core in the middle of it
    Replay(replay::Args),
    /// Put secrets and hostile names wherever they can go, and search everything that is said for them
    Secrets(secrets::Args),
    #[command(flatten)]
    Files(files::Files),
}

impl Scenario {
    /// Whether it needs file systems of its own.
    pub(crate) fn mounts(&self) -> bool {
        matches!(self, Self::PowerLoss(_) | Self::DiskFull(_))
    }

    pub(crate) async fn run(self, programs: Programs) -> anyhow::Result<Outcome> {
        match self {
            Self::CrashPoints(args) => Outcome::of(&crash_points::run(&args, programs).await?),
            Self::RestoreCoreOlder(args) => {
                Outcome::of(&restore::run(Lost::CoreOlder, &args, programs).await?)
            }
            Self::RestoreDestinationOlder(args) => {
                Outcome::of(&restore::run(Lost::DestinationOlder, &args, programs).await?)
            }
            Self::RestoreDestinationTooOld(args) => {
                Outcome::of(&restore::run(Lost::DestinationTooOld, &args, programs).await?)
            }
            Self::Hostile(args) => Outcome::of(&hostile::run(&args, programs).await?),
            Self::CertChurn(args) => {
                Outcome::of(&identity::cert_churn::run(&args, programs).await?)
            }
            Self::EnrolKilled(args) => {
                Outcome::of(&identity::enrol_killed::run(&args, programs).await?)
            }
            Self::Secrets(args) => Outcome::of(&secrets::run(&args, programs).await?),
            Self::SinkFaults(args) => Outcome::of(&sink_faults::run(&args, programs).await?),
            Self::DiskFull(args) => Outcome::of(&outage::disk_full::run(&args, programs).await?),
            Self::DestinationDown(args) => {
                Outcome::of(&outage::destination_down::run(&args, programs).await?)
            }
            Self::Refine(args) => Outcome::of(&refine::run(&args, programs).await?),
            Self::Replay(args) => Outcome::of(&replay::run(&args, programs).await?),
            Self::PlanChange(args) => Outcome::of(&plan_change::run(&args, programs).await?),
            Self::Files(story) => Outcome::of(&story.run(programs).await?),
            Self::PowerLoss(args) => Outcome::of(&power_loss::run(&args, programs).await?),
            Self::Steady(args) => {
                Outcome::of(&torment::run(Torment::Steady, &args, programs).await?)
            }
            Self::AgentKilled(args) => {
                Outcome::of(&torment::run(Torment::AgentKilled, &args, programs).await?)
            }
            Self::CoreKilled(args) => {
                Outcome::of(&torment::run(Torment::CoreKilled, &args, programs).await?)
            }
            Self::LinkCut(args) => {
                Outcome::of(&torment::run(Torment::LinkCut, &args, programs).await?)
            }
            Self::ClocksJump(args) => {
                Outcome::of(&torment::run(Torment::ClocksJump, &args, programs).await?)
            }
            Self::AgentStateLost(args) => {
                Outcome::of(&torment::run(Torment::AgentStateLost, &args, programs).await?)
            }
        }
    }
}

/// What a scenario ends with: prints as a table, and as one object.
pub(crate) trait Verdict: Serialize + Display {
    /// Whether all was as promised.
    fn ok(&self) -> bool;
}

/// A verdict of any scenario, ready to be printed.
pub(crate) struct Outcome {
    pub(crate) ok: bool,
    pub(crate) json: String,
    pub(crate) text: String,
}

impl Outcome {
    fn of(verdict: &impl Verdict) -> anyhow::Result<Self> {
        let json = serde_json::to_string(verdict)?;
        Ok(Self { ok: verdict.ok(), json, text: verdict.to_string() })
    }
}
