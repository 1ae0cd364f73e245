//! What the core remembers about cursors: so that a destination that lost its cursor is noticed, and a batch that keeps
//! failing is taken apart.
//!
//! *Cursors* come after every batch, far too often for a sync each. The first one of a key is durable when the call returns:
//! from then on an empty destination is noticed. Later ones are only noted, and written by [`Meta::flush`], which the core
//! calls every few seconds: delivery waits neither for this file's disk nor for another process that holds it. After a
//! crash the remembered offset may be that much too old, which is harmless, since only its existence decides anything.
//! *Attempts* are durable when the call returns: they are counted before a retry that may end the process. Clearing them may
//! fail: a count is of one offset, and delivery has passed it.

use async_trait::async_trait;
use garam_proto::LogOffset;
use garam_stage::{CursorKey, CursorMemory, Decision, Failure};
use serde_json::json;
use sqlx::query::{Query, QueryScalar};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Meta;
use crate::error::MetaError;
use crate::tables::now_us;

const STORE: &str = "\
INSERT INTO cursors (pipeline, partition, slot_first, slot_last, next, seen_us) \
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ?2 FROM json_each(?1) WHERE true \
ON CONFLICT (pipeline, partition, slot_first, slot_last) DO UPDATE SET next = excluded.next, seen_us = excluded.seen_us";

const COUNT: &str = "\
INSERT INTO attempts (pipeline, partition, slot_first, slot_last, next, count, last_us) VALUES (?, ?, ?, ?, ?, 1, ?) \
ON CONFLICT (pipeline, partition, slot_first, slot_last) DO UPDATE SET \
count = CASE WHEN next = excluded.next THEN count + 1 ELSE 1 END, next = excluded.next, last_us = excluded.last_us \
RETURNING count";

/// Cursors seen by this process.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    seen: Mutex<HashMap<CursorKey, Remembered>>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    next: LogOffset,
    on_disk: OnDisk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDisk {
    Nothing,
    /// Some offset: enough to notice that a destination lost its cursor.
    Older,
    This,
}

impl Memory {
    fn seen(&self) -> MutexGuard<'_, HashMap<CursorKey, Remembered>> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a cursor; returns what is on disk of its key, as far as this process knows.
    fn note(&self, key: &CursorKey, next: LogOffset) -> OnDisk {
        let mut seen = self.seen();
        let on_disk = match seen.get(key) {
            None | Some(Remembered { on_disk: OnDisk::Nothing, .. }) => OnDisk::Nothing,
            Some(_) => OnDisk::Older,
        };
        seen.insert(key.clone(), Remembered { next, on_disk });
        on_disk
    }

    fn get(&self, key: &CursorKey) -> Option<LogOffset> {
        self.seen().get(key).map(|remembered| remembered.next)
    }

    fn unstored(&self) -> Vec<(CursorKey, LogOffset)> {
        let seen = self.seen();
        let unstored = seen.iter().filter(|(_, remembered)| remembered.on_disk != OnDisk::This);
        unstored.map(|(key, remembered)| (key.clone(), remembered.next)).collect()
    }

    fn stored(&self, key: &CursorKey, next: LogOffset) {
        if let Some(remembered) = self.seen().get_mut(key) {
            let is_newest = remembered.next == next;
            remembered.on_disk = if is_newest { OnDisk::This } else { OnDisk::Older };
        }
    }
}

impl Meta {
    /// Writes what is remembered in memory only, and the copy when it is behind. Called every few seconds and at shutdown.
    pub async fn flush(&self) -> Result<(), MetaError> {
        // Collected under the connection's lock, so that an older offset is never written over a newer one.
        let mut connection = self.connection.lock().await;
        let cursors = self.memory.unstored();
        if !cursors.is_empty() {
            self.store(&mut connection, &cursors).await?;
        }
        for (key, next) in &cursors {
            self.memory.stored(key, *next);
        }
        self.copy(&mut connection).await;
        Ok(())
    }

    /// The cursor of an earlier process.
    async fn stored_cursor(&self, key: &CursorKey) -> Result<Option<LogOffset>, MetaError> {
        let sql = "SELECT next FROM cursors WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";
        let mut connection = self.connection.lock().await;
        let next: Option<i64> = scalar(sql, key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|source| self.error("read a remembered cursor from", source))?;
        Ok(next.map(|next| LogOffset(next.cast_unsigned())))
    }

    async fn store(
        &self,
        connection: &mut SqliteConnection,
        cursors: &[(CursorKey, LogOffset)],
    ) -> Result<(), MetaError> {
        let rows = cursors
            .iter()
            .map(|(key, next)| {
                let next = signed(*next)?;
                let slots = (key.slots.first, key.slots.last);
                Ok(json!([key.pipeline.to_string(), key.partition, slots.0, slots.1, next]))
            })
            .collect::<Result<Vec<_>, MetaError>>()?;
        sqlx::query(STORE)
            .bind(serde_json::Value::Array(rows).to_string())
            .bind(now_us())
            .execute(connection)
            .await
            .map_err(|source| self.error("remember cursors in", source))?;
        Ok(())
    }
}

