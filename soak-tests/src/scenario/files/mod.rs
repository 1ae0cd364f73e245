//! What files do on bad days: the scenarios of `docs/scenarios.md`, each with the real core and the real agent.
//!
//! In: a scenario. Out: a [`Report`](report::Report). Promise: every record is counted by id at the destination, and the agent's ledger of every file
//! balances at each rest; the story waits for what it needs to have happened, never for a time, except where time is the point.
//!
//! | file | subject |
//! |---|---|
//! | [`trial`] | writing, waiting, judging: what all stories share |
//! | [`ledger`] | what the agent says of each file |
//! | [`identity`] | which file is it |
//! | [`rotation`] | files that move, stay open, vanish |
//! | [`compressed`] | files that are compressed |
//! | [`lines`] | lines without end, long lines, holes |
//! | [`state`] | kills, torn state, a core that is away, reloads |
//! | [`many`] | far more files than descriptors, and what they cost when idle |
//! | [`sockets`] | what comes over a connection and is kept in the agent's spool, files of its own |
//! | [`report`] | the counts |

mod compressed;
mod identity;
mod ledger;
mod lines;
mod many;
mod report;
mod rotation;
mod sockets;
mod state;
mod trial;

use crate::cli::say;
use crate::ground::{Ground, Programs};
use crate::scenario::Verdict as _;
use crate::scenario::home::{Home, Place};
use report::Report;
use trial::Trial;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Decides what is written.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    #[command(flatten)]
    home: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManyArgs {
    /// How many files lie there.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    files: u32,
    /// How many descriptors each process may have.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(200..=1_000_000))]
    descriptors: u64,
    /// For how long the idle agent is measured.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    idle_seconds: u64,
    #[command(flatten)]
    args: Args,
}

/// What happens to files.
#[derive(Debug, clap::Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum Files {
    /// H1, H2, H4: another file in the inode, longer, shorter, with an equal head
    FileInodeReused(Args),
    /// H6: truncate and fill a file again while the agent is down
    FileTruncatedWhileDown(Args),
    /// H8: rename a file while the agent is down, and write both
    FileRenamedWhileDown(Args),
    /// H9: write on in a file that left the globs eight seconds ago
    FileLateWriter(Args),
    /// H10, H11: rotate again and again, and unlink, while no core answers
    FileRotatedUnderStall(Args),
    /// H18: compress rotated files, read and unread, with gzip and zstd
    FileCompressed(Args),
    /// H12: kill -9 the agent in the middle of a line
    FilePartialLine(Args),
    /// H13, H25: kill and stop the agent while no core answers
    FileCoreAway(Args),
    /// H15: one tiny line and nothing more
    FileTiny(Args),
    /// H16: a line of 3 MB between short ones
    FileLongLine(Args),
    /// H19: tear the checkpoint at many places
    FileTornCheckpoint(Args),
    /// H24: change limits by SIGHUP while data waits
    FileReloaded(Args),
    /// H31, H32: files older than `ignore_older`, restarts, one line after a long idle
    FileOld(Args),
    /// H34, H35: links, overlapping tables, and what is no file
    FileLinks(Args),
    /// H36: very many idle files under few descriptors, five hot ones, and what idling costs
    FileMany(ManyArgs),
    /// H42: a second agent on the state folder
    FileTwoAgents(Args),
    /// H44: a hole at the end that becomes real bytes
    FileHole(Args),
    /// kill -9 the agent while syslog comes over TCP, with and without a core
    Syslog(Args),
}

impl Files {
    pub(super) async fn run(self, programs: Programs) -> anyhow::Result<Report> {
        let name = self.name();
        let home = Home::make(&self.args().home)?;
        let ground = Ground::at(home.path(), programs)?;
        let mut trial = Trial::new(ground, self.args().seed);
        let outcome = match self.play(&mut trial).await {
            Ok(()) => trial.finish(name).await,
            Err(error) => Err(error),
        };
        let good = outcome.as_ref().is_ok_and(Report::ok);
        if !good {
            say(&trial.rig.last_words());
        }
        home.leave(good);
        outcome
    }

    async fn play(&self, trial: &mut Trial) -> anyhow::Result<()> {
        match self {
            Self::FileInodeReused(_) => identity::inode_reused(trial).await,
            Self::FileTruncatedWhileDown(_) => identity::truncated_while_down(trial).await,
            Self::FileLinks(_) => identity::links(trial).await,
            Self::FileRenamedWhileDown(_) => rotation::renamed_while_down(trial).await,
            Self::FileLateWriter(_) => rotation::late_writer(trial).await,
            Self::FileRotatedUnderStall(_) => rotation::rotated_under_stall(trial).await,
            Self::FileCompressed(_) => compressed::compressed(trial).await,
            Self::FilePartialLine(_) => lines::partial_line(trial).await,
            Self::FileTiny(_) => lines::tiny(trial).await,
            Self::FileLongLine(_) => lines::long_line(trial).await,
            Self::FileHole(_) => lines::hole(trial).await,
            Self::Syslog(_) => sockets::syslog(trial).await,
            Self::FileCoreAway(_) => state::core_away(trial).await,
            Self::FileTornCheckpoint(_) => state::torn_checkpoint(trial).await,
            Self::FileReloaded(_) => state::reloaded(trial).await,
            Self::FileOld(_) => state::old(trial).await,
            Self::FileTwoAgents(_) => state::two_agents(trial).await,
            Self::FileMany(many) => many::many(trial, many).await,
        }
    }

    fn args(&self) -> &Args {
        match self {
            Self::FileMany(many) => &many.args,
            Self::FileInodeReused(args)
            | Self::FileTruncatedWhileDown(args)
            | Self::FileLinks(args)
            | Self::FileRenamedWhileDown(args)
            | Self::FileLateWriter(args)
            | Self::FileRotatedUnderStall(args)
            | Self::FileCompressed(args)
            | Self::FilePartialLine(args)
            | Self::FileTiny(args)
            | Self::FileLongLine(args)
            | Self::FileHole(args)
            | Self::Syslog(args)
            | Self::FileCoreAway(args)
            | Self::FileTornCheckpoint(args)
            | Self::FileReloaded(args)
            | Self::FileOld(args)
            | Self::FileTwoAgents(args) => args,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::FileInodeReused(_) => "file_inode_reused",
            Self::FileTruncatedWhileDown(_) => "file_truncated_while_down",
            Self::FileLinks(_) => "file_links",
            Self::FileRenamedWhileDown(_) => "file_renamed_while_down",
            Self::FileLateWriter(_) => "file_late_writer",
            Self::FileRotatedUnderStall(_) => "file_rotated_under_stall",
            Self::FileCompressed(_) => "file_compressed",
            Self::FilePartialLine(_) => "file_partial_line",
            Self::FileTiny(_) => "file_tiny",
            Self::FileLongLine(_) => "file_long_line",
            Self::FileHole(_) => "file_hole",
            Self::FileCoreAway(_) => "file_core_away",
            Self::FileTornCheckpoint(_) => "file_torn_checkpoint",
            Self::FileReloaded(_) => "file_reloaded",
            Self::FileOld(_) => "file_old",
            Self::FileTwoAgents(_) => "file_two_agents",
            Self::FileMany(_) => "file_many",
            Self::Syslog(_) => "syslog",
        }
    }
}
