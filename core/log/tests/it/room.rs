//! A log of one origin that is small enough to be filled, on a clock that can be moved.

use std::sync::Arc;
use std::time::Duration;

use garam_log::embedded::Env;
use garam_log::{EmbeddedLog, Log, LogConfig, LogError, StreamConfig};
use garam_proto::LogOffset;

use crate::kit::*;
use crate::world::{Clock, Disk, world};

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

pub(crate) struct Room {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) env: Env,
    pub(crate) config: LogConfig,
    pub(crate) mark: u128,
    _dir: tempfile::TempDir,
}

/// A log of one origin with small segments, kept for two hours or 1 MiB.
pub(crate) async fn room() -> Room {
    room_with(|_| {}).await
}

/// [`room`] with a stream that is configured otherwise.
pub(crate) async fn room_with(change: impl FnOnce(&mut StreamConfig)) -> Room {
    let dir = tempfile::tempdir().unwrap();
    let (disk, clock, env) = world();
    let mut config = config(dir.path());
    config.segment_size = 16 * 1024;
    config.streams[0].retain = 2 * HOUR;
    config.streams[0].quota = 1024 * 1024;
    change(&mut config.streams[0]);
    let log = EmbeddedLog::open_with(config.clone(), env.clone()).unwrap();
    granted(&log, 1, 10).await;
    Room { log, disk, clock, env, config, mark: 0, _dir: dir }
}

impl Room {
    pub(crate) async fn fill(&mut self, blocks: usize) -> Result<(), LogError> {
        for _ in 0..blocks {
            let payload = [b'x'; 8000];
            append(&self.log, block(1, 10, self.mark, &payload)).await?;
            self.mark += 8000;
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> u64 {
        self.log.bounds(&partition("s", 0)).unwrap().start.0
    }

    pub(crate) fn end(&self) -> LogOffset {
        self.log.bounds(&partition("s", 0)).unwrap().end
    }

    pub(crate) fn pin(&self, reader: &str, next: LogOffset) {
        self.log.pin(&partition("s", 0), reader, next);
    }

    /// Two upkeeps began and one was whole.
    pub(crate) async fn upkeep(&self) {
        let beats = self.log.progress().beats;
        until("upkeep", async || self.log.progress().beats > beats + 2).await;
    }

    pub(crate) async fn reopen(&mut self) {
        self.reopen_after(Duration::ZERO).await;
    }

    pub(crate) async fn reopen_after(&mut self, off: Duration) {
        self.log.shutdown().await;
        self.clock.skip(off);
        self.log = EmbeddedLog::open_with(self.config.clone(), self.env.clone()).unwrap();
    }
}
