//! Readers whose stream goes on without them: `on_full = "detach"`.
//!
//! In: a stream that its readers' pins have kept full for [`PATIENCE`]. Out: readers that no longer hold anything, and a
//! file beside the segments that names them:
//!
//! ```text
//! <partition>/DETACHED    "GARAMDT2" | readers × (u32 LE length | bincode of Saved) | crc32c of all before, u32 LE
//! ```
//!
//! Promise: that a reader was cut off, and how much it misses, is on stable storage before it is removed. Only a reader named there
//! may pass what is gone as a gap, in one step and counted (`garam-flow`); any other stops and asks. The name goes when the
//! reader stands inside the log again. A reader that pins something the log holds is back: it holds, and is waited for,
//! again. Here: who is cut off, and the file. In `given_up` how much each of them misses. Not here: which segments go
//! (`retention`), the pins (`shared`).

mod given_up;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bincode::{Decode, Encode};
use garam_disk::Fs;
use garam_proto::LogOffset;

use super::config::OnFull;
use super::retention;
use super::shared::{PartitionShared, SegmentInfo};
use super::writer::Writer;
use given_up::{GivenUp, Step};

/// How long a full stream waits for its slowest readers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const NAME: &str = "DETACHED";
const MAGIC: &[u8; 8] = b"GARAMDT2";
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

#[derive(Debug, Clone)]
struct Reader {
    /// Where it stood when it was cut off first.
    at: LogOffset,
    /// What went since then.
    given_up: GivenUp,
    /// It has come back, and has not passed the gap yet.
    holds: bool,
}

/// A reader as the file holds it.
#[derive(Debug, Encode, Decode)]
struct Saved {
    name: String,
    at: u64,
    given_up: GivenUp,
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
        let readers = readers.into_iter().map(|Saved { name, at, given_up }| {
            (name, Reader { at: LogOffset(at), given_up, holds: false })
        });
        Self { readers: readers.collect(), changed: false }
    }

    fn store(&self, fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        for (name, reader) in &self.readers {
            let given_up = reader.given_up.clone();
            let saved = Saved { name: name.clone(), at: reader.at.0, given_up };
            let item = garam_proto::encode("detached reader", &saved).map_err(io::Error::other)?;
            let length = u32::try_from(item.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&item);
        }
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

    /// The units a reader misses between its cursor and the log's start. `None`: not known.
    pub(crate) fn units(&self, reader: &str, from: LogOffset, start: LogOffset) -> Option<u64> {
        self.readers.get(reader)?.given_up.units(from, start)
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
            let new = || Reader { at: *at, given_up: GivenUp::default(), holds: false };
            readers.entry(name.clone()).or_insert_with(new).holds = false;
        }
        Self { readers, changed: false }
    }

    fn without(&self, segment: &[Step]) -> Self {
        let mut readers = self.readers.clone();
        readers.values_mut().for_each(|reader| reader.given_up.add(reader.at, segment));
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

    /// Counts what readers that are cut off miss when their partition's oldest segment goes. `false`: that cannot be recorded now.
    pub(crate) fn count_given_up(
        &self,
        shared: &PartitionShared,
        segment: &SegmentInfo,
        end: u64,
    ) -> bool {
        if shared.change_detached(|detached| detached.readers.is_empty()) {
            return true;
        }
        let steps = given_up::steps(&*self.env.fs, segment, end);
        let dir = self.partition_dir(&shared.id);
        let recorded = shared.change_detached(|detached| {
            let without = detached.without(&steps);
            without.store(&*self.env.fs, &dir)?;
            *detached = without;
            Ok::<_, io::Error>(())
        });
        if let Err(error) = recorded {
            tracing::warn!(partition = %shared.id, %error,
                "cannot record what readers that are cut off will miss, the segment stays");
            return false;
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

fn decode(bytes: &[u8]) -> Option<Vec<Saved>> {
    let (covered, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = covered.strip_prefix(MAGIC)?;
    let mut readers = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (item, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        readers.push(garam_proto::decode("detached reader", item).ok()?);
        rest = after;
    }
    rest.is_empty().then_some(readers)
}
