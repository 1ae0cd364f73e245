//! What the core remembers, durable at once.

use std::sync::Arc;

use async_trait::async_trait;
use garam_proto::LogOffset;
use garam_stage::{CursorKey, CursorMemory, Decision, Failure};

use super::World;

#[derive(Default)]
pub(crate) struct MemoryState {
    pub(crate) remembered: Option<LogOffset>,
    pub(crate) attempts: Option<(LogOffset, u32)>,
    /// How many attempts were ever counted.
    pub(crate) counted: u32,
    pub(crate) decision: Option<Decision>,
}

pub(crate) struct FakeMemory {
    pub(crate) world: Arc<World>,
    pub(crate) life: u64,
}

#[async_trait]
impl CursorMemory for FakeMemory {
    async fn remembered(&self, _key: &CursorKey) -> Result<Option<LogOffset>, Failure> {
        self.world.step(self.life).await;
        Ok(self.world.lock().memory.remembered)
    }

    async fn remember(&self, _key: &CursorKey, next: LogOffset) -> Result<(), Failure> {
        self.world.step(self.life).await;
        self.world.lock().memory.remembered = Some(next);
        self.world.step(self.life).await;
        Ok(())
    }

    async fn attempts(&self, _key: &CursorKey, next: LogOffset) -> Result<u32, Failure> {
        self.world.step(self.life).await;
        let counted = self.world.lock().memory.attempts;
        Ok(counted.filter(|(at, _)| *at == next).map_or(0, |(_, count)| count))
    }

    async fn count_attempt(&self, _key: &CursorKey, next: LogOffset) -> Result<u32, Failure> {
        self.world.step(self.life).await;
        let count = {
            let memory = &mut self.world.lock().memory;
            assert!(memory.attempts.is_none_or(|(at, _)| at <= next), "attempts never go back");
            let before = memory.attempts.filter(|(at, _)| *at == next).map_or(0, |(_, n)| n);
            memory.attempts = Some((next, before + 1));
            memory.counted += 1;
            before + 1
        };
        self.world.step(self.life).await;
        Ok(count)
    }

    async fn clear_attempts(&self, _key: &CursorKey) -> Result<(), Failure> {
        self.world.step(self.life).await;
        self.world.lock().memory.attempts = None;
        self.world.step(self.life).await;
        Ok(())
    }

    async fn decision(&self, _key: &CursorKey) -> Result<Option<Decision>, Failure> {
        self.world.step(self.life).await;
        Ok(self.world.lock().memory.decision)
    }

    async fn forget_decision(&self, _key: &CursorKey) -> Result<(), Failure> {
        self.world.step(self.life).await;
        self.world.lock().memory.decision = None;
        self.world.step(self.life).await;
        Ok(())
    }
}
