//! Readers whose stream goes on without them: `on_full = "detach"`.
//!
//! In: a stream that its readers' pins have kept full for [`PATIENCE`]. Out: readers that no longer hold anything, and a
//! file beside the segments that names them:
//!
//! ```text
//! <partition>/DETACHED    "GARAMDT1" | bincode of [(reader, where it stood)] | crc32c of all before, u32 LE
//! ```
//!
//! Promise: that a reader was cut off is on stable storage before anything it needs is removed. Only a reader named there
//! may pass what is gone as a gap, in one step and counted (`garam-flow`); any other stops and asks. The name goes when the
//! reader stands inside the log again. A reader that pins something the log holds is back: it holds, and is waited for,
//! again. Not here: which segments go (`retention`), the pins (`shared`).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use garam_disk::Fs;
use garam_proto::LogOffset;

use super::config::OnFull;
use super::retention;
use super::writer::Writer;

/// How long a full stream waits for its slowest readers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const NAME: &str = "DETACHED";
const MAGIC: &[u8; 8] = b"GARAMDT1";
const CRC_LEN: usize = 4;
/// Far more than the names of all pipelines.
const MAX_LEN: usize = 16 * 1024 * 1024;

/// The readers of one partition that were cut off.
#[derive(Debug, Default)]
pub(crate) struct Detached {
    readers: BTreeMap<String, Reader>,
    /// The file says something else.
    changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    /// Where it stood when it was cut off first.
    at: LogOffset,
    /// It has come back, and has not passed the gap yet.
    holds: bool,
}

impl Detached {
    /// What the partition's folder says. An unreadable file names nobody: their pipelines stop and ask.
    pub(crate) fn load(fs: &dyn Fs, dir: &Path) -> Self {
        let path = dir.join(NAME);
        let Ok(bytes) = fs.read(&path, MAX_LEN) else { return Self::default() };
        let Some(readers) = decode(&bytes) else {
            tracing::error!(file = %path.display(), action = "garam resume PIPELINE --accept-gap",
                "cannot read which readers were cut off: they will ask");
            return Self::default();
        };
        let readers = readers
            .into_iter()
            .map(|(name, at)| (name, Reader { at: LogOffset(at), holds: false }));
        Self { readers: readers.collect(), changed: false }
    }

    fn store(&self, fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        let readers: Vec<(&str, u64)> =
            self.readers.iter().map(|(name, reader)| (name.as_str(), reader.at.0)).collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(garam_proto::encode("detached readers", &readers).map_err(io::Error::other)?);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let (path, temporary) = (dir.join(NAME), dir.join("DETACHED.tmp"));
        let file = fs.create(&temporary)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()?;
        fs.rename(&temporary, &path)?;
        fs.sync_dir(dir)
    }

    /// Whether a reader's pin counts.
    pub(crate) fn counts(&self, reader: &str) -> bool {
        self.readers.get(reader).is_none_or(|reader| reader.holds)
    }

    /// Where a reader stood when it was cut off.
    pub(crate) fn stood(&self, reader: &str) -> Option<LogOffset> {
        self.readers.get(reader).map(|reader| reader.at)
    }

    /// Everybody who does not hold the log, and where they stood.
    pub(crate) fn names(&self) -> Vec<(String, LogOffset)> {
        let away = self.readers.iter().filter(|(_, reader)| !reader.holds);
        away.map(|(name, reader)| (name.clone(), reader.at)).collect()
    }

    pub(crate) fn holds_again(&mut self, reader: &str) {
        if let Some(reader) = self.readers.get_mut(reader) {
            reader.holds = true;
        }
    }

    pub(crate) fn rejoins(&mut self, reader: &str) {
        self.changed |= self.readers.remove(reader).is_some();
    }

    fn with(&self, cut: &[(String, LogOffset)]) -> Self {
        let mut readers = self.readers.clone();
        for (name, at) in cut {
            // One that came back and did not get past the gap still needs all of it.
            readers.entry(name.clone()).or_insert(Reader { at: *at, holds: false }).holds = false;
        }
        Self { readers, changed: false }
    }
}

impl Writer {
    /// Goes on without the readers that have kept the stream full for too long. Whether there is room again.
    pub(crate) fn detach(&mut self, stream: usize) -> bool {
        let now = self.env.time.monotonic();
        let Some(state) = self.streams.get_mut(stream) else { return false };
        if state.config.on_full != OnFull::Detach {
            return false;
        }
        let since = *state.full_since.get_or_insert(now);
        if now.saturating_sub(since) < PATIENCE {
            return false;
        }
        while let Some((number, needed_from)) = retention::most_held(&self.candidates(stream)) {
            if !self.cut_off(number, needed_from) {
                return false;
            }
            if let Some(state) = self.streams.get_mut(stream) {
                state.full = None;
            }
            if self.make_room(stream).is_ok() {
                return true;
            }
        }
        false
    }

    /// Takes the pins below `needed_from` from a partition. `false`: that cannot be recorded now.
    fn cut_off(&mut self, number: usize, needed_from: u64) -> bool {
        let Some(partition) = self.partitions.get(number) else { return false };
        let shared = &partition.shared;
        let cut = shared.pins_below(LogOffset(needed_from));
        let dir = self.partition_dir(&shared.id);
        let recorded = shared.change_detached(|detached| {
            let with = detached.with(&cut);
            with.store(&*self.env.fs, &dir)?;
            *detached = with;
            Ok::<_, io::Error>(())
        });
        if let Err(error) = recorded {
            tracing::warn!(partition = %shared.id, %error, "cannot record who is cut off, the stream stays full");
            return false;
        }
        for (reader, at) in cut {
            tracing::warn!(partition = %shared.id, reader, %at, action = "get its destination going",
                "the stream's quota is used up: it goes on without this reader, which will find a gap");
        }
        true
    }

    /// Takes the readers that are back out of the files. What cannot be written now is tried again.
    pub(crate) fn forget_rejoined(&self) {
        for partition in &self.partitions {
            let dir = self.partition_dir(&partition.shared.id);
            partition.shared.change_detached(|detached| {
                if !detached.changed {
                    return;
                }
                match detached.store(&*self.env.fs, &dir) {
                    Ok(()) => detached.changed = false,
                    Err(error) => tracing::warn!(%error, "cannot record who is back, trying again"),
                }
            });
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<(String, u64)>> {
    let (covered, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    garam_proto::decode("detached readers", covered.strip_prefix(MAGIC)?).ok()
}
