//! What the core remembers about cursors: so that a destination that lost its cursor is noticed, and a batch that keeps
//! failing is taken apart.
//!
//! *Cursors* come after every batch, far too often for a sync each. The first one of a key is written at once: from then on
//! an empty destination is noticed. Later ones are written together, at most every [`EVERY`], and by [`Meta::flush`]; after a
//! crash the remembered offset may be that much too old, which is harmless, since only its existence decides anything.
//! *Attempts* are durable when the call returns: they are counted before a retry that may end the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use garam_proto::LogOffset;
use garam_stage::{CursorKey, CursorMemory, Failure};
use serde_json::json;
use sqlx::query::{Query, QueryScalar};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};

use crate::Meta;
use crate::error::MetaError;
use crate::tables::now_us;

/// The shortest time between two writes of remembered cursors.
const EVERY: Duration = Duration::from_millis(500);

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
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    cursors: HashMap<CursorKey, Remembered>,
    written: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    next: LogOffset,
    is_stored: bool,
}

impl Memory {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a cursor; returns whether it is time to write.
    fn note(&self, key: &CursorKey, next: LogOffset, now: Instant) -> bool {
        let mut seen = self.seen();
        let remembered = Remembered { next, is_stored: false };
        let is_first = seen.cursors.insert(key.clone(), remembered).is_none();
        is_first || seen.written.is_none_or(|written| now.duration_since(written) >= EVERY)
    }

    fn get(&self, key: &CursorKey) -> Option<LogOffset> {
        self.seen().cursors.get(key).map(|remembered| remembered.next)
    }

    fn unstored(&self) -> Vec<(CursorKey, LogOffset)> {
        let seen = self.seen();
        let unstored = seen.cursors.iter().filter(|(_, remembered)| !remembered.is_stored);
        unstored.map(|(key, remembered)| (key.clone(), remembered.next)).collect()
    }

    fn stored(&self, cursors: &[(CursorKey, LogOffset)], now: Instant) {
        let mut seen = self.seen();
        seen.written = Some(now);
        for (key, next) in cursors {
            if let Some(remembered) = seen.cursors.get_mut(key)
                && remembered.next == *next
            {
                remembered.is_stored = true;
            }
        }
    }
}

impl Meta {
    /// Writes the cursors that are remembered in memory only. Called at shutdown.
    pub async fn flush(&self) -> Result<(), MetaError> {
        // Collected under the connection's lock, so that an older offset is never written over a newer one.
        let mut connection = self.connection.lock().await;
        let cursors = self.memory.unstored();
        if cursors.is_empty() {
            return Ok(());
        }
        self.store(&mut connection, &cursors).await?;
        self.memory.stored(&cursors, Instant::now());
        Ok(())
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
        if let Some(next) = self.memory.get(key) {
            return Ok(Some(next));
        }
        let sql = "SELECT next FROM cursors WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";
        let mut connection = self.connection.lock().await;
        let next: Option<i64> = scalar(sql, key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|source| self.error("read a remembered cursor from", source))?;
        Ok(next.map(|next| LogOffset(next.cast_unsigned())))
    }

    async fn remember(&self, key: &CursorKey, next: LogOffset) -> Result<(), Failure> {
        if self.memory.note(key, next, Instant::now()) {
            self.flush().await?;
        }
        Ok(())
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
        with_key(sqlx::query(sql), key)
            .execute(&mut *connection)
            .await
            .map_err(|source| self.error("clear attempts in", source))?;
        Ok(())
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

fn with_key(
    query: Query<'static, Sqlite, SqliteArguments>,
    key: &CursorKey,
) -> Query<'static, Sqlite, SqliteArguments> {
    query
        .bind(key.pipeline.to_string())
        .bind(i64::from(key.partition))
        .bind(i64::from(key.slots.first))
        .bind(i64::from(key.slots.last))
}

fn signed(next: LogOffset) -> Result<i64, MetaError> {
    i64::try_from(next.0)
        .map_err(|_| MetaError::TooLarge { what: "the cursor's offset", value: next.0 })
}

fn saturated(count: Option<i64>) -> u32 {
    u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use garam_proto::{LogOffset, PipelineId};
    use garam_stage::{CursorKey, SlotRange};

    use super::Memory;

    #[test]
    fn it_is_time_to_write_for_a_new_key_and_every_half_second() {
        let memory = Memory::default();
        let key = |partition| CursorKey {
            pipeline: PipelineId([1; 16]),
            partition,
            slots: SlotRange::ALL,
        };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(memory.note(&key(0), LogOffset(1), at(0)));
        memory.stored(&memory.unstored(), at(0));
        assert!(!memory.note(&key(0), LogOffset(2), at(499)));
        assert!(memory.note(&key(1), LogOffset(1), at(499)), "a key never seen before");
        assert!(memory.note(&key(0), LogOffset(3), at(500)));

        // What changed while it was being written is still to be written.
        let taken = memory.unstored();
        memory.note(&key(0), LogOffset(4), at(500));
        memory.stored(&taken, at(500));
        assert_eq!(memory.unstored(), [(key(0), LogOffset(4))]);
        assert_eq!(memory.get(&key(0)), Some(LogOffset(4)));
    }
}
