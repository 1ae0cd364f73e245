//! A disk with a limit, and what the reserve is good for when it is reached.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_disk::Fs;
use garam_faulty_disk::FaultyFs;
use garam_log::embedded::Env;
use garam_log::{EmbeddedLog, Log, LogConfig, LogError, State, StreamConfig};

use crate::kit::*;
use crate::world::Clock;

const KIB: u64 = 1024;
const RESERVE: u64 = 256 * KIB;

struct Small {
    disk: FaultyFs,
    env: Env,
    config: LogConfig,
    log: Arc<EmbeddedLog>,
    mark: u128,
}

/// A log on a disk of 1 MiB.
fn small() -> Small {
    let disk = FaultyFs::new(7);
    disk.limit(1024 * KIB, 64);
    let env =
        Env { fs: Arc::new(disk.clone()), time: Arc::new(Clock::default()), ..Env::default() };
    let mut config = config(Path::new("/log"));
    config.reserve = RESERVE;
    config.streams[0].quota = 64 * 1024 * KIB;
    config.streams.push(StreamConfig::new(stream("_quarantine.p")));
    let log = EmbeddedLog::open_with(config.clone(), env.clone()).unwrap();
    Small { disk, env, config, log, mark: 0 }
}

impl Small {
    /// Blocks of 8 KiB of random bytes until something is refused.
    async fn fill(&mut self) -> LogError {
        granted(&self.log, 1, 10).await;
        loop {
            match append(&self.log, block(1, 10, self.mark, &[7; 8 * 1024])).await {
                Ok(_) => self.mark += 8 * 1024,
                Err(refused) => return refused,
            }
        }
    }

    async fn fill_one(&mut self) -> Result<(), LogError> {
        append(&self.log, block(1, 10, self.mark, &[7; 1024])).await?;
        self.mark += 1024;
        Ok(())
    }

    async fn upkeep(&self) {
        let beats = self.log.progress().beats;
        until("upkeep", async || self.log.progress().beats > beats + 2).await;
    }

    fn reserve(&self) -> Option<u64> {
        self.disk.open(&self.path("RESERVE")).and_then(|file| file.size()).ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.dir.join(name)
    }

    /// What else lies on the disk takes all that is free.
    fn ballast(&self) {
        let free = 1024 * KIB - self.disk.used();
        self.disk.create(Path::new("/ballast")).unwrap().allocate(free).unwrap();
    }

    fn state(&self) -> State {
        self.log
            .stats()
            .iter()
            .find(|stats| stats.partition.stream == stream("s"))
            .unwrap()
            .state
            .clone()
    }
}

#[tokio::test]
async fn a_full_disk_gives_the_reserve_and_sources_wait_until_it_fits_again() {
    let mut small = small();
    until("taken", async || small.reserve() == Some(RESERVE)).await;
    // What must go on has room. While nobody uses it the log may take it back, until it meets the full disk again.
    loop {
        assert!(matches!(small.fill().await, LogError::Full { .. }));
        let cursor = small.disk.create(Path::new("/cursor")).unwrap();
        if cursor.write_all_at(&[1; 64 * 1024], 0).is_ok() && small.reserve().is_none() {
            break;
        }
        cursor.set_len(0).unwrap();
    }
    let mut claimed = claim(9, 10);
    claimed.stream = stream("_quarantine.p");
    small.log.claim(claimed).await.unwrap().wait().await.unwrap();
    // What sources send has none, though it would fit.
    small.upkeep().await;
    assert!(matches!(small.fill_one().await, Err(LogError::Full { .. })));
    let State::Full(why) = small.state() else { panic!("{:?}", small.state()) };
    assert!(why.contains("RESERVE"), "{why}");
    small.disk.limit(2048 * KIB, 64);
    until("whole again", async || small.state() == State::Ok).await;
    assert_eq!(small.reserve(), Some(RESERVE));
    small.fill_one().await.unwrap();
}

#[tokio::test]
async fn a_start_on_a_full_disk_copies_its_tail_into_the_reserve() {
    let mut small = small();
    until("taken", async || small.reserve() == Some(RESERVE)).await;
    granted(&small.log, 1, 10).await;
    small.fill_one().await.unwrap();
    small.ballast();
    small.log.shutdown().await;
    small.log = EmbeddedLog::open_with(small.config.clone(), small.env.clone()).unwrap();
    assert!(small.log.bounds(&partition("s", 0)).is_ok(), "{:?}", small.state());
    assert_eq!(read_all(&small.log, &partition("s", 0)).await.unwrap().len(), 2);
    small.disk.remove(Path::new("/ballast")).unwrap();
    until("whole again", async || small.reserve() == Some(RESERVE)).await;
    until("goes on", async || small.state() == State::Ok).await;
    small.fill_one().await.unwrap();
}

#[tokio::test]
async fn a_disk_without_room_for_a_reserve_is_used_without_and_another_size_is_taken() {
    let mut small = small();
    small.log.shutdown().await;
    for (reserve, expect) in [(4096 * KIB, None), (128 * KIB, Some(128 * KIB)), (0, None)] {
        small.config.reserve = reserve;
        small.log = EmbeddedLog::open_with(small.config.clone(), small.env.clone()).unwrap();
        small.upkeep().await;
        assert_eq!((small.reserve(), small.state()), (expect, State::Ok));
        granted(&small.log, 1, 10).await;
        small.fill_one().await.unwrap();
        small.log.shutdown().await;
    }
}
