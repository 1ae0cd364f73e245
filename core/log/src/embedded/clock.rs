//! The log clock: what all ages in the log are measured by.
//!
//! In: monotonic time while running; the file `<dir>/CLOCK` and the wall clock at a start. Out: milliseconds that never
//! go back. Promise: it advances by at most one hour over a restart, however long the core was off and wherever the wall
//! clock jumped, so that nothing expires while nobody could have read it.
//! The file is written about once a minute and is only a hint: a lost or torn one makes the clock resume from the newest
//! segment, that is earlier, and ages only look younger.
//!
//! ```text
//!  CLOCK: "GARAMCLK" | clock_ms u64 | wall_ms u64 | crc32c u32 of the bytes before it      all LE
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use garam_disk::Fs;

use super::entry::Fields;

const MAGIC: [u8; 8] = *b"GARAMCLK";
const FILE_LEN: usize = 28;
const NAME: &str = "CLOCK";
/// The most the clock advances over a restart.
pub(crate) const MAX_RESTART_ADVANCE_MS: u64 = 60 * 60 * 1000;

/// Where time comes from.
pub trait Time: Send + Sync + 'static {
    /// Time since some fixed moment, never going back.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since the epoch, as far as anybody knows.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct RealTime {
    start: Instant,
}

impl Default for RealTime {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Time for RealTime {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What `CLOCK` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub clock_ms: u64,
    pub wall_ms: u64,
}

/// The running clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogClock {
    base_ms: u64,
    started: Duration,
}

impl LogClock {
    /// Resumes the clock: from what was saved plus at most an hour, and never before the newest segment.
    pub(crate) fn resume(saved: Option<Saved>, newest_segment_ms: u64, time: &dyn Time) -> Self {
        let resumed = saved.map_or(0, |saved| {
            let off = time.wall_ms().saturating_sub(saved.wall_ms);
            saved.clock_ms.saturating_add(off.min(MAX_RESTART_ADVANCE_MS))
        });
        Self { base_ms: resumed.max(newest_segment_ms), started: time.monotonic() }
    }

    pub(crate) fn now_ms(&self, time: &dyn Time) -> u64 {
        let running = time.monotonic().saturating_sub(self.started).as_millis();
        self.base_ms.saturating_add(u64::try_from(running).unwrap_or(u64::MAX))
    }
}

impl Saved {
    pub(crate) fn load(fs: &dyn Fs, dir: &Path) -> Option<Self> {
        let file = fs.open(&dir.join(NAME)).ok()?;
        let mut bytes = [0; FILE_LEN];
        let read = file.read_full_at(&mut bytes, 0).ok()?;
        let covered = bytes.get(..FILE_LEN - 4)?;
        let mut fields = Fields(&bytes);
        let magic = fields.take::<8>()?;
        let clock_ms = u64::from_le_bytes(fields.take()?);
        let wall_ms = u64::from_le_bytes(fields.take()?);
        let good = u32::from_le_bytes(fields.take()?) == crc32c::crc32c(covered);
        (read == FILE_LEN && magic == MAGIC && good).then_some(Self { clock_ms, wall_ms })
    }

    /// Replaces the file. Not synced: losing it costs at most a minute of age.
    pub(crate) fn store(&self, fs: &dyn Fs, dir: &Path) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.clock_ms.to_le_bytes());
        bytes.extend_from_slice(&self.wall_ms.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let temporary: PathBuf = dir.join("CLOCK.tmp");
        fs.create(&temporary)?.write_all_at(&bytes, 0)?;
        fs.rename(&temporary, &dir.join(NAME))
    }
}
