//! `[[journal]]`: entries of the systemd journal, as lines of JSON in a spool.
//!
//! ```text
//! journalctl --output=export --follow --cursor=… ─► export (fields) ─► entry (one line of JSON) ─► batch ─► Inlet
//!        ▲                                                                                            │
//!        └───────────────────────── cursor of the last spooled line ◄─────────────────────────────────┘
//! ```
//!
//! In: a [`JournalPlan`]. Out: batches of lines; each begins with the entry's cursor. Promise: reading goes on behind the last
//! entry that is spooled, so that each is spooled once, also after a kill; where the journal has lost that entry, this is
//! counted and said; a `journalctl` that ends or is not there is started again, less and less often.
//! Here: the child's life and where it goes on. In `command` what it is called with, in `export` its output, in `entry` how an
//! entry becomes a line. Not here: the journal's files, which only systemd's own code reads.

mod command;
mod entry;
mod export;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::watch;

pub use entry::cursor_of;
use export::{Corrupt, Export};

use crate::config::StartAt;
use crate::source::spool::{Batch, Inlet, SpoolPlan};

/// The lines that the journal's export format becomes; none when it is not that format.
pub fn lines_of<'a>(pieces: impl Iterator<Item = &'a [u8]>, max_field: usize) -> Option<Vec<u8>> {
    let (mut export, mut batch) = (Export::new(max_field), Batch::default());
    for piece in pieces {
        export.feed(piece, &mut |entry| entry::add(&entry, &mut batch)).ok()?;
    }
    Some(batch.bytes)
}

const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);
const BUFFER: usize = 64 * 1024;

/// One `[[journal]]` table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalPlan {
    pub spool: SpoolPlan,
    pub units: Vec<String>,
    pub priority: Option<String>,
    pub directory: Option<PathBuf>,
    pub files: Vec<PathBuf>,
    pub matches: Vec<String>,
    /// Where reading begins when nothing was ever spooled.
    pub start_at: StartAt,
    /// The longest value of a field, bytes; the rest of a longer one is cut off.
    pub max_field: usize,
    pub journalctl: PathBuf,
}

/// The longest line an entry can become, its end included.
pub const LONGEST_LINE: usize = export::MOST_BYTES * entry::GROWTH + export::MOST_FIELDS * 8 + 64;

/// Why a child is done.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(
        "cannot start {program}: {source}; install systemd, or name the program with `journalctl`"
    )]
    Start { program: PathBuf, source: std::io::Error },
    #[error("cannot read from journalctl: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("journalctl ended: {0}")]
    Exit(std::process::ExitStatus),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error("the agent stops")]
    Stopped,
}

/// Follows the journal until told to stop.
pub async fn run(plan: JournalPlan, inlet: Inlet, stop: watch::Receiver<bool>) {
    let cursor = inlet.spool.note().and_then(|note| String::from_utf8(note).ok());
    let mut following = Following { plan, inlet, stop, cursor, missed: None };
    let mut pause = SOONEST;
    loop {
        let before = following.cursor.clone();
        let ended = match following.follow().await {
            Ok(Ended::Stopped) | Err(Ended::Stopped) => return,
            Ok(ended) | Err(ended) => ended,
        };
        if following.cursor != before {
            pause = SOONEST;
        }
        tracing::warn!(source = %following.plan.spool.name, error = %ended, retry_in = ?pause, "cannot follow the journal");
        if following.stops_within(pause).await {
            return;
        }
        pause = (pause * 2).min(LATEST);
    }
}

struct Following {
    plan: JournalPlan,
    inlet: Inlet,
    stop: watch::Receiver<bool>,
    /// Of the last entry that was handed to the spool.
    cursor: Option<String>,
    /// A cursor that was found missing and counted already.
    missed: Option<String>,
}

