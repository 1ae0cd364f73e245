//! Appends to a spool: one thread per spool, which may block on the disk.
//!
//! In: batches from the queue. Out: synced lines in segment files. Promise: a batch is written as soon as it comes, so that it
//! survives the end of the process, and synced after `sync` or 1 MiB, whichever is first: only then may it be shipped, and
//! only then does it survive a power cut. A write or a sync that fails loses nothing: the segment ends at what was synced,
//! everything since is kept in memory and written to a new segment, again and again until the disk takes it; until
//! then nothing is taken in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_disk::DiskFile;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::counts::add;
use super::{Batch, Inlet, Segment, Spool, segment};

/// Batches that wait for the writer.
const QUEUE: usize = 16;
/// So many bytes are not left without a sync.
const GROUP: usize = 1024 * 1024;
const RETRY: Duration = Duration::from_secs(1);

pub struct Writer {
    spool: Arc<Spool>,
    sync: Duration,
    open: Option<Open>,
    /// Everything that is not synced yet, in memory too.
    tail: Vec<u8>,
    messages: u64,
    /// Of the tail, where the spool takes notes.
    last_line: Option<Vec<u8>>,
    /// How much of the tail is written.
    written: usize,
    since: Option<Instant>,
}

/// The segment that grows.
struct Open {
    number: u64,
    file: Arc<dyn DiskFile>,
    synced: u64,
}

/// Fires when a writer has ended, with everything synced that it was given.
pub type Written = oneshot::Receiver<()>;

impl Writer {
    /// Starts a writer; it ends when all inlets are gone.
    pub fn start(spool: Arc<Spool>, sync: Duration) -> io::Result<(Inlet, Written)> {
        let (queue, incoming) = mpsc::channel(QUEUE);
        let (done, written) = oneshot::channel();
        let inlet = Inlet { spool: spool.clone(), queue };
        let writer = Self {
            spool,
            sync,
            open: None,
            tail: Vec::new(),
            messages: 0,
            last_line: None,
            written: 0,
            since: None,
        };
        let reactor = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("spool".into()).spawn(move || {
            reactor.block_on(writer.run(incoming));
            // Nobody may wait any more.
            done.send(()).ok();
        })?;
        Ok((inlet, written))
    }

    async fn run(mut self, mut incoming: mpsc::Receiver<Batch>) {
        loop {
            let due = self.since.map(|since| since + self.sync);
            tokio::select! {
                batch = incoming.recv() => match batch {
                    Some(batch) => self.take(batch).await,
                    None => break,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.settle().await;
                }
            }
        }
        self.settle().await;
        self.close();
    }

    async fn take(&mut self, batch: Batch) {
        self.wait_for_room(batch.bytes.len() as u64).await;
        self.tail.extend_from_slice(&batch.bytes);
        self.messages += batch.messages;
        if self.spool.takes_notes() {
            let lines = batch.bytes.strip_suffix(b"\n").unwrap_or(&batch.bytes);
            let begin = memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1);
            self.last_line = lines.get(begin..).map(<[u8]>::to_vec);
        }
        self.since.get_or_insert_with(Instant::now);
        if let Err(error) = self.write() {
            self.repair(&error).await;
        }
        if self.tail.len() >= GROUP {
            self.settle().await;
        }
    }

    /// Waits until the core has taken enough.
    async fn wait_for_room(&mut self, bytes: u64) {
        let lacks_room = |spool: &Spool| spool.used() + bytes > spool.limit();
        if !lacks_room(&self.spool) {
            return;
        }
        // Whatever is here must be shipped for room to come.
        self.settle().await;
        self.close();
        tracing::warn!(
            source = %self.spool.name, limit = self.spool.limit(),
            action = "see why the core does not take it, or raise the table's spool",
            "spool is full: connections wait, datagrams are dropped and counted"
        );
        self.spool.full.send_replace(true);
        while lacks_room(&self.spool) && self.spool.used() > 0 {
            self.spool.room.notified().await;
        }
        self.spool.full.send_replace(false);
        tracing::info!(source = %self.spool.name, "spool has room again");
    }

    /// Makes everything durable that was taken.
    async fn settle(&mut self) {
        if let Err(error) = self.sync() {
            self.repair(&error).await;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let open = match &self.open {
            Some(open) => open,
            None => self.open.insert(Open::create(&self.spool)?),
        };
        let rest = self.tail.get(self.written..).unwrap_or_default();
        open.file.write_all_at(rest, open.synced + self.written as u64)?;
        self.written = self.tail.len();
        let segment = Segment {
            bytes: open.synced + self.written as u64,
            readable: open.synced,
            closed: false,
        };
        self.spool.state().segments.insert(open.number, segment);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| !self.tail.is_empty()) else {
            return Ok(());
        };
        open.file.sync()?;
        if open.synced == 0 {
            self.spool.fs.sync_dir(&self.spool.folder)?;
        }
        open.synced += self.tail.len() as u64;
        let segment = Segment { bytes: open.synced, readable: open.synced, closed: false };
        self.spool.state().segments.insert(open.number, segment);
        add(&self.spool.counts.spooled, self.messages);
        self.tail.clear();
        self.messages = 0;
        self.written = 0;
        self.since = None;
        if let Some(line) = self.last_line.take() {
            self.spool.note_line(&line);
        }
        if open.synced >= self.spool.segment_size() {
            self.close();
        }
        Ok(())
    }

    /// Ends the segment; the next batch begins another one. All of it is synced.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let segment = Segment { bytes: open.synced, readable: open.synced, closed: true };
        self.spool.state().segments.insert(open.number, segment);
    }

    /// Goes on in a new segment, until that works.
    async fn repair(&mut self, error: &io::Error) {
        tracing::error!(
            source = %self.spool.name, folder = %self.spool.folder.display(), %error,
            action = "make room or replace the disk; it is tried again every second",
            "cannot write spool: connections wait, datagrams are dropped and counted"
        );
        self.spool.full.send_replace(true);
        loop {
            tokio::time::sleep(RETRY).await;
            match self.start_over() {
                Ok(()) => break,
                Err(error) => {
                    tracing::debug!(source = %self.spool.name, %error, "still cannot write spool");
                }
            }
        }
        self.spool.full.send_replace(false);
        tracing::info!(source = %self.spool.name, "spool can be written again");
    }

    /// Ends the segment at what was synced and writes the rest to another one. After a failed sync nothing else of it can
    /// be relied on.
    fn start_over(&mut self) -> io::Result<()> {
        if let Some(Open { number, file, synced }) = &self.open {
            let (fs, folder) = (&*self.spool.fs, &self.spool.folder);
            segment::set_end(fs, folder, *number, *synced)?;
            // Both only make room: how far it counts is settled.
            file.set_len(*synced).ok();
            if *synced == 0 {
                fs.remove(&self.spool.path(*number)).ok();
                self.spool.state().segments.remove(number);
                self.open = None;
            }
            self.close();
        }
        self.written = 0;
        self.write()?;
        self.sync()
    }
}

impl Open {
    fn create(spool: &Spool) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(0);
        // Growing, and never used before as long as the clock does not jump back: a name is a file's alone.
        let newest = spool.newest.load(Ordering::Relaxed);
        let number = now.max(newest + 1);
        spool.newest.store(number, Ordering::Relaxed);
        let file = spool.fs.create(&spool.path(number))?;
        Ok(Self { number, file, synced: 0 })
    }
}

#[cfg(test)]
mod tests;
