//! What operators decided for cursors that do not fit their log, until it is carried out.
//!
//! In: decisions of the command line, while the core runs or not. Out: the newest one of a cursor, to its flow. Promise: a
//! decision is on stable storage when [`Meta::decide`] returns; a later one for the same cursor takes its place.
//! Not here: whether a decision still holds (flow), which choices there are (`stage`).

use garam_proto::LogOffset;
use garam_stage::{CursorKey, Decision};
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use crate::Meta;
use crate::error::MetaError;
use crate::memory::{signed, with_key};
use crate::tables::now_us;

const STORE: &str = "\
INSERT INTO decisions (pipeline, partition, slot_first, slot_last, choice, stored_incarnation, stored_next, \
incarnation, next, gap_from, decided_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
ON CONFLICT (pipeline, partition, slot_first, slot_last) DO UPDATE SET choice = excluded.choice, \
stored_incarnation = excluded.stored_incarnation, stored_next = excluded.stored_next, \
incarnation = excluded.incarnation, next = excluded.next, gap_from = excluded.gap_from, decided_us = excluded.decided_us";

const READ: &str = "\
SELECT choice, stored_incarnation, stored_next, incarnation, next, gap_from FROM decisions \
WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";

const REMOVE: &str = "\
DELETE FROM decisions WHERE pipeline = ? AND partition = ? AND slot_first = ? AND slot_last = ?";

impl Meta {
    /// Keeps a decision for the key's flow.
    pub async fn decide(&self, key: &CursorKey, decision: &Decision) -> Result<(), MetaError> {
        let query = storing(key, decision)?;
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("keep a decision in", source))
    }

    pub(crate) async fn stored_decision(
        &self,
        key: &CursorKey,
    ) -> Result<Option<Decision>, MetaError> {
        let mut connection = self.connection.lock().await;
        let row = with_key(sqlx::query(READ), key).fetch_optional(&mut *connection).await;
        let row = row.map_err(|source| self.error("read a decision from", source))?;
        row.map(|row| self.decoded(&row)).transpose()
    }

    pub(crate) async fn remove_decision(&self, key: &CursorKey) -> Result<(), MetaError> {
        let mut connection = self.connection.lock().await;
        let done = with_key(sqlx::query(REMOVE), key).execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("remove a decision from", source))
    }

    fn decoded(&self, row: &SqliteRow) -> Result<Decision, MetaError> {
        let offset = |index| -> Result<Option<LogOffset>, MetaError> {
            let stored: Option<i64> = self.column(row, index)?;
            Ok(stored.map(|next| LogOffset(next.cast_unsigned())))
        };
        let life: Option<String> = self.column(row, 1)?;
        let stored = match (life, offset(2)?) {
            (Some(life), Some(next)) => {
                Some((self.parsed("a decision's life", Some(&life))?, next))
            }
            _ => None,
        };
        Ok(Decision {
            choice: self.parsed("a decision's choice", Some(&self.column(row, 0)?))?,
            stored,
            incarnation: self.parsed("a decision's incarnation", Some(&self.column(row, 3)?))?,
            to: offset(4)?.unwrap_or(LogOffset::ZERO),
            gap_from: offset(5)?,
        })
    }
}

/// The statement that keeps a decision.
pub(crate) fn storing(
    key: &CursorKey,
    decision: &Decision,
) -> Result<Query<'static, Sqlite, SqliteArguments>, MetaError> {
    let optional = |offset: Option<LogOffset>| offset.map(signed).transpose();
    Ok(with_key(sqlx::query(STORE), key)
        .bind(decision.choice.name())
        .bind(decision.stored.map(|(incarnation, _)| incarnation.to_string()))
        .bind(optional(decision.stored.map(|(_, next)| next))?)
        .bind(decision.incarnation.to_string())
        .bind(signed(decision.to)?)
        .bind(optional(decision.gap_from)?)
        .bind(now_us()))
}
