//! What operators ask of a pipeline's quarantine, until it is done and after.
//!
//! In: requests of the command line, while the core runs or not. Out: those that are not done, to the pipeline's carrier, in
//! the order in which they were asked. Promise: a request is on stable storage when [`Meta::ask`] returns, and is never
//! removed: what happened to a record can be told later.
//! Not here: what a request means and its carrying out (`flow`).

use garam_proto::{Incarnation, LogOffset, PipelineId};
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use uuid::Uuid;

use crate::Meta;
use crate::error::MetaError;
use crate::memory::signed;
use crate::tables::now_us;

/// A request as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    pub id: Uuid,
    pub pipeline: PipelineId,
    /// `requeue` or `purge`; or `replay`, whose names are places in the log.
    pub what: String,
    /// Only records put aside for this reason.
    pub reason: Option<String>,
    /// Only these, as `17.0`; empty means all.
    pub names: Vec<String>,
    /// Only what lay in the quarantine before this offset.
    pub until: LogOffset,
    /// The life of the quarantine that the offsets are of.
    pub incarnation: Incarnation,
    pub asked_us: i64,
    pub done: Option<RequestDone>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestDone {
    pub at_us: i64,
    pub taken: u64,
    pub unfit: u64,
    /// The quarantine had become another one: nothing was done.
    pub is_void: bool,
}

const STORE: &str = "\
INSERT INTO requests (id, pipeline, what, reason, names, until, incarnation, asked_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

const READ: &str = "\
SELECT id, pipeline, what, reason, names, until, incarnation, asked_us, done_us, taken, unfit, void FROM requests \
ORDER BY asked_us, id";

const DONE: &str = "UPDATE requests SET done_us = ?, taken = ?, unfit = ?, void = ? WHERE id = ?";

impl Meta {
    /// Keeps a request for its pipeline's carrier.
    pub async fn ask(&self, request: &RequestRecord) -> Result<(), MetaError> {
        let query = sqlx::query(STORE)
            .bind(request.id.to_string())
            .bind(request.pipeline.to_string())
            .bind(request.what.clone())
            .bind(request.reason.clone())
            .bind(request.names.join(" "))
            .bind(signed(request.until)?)
            .bind(request.incarnation.to_string())
            .bind(request.asked_us);
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("keep a request in", source))
    }

    /// All requests ever, the oldest first.
    pub async fn requests(&self) -> Result<Vec<RequestRecord>, MetaError> {
        let rows = self.rows("list the requests of", READ).await?;
        rows.iter().map(|row| self.request(row)).collect()
    }

    /// The request is carried out.
    pub async fn done(
        &self,
        id: Uuid,
        taken: u64,
        unfit: u64,
        void: bool,
    ) -> Result<(), MetaError> {
        let query = finishing(id, taken, unfit, void);
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("finish a request in", source))
    }

    fn request(&self, row: &SqliteRow) -> Result<RequestRecord, MetaError> {
        let names: String = self.column(row, 4)?;
        let until: i64 = self.column(row, 5)?;
        let at_us: Option<i64> = self.column(row, 8)?;
        let count = |index| -> Result<u64, MetaError> {
            let stored: Option<i64> = self.column(row, index)?;
            Ok(stored.unwrap_or(0).cast_unsigned())
        };
        let (taken, unfit, void) = (count(9)?, count(10)?, count(11)?);
        Ok(RequestRecord {
            id: self.parsed("a request's id", Some(&self.column(row, 0)?))?,
            pipeline: self.parsed("a request's pipeline", Some(&self.column(row, 1)?))?,
            what: self.column(row, 2)?,
            reason: self.column(row, 3)?,
            names: names.split_whitespace().map(str::to_owned).collect(),
            until: LogOffset(until.cast_unsigned()),
            incarnation: self.parsed("a request's life", Some(&self.column(row, 6)?))?,
            asked_us: self.column(row, 7)?,
            done: at_us.map(|at_us| RequestDone { at_us, taken, unfit, is_void: void != 0 }),
        })
    }
}

/// The statement that says what became of a request.
pub(crate) fn finishing(
    id: Uuid,
    taken: u64,
    unfit: u64,
    void: bool,
) -> Query<'static, Sqlite, SqliteArguments> {
    let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(DONE)
        .bind(now_us())
        .bind(count(taken))
        .bind(count(unfit))
        .bind(i64::from(void))
        .bind(id.to_string())
}