#[async_trait]
impl CursorMemory for Meta {
    async fn remembered(&self, key: &CursorKey) -> Result<Option<LogOffset>, Failure> {
        match self.memory.get(key) {
            Some(next) => Ok(Some(next)),
            None => Ok(self.stored_cursor(key).await?),
        }
    }

    async fn remember(&self, key: &CursorKey, next: LogOffset) -> Result<(), Failure> {
        signed(next)?;
        if self.memory.note(key, next) != OnDisk::Nothing {
            return Ok(());
        }
        if let Some(before) = self.stored_cursor(key).await? {
            self.memory.stored(key, before);
            return Ok(());
        }
        self.copy_is_behind.store(true, Ordering::Relaxed);
        Ok(self.flush().await?)
    }

    async fn attempts(&self, key: &CursorKey, next: LogOffset) -> Result<u32, Failure> {
        let sql = "SELECT count FROM attempts WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ? AND next = ?";
        let mut connection = self.connection.lock().await;
        let count: Option<i64> = scalar(sql, key)
            .bind(signed(next)?)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|source| self.error("read attempts from", source))?;
        Ok(saturated(count))
    }

    async fn count_attempt(&self, key: &CursorKey, next: LogOffset) -> Result<u32, Failure> {
        let query = scalar(COUNT, key).bind(signed(next)?).bind(now_us());
        let mut connection = self.connection.lock().await;
        let counts: Vec<i64> = query
            .fetch_all(&mut *connection)
            .await
            .map_err(|source| self.error("count an attempt in", source))?;
        Ok(saturated(counts.first().copied()))
    }

    async fn clear_attempts(&self, key: &CursorKey) -> Result<(), Failure> {
        let sql = "DELETE FROM attempts WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";
        let mut connection = self.connection.lock().await;
        if let Err(source) = with_key(sqlx::query(sql), key).execute(&mut *connection).await {
            let error = self.error("clear attempts in", source);
            tracing::warn!(%error, "attempts stay counted; they count only for an offset that is passed");
        }
        Ok(())
    }

    async fn decision(&self, key: &CursorKey) -> Result<Option<Decision>, Failure> {
        Ok(self.stored_decision(key).await?)
    }

    async fn forget_decision(&self, key: &CursorKey) -> Result<(), Failure> {
        Ok(self.remove_decision(key).await?)
    }
}

type Scalar = QueryScalar<'static, Sqlite, i64, SqliteArguments>;

fn scalar(sql: &'static str, key: &CursorKey) -> Scalar {
    sqlx::query_scalar(sql)
        .bind(key.pipeline.to_string())
        .bind(i64::from(key.partition))
        .bind(i64::from(key.slots.first))
        .bind(i64::from(key.slots.last))
}

pub(crate) fn with_key(
    query: Query<'static, Sqlite, SqliteArguments>,
    key: &CursorKey,
) -> Query<'static, Sqlite, SqliteArguments> {
    query
        .bind(key.pipeline.to_string())
        .bind(i64::from(key.partition))
        .bind(i64::from(key.slots.first))
        .bind(i64::from(key.slots.last))
}

pub(crate) fn signed(next: LogOffset) -> Result<i64, MetaError> {
    i64::try_from(next.0)
        .map_err(|_| MetaError::TooLarge { what: "the cursor's offset", value: next.0 })
}

fn saturated(count: Option<i64>) -> u32 {
    u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use garam_proto::{LogOffset, PipelineId};
    use garam_stage::{CursorKey, SlotRange};

    use super::{Memory, OnDisk};

    #[test]
    fn a_key_is_written_until_it_is_on_disk_once_and_later_offsets_only_noted() {
        let memory = Memory::default();
        let pipeline = PipelineId([1; 16]);
        let key = CursorKey { pipeline, partition: 0, slots: SlotRange::ALL };
        assert_eq!(memory.note(&key, LogOffset(1)), OnDisk::Nothing);
        assert_eq!(memory.note(&key, LogOffset(2)), OnDisk::Nothing, "the write failed");
        memory.stored(&key, LogOffset(2));
        assert_eq!(memory.unstored(), []);
        assert_eq!(memory.note(&key, LogOffset(3)), OnDisk::Older);

        // What changed while it was being written is still to be written.
        let taken = memory.unstored();
        memory.note(&key, LogOffset(4));
        for (key, next) in &taken {
            memory.stored(key, *next);
        }
        assert_eq!(memory.unstored(), [(key.clone(), LogOffset(4))]);
        assert_eq!(memory.get(&key), Some(LogOffset(4)));
    }
}
