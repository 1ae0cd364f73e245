//! The floor: what one thread writes durably into one plain file.
//!
//! In: a block size and how many blocks one sync covers (a fraction is kept up on average). Out: what it wrote in how long.
//! Promise: no queue, no checksum, no header, no copy, nobody to answer: `pwrite` per block and `fdatasync`, nothing else.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::Stretch;
use crate::bench::cpu_seconds;
use crate::bench::producer::noise;

pub(super) struct Floor {
    file: File,
    at: u64,
    block: Vec<u8>,
    /// How far ahead the file is reserved at a time; 0: it grows as it is written.
    reserve: u64,
    reserved: u64,
}

impl Floor {
    pub(super) fn create(path: &Path, block: u32, reserve: u64) -> anyhow::Result<Self> {
        let block = noise(block as usize, u64::from(block));
        Ok(Self { file: File::create(path)?, at: 0, block, reserve, reserved: 0 })
    }

    /// Writes for this long, on a thread that may block.
    pub(super) async fn stretch(
        mut self,
        length: Duration,
        blocks_per_sync: f64,
    ) -> anyhow::Result<(Self, Stretch)> {
        let write = move || {
            let stretch = self.write(length, blocks_per_sync)?;
            anyhow::Ok((self, stretch))
        };
        tokio::task::spawn_blocking(write).await?
    }

    fn write(&mut self, length: Duration, blocks_per_sync: f64) -> std::io::Result<Stretch> {
        let cpu_s = cpu_seconds();
        let started = Instant::now();
        let (mut blocks, mut syncs) = (0_u64, 0_u64);
        while started.elapsed() < length {
            // One block at least, and as many as keep the average.
            let due = ((syncs + 1) as f64 * blocks_per_sync).round() as u64;
            let batch = due.saturating_sub(blocks).max(1);
            for _ in 0..batch {
                self.reserve()?;
                self.file.write_all_at(&self.block, self.at)?;
                self.at += self.block.len() as u64;
            }
            self.file.sync_data()?;
            blocks += batch;
            syncs += 1;
        }
        Ok(Stretch {
            bytes: blocks * self.block.len() as u64,
            syncs,
            seconds: started.elapsed().as_secs_f64(),
            cpu_s: cpu_seconds() - cpu_s,
        })
    }

    fn reserve(&mut self) -> std::io::Result<()> {
        if self.reserve > 0 && self.at + self.block.len() as u64 > self.reserved {
            let len = self.reserve.max(self.block.len() as u64);
            rustix::fs::fallocate(&self.file, FallocateFlags::empty(), self.reserved, len)?;
            self.reserved += len;
        }
        Ok(())
    }
}