impl Following {
    /// Runs one child to its end.
    async fn follow(&mut self) -> Result<Ended, Ended> {
        self.find_place().await?;
        let mut child = self.spawn()?;
        let stdout = child.stdout.take();
        let complaints = child.stderr.take().map(|stderr| tokio::spawn(tell(stderr)));
        let ended = match stdout {
            Some(stdout) => self.take_in(stdout, &mut child).await,
            None => Err(Ended::Pipe(std::io::ErrorKind::BrokenPipe.into())),
        };
        // Killed when it still runs; waited for in any case, so that no dead child is left.
        child.kill().await.ok();
        if let Some(complaints) = complaints {
            complaints.abort();
        }
        ended
    }

    /// Makes sure that the journal still has the entry to go on behind, and counts when it has not.
    async fn find_place(&mut self) -> Result<(), Ended> {
        let Some(cursor) = self.cursor.clone() else {
            if self.plan.start_at == StartAt::End {
                self.cursor = self.ask(None).await?;
                // Kept at once: after a kill "the end" would be another.
                if let Some(cursor) = &self.cursor {
                    self.inlet.spool.keep_note(cursor.as_bytes().to_vec())?;
                }
            }
            return Ok(());
        };
        if self.missed.as_ref() != Some(&cursor)
            && self.ask(Some(&cursor)).await?.as_ref() != Some(&cursor)
        {
            self.inlet.spool.counts.gap();
            tracing::error!(
                source = %self.plan.spool.name, cursor,
                action = "raise the journal's SystemMaxUse, or see why the agent was behind",
                "the journal has dropped the entry to go on behind: entries were lost, reading goes on at the oldest one after it"
            );
            self.missed = Some(cursor);
        }
        Ok(())
    }

    /// The cursor of the newest entry, or of the one that stands where this cursor was.
    async fn ask(&self, cursor: Option<&str>) -> Result<Option<String>, Ended> {
        let mut command = command::one(&self.plan, cursor);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = output.await.map_err(|source| self.no_start(source))?;
        if !output.status.success() && output.stdout.is_empty() && cursor.is_none() {
            return Err(Ended::Exit(output.status));
        }
        let mut found = None;
        let mut export = Export::new(export::MOST_BYTES);
        export.feed(&output.stdout, &mut |entry| {
            found = entry::cursor(&entry).map(str::to_owned);
        })?;
        Ok(found)
    }

    fn spawn(&self) -> Result<Child, Ended> {
        let mut command = command::follow(&self.plan, self.cursor.as_deref());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().map_err(|source| self.no_start(source))
    }

    fn no_start(&self, source: std::io::Error) -> Ended {
        Ended::Start { program: self.plan.journalctl.clone(), source }
    }

    async fn take_in(
        &mut self,
        mut stdout: ChildStdout,
        child: &mut Child,
    ) -> Result<Ended, Ended> {
        let mut export = Export::new(self.plan.max_field);
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = tokio::select! {
                read = stdout.read(&mut buffer) => read?,
                _ = self.stop.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
            };
            if read == 0 {
                return Ok(Ended::Exit(child.wait().await?));
            }
            let mut batch = Batch::default();
            let (mut cut, mut nameless) = (0, false);
            let cursor = &mut self.cursor;
            export.feed(buffer.get(..read).unwrap_or_default(), &mut |entry| {
                match entry::cursor(&entry) {
                    // The one to go on behind is the first that comes.
                    Some(found) if cursor.as_deref() == Some(found) => {}
                    Some(found) => {
                        *cursor = Some(found.to_owned());
                        entry::add(&entry, &mut batch);
                        cut += u64::from(entry.cut);
                    }
                    None => nameless = true,
                }
            })?;
            self.inlet.spool.counts.cut(cut);
            self.inlet.put(batch).await;
            if nameless {
                return Err(Corrupt::NoCursor.into());
            }
        }
    }

    async fn stops_within(&mut self, pause: Duration) -> bool {
        let stopped = self.stop.wait_for(|stop| *stop);
        tokio::time::timeout(pause, stopped).await.is_ok()
    }
}

/// Passes on what journalctl complains about.
async fn tell(mut stderr: ChildStderr) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
        tracing::warn!(text = text.trim_end(), "journalctl says");
    }
}
