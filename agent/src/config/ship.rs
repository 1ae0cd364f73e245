//! `[ship]`: how blocks travel.
//!
//! In: the table as written. Out: a [`ShipPlan`] within its bounds. Not here: what is read (`file`), to whom it goes ([`super`]).

use std::time::Duration;

use bytesize::ByteSize;
use garam_proto::Codec;
use serde::Deserialize;

use super::ConfigError;
use super::keys::Keys;

/// The table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ship {
    /// `zstd`, `lz4` or `none`. Default `zstd`.
    pub codec: String,
    /// Compression level of zstd, -7 to 19. Default 1.
    pub level: i32,
    /// How long a block may wait for more lines, 0 to 10 s; the core may raise it. Default 20 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Raw size at which a block is cut, 64 KiB to 1 MiB. Default 256 KiB.
    pub block_size: ByteSize,
    /// Upper bound of unacknowledged payload per stream and partition, 1 MiB to 1 GiB; the core may say less.
    /// Default 8 MiB.
    pub window: ByteSize,
    /// How often a file that was written lately is looked at, 10 ms to 10 s; idle files up to ten times less often.
    /// Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How often folders are searched for new and renamed files, 100 ms to 10 min. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub discover: Duration,
    /// Raw bytes read per second over all files, 64 KiB to 100 GiB. Default: no limit.
    pub rate: Option<ByteSize>,
    /// How many bytes deleted files that are not read to their end may keep on the disk; beyond it the oldest is given up
    /// and its unread rest becomes a gap. 1 MiB and more. Default 1 GiB.
    pub hold_unlinked: ByteSize,
    /// How many files are held open at once; idle ones beyond it are closed and watched by name. 16 to 1 000 000, and
    /// never more than the system's limit less 64. Default 1000.
    pub max_open: usize,
    /// Have the kernel tell what changes in the folders (inotify), so that files are found at once and searches may be rare.
    /// Default true.
    pub watch: bool,
}

impl Default for Ship {
    fn default() -> Self {
        Self {
            codec: "zstd".into(),
            level: 1,
            linger: Duration::from_millis(20),
            block_size: ByteSize::kib(256),
            window: ByteSize::mib(8),
            poll: Duration::from_millis(100),
            discover: Duration::from_secs(1),
            rate: None,
            hold_unlinked: ByteSize::gib(1),
            max_open: 1000,
            watch: true,
        }
    }
}

/// The checked form.
#[derive(Debug, Clone)]
pub struct ShipPlan {
    pub codec: Codec,
    pub level: i32,
    pub linger: Duration,
    pub block_size: usize,
    pub window: u64,
    pub poll: Duration,
    pub discover: Duration,
    pub rate: Option<u64>,
    pub hold_unlinked: u64,
    pub max_open: usize,
    pub watch: bool,
}

impl Ship {
    pub(super) fn check(self, at: &Keys<'_>) -> Result<ShipPlan, ConfigError> {
        let codec = self
            .codec
            .parse::<Codec>()
            .map_err(|e| at.bad("ship.codec", &e.to_string(), "choose one of them"))?;
        at.within("ship.level", self.level, -7, 19)?;
        at.duration("ship.linger", self.linger, Duration::ZERO, Duration::from_secs(10))?;
        at.size("ship.block_size", self.block_size, ByteSize::kib(64), ByteSize::mib(1))?;
        at.size("ship.window", self.window, ByteSize::mib(1), ByteSize::gib(1))?;
        at.duration("ship.poll", self.poll, Duration::from_millis(10), Duration::from_secs(10))?;
        at.duration(
            "ship.discover",
            self.discover,
            Duration::from_millis(100),
            Duration::from_secs(600),
        )?;
        if let Some(rate) = self.rate {
            at.size("ship.rate", rate, ByteSize::kib(64), ByteSize::gib(100))?;
        }
        let most = ByteSize::b(u64::MAX);
        at.size("ship.hold_unlinked", self.hold_unlinked, ByteSize::mib(1), most)?;
        at.within("ship.max_open", self.max_open, 16, 1_000_000)?;
        Ok(ShipPlan {
            codec,
            level: self.level,
            linger: self.linger,
            block_size: usize::try_from(self.block_size.as_u64()).unwrap_or(usize::MAX),
            window: self.window.as_u64(),
            poll: self.poll,
            discover: self.discover,
            rate: self.rate.map(|rate| rate.as_u64()),
            hold_unlinked: self.hold_unlinked.as_u64(),
            max_open: self.max_open,
            watch: self.watch,
        })
    }
}
