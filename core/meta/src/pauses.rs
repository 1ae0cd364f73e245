//! Pipelines that an operator told to wait, with the reason, until one lets them go on.
//!
//! Promise: a pause is on stable storage when [`Meta::pause`] returns, and holds over restarts. Not here: what it means.

use garam_proto::PipelineId;

use crate::Meta;
use crate::error::MetaError;
use crate::tables::now_us;

/// Why a pipeline waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    pub reason: String,
    pub since_us: i64,
}

const STORE: &str = "\
INSERT INTO pauses (pipeline, reason, since_us) VALUES (?, ?, ?) \
ON CONFLICT (pipeline) DO UPDATE SET reason = excluded.reason";

const READ: &str = "SELECT reason, since_us FROM pauses WHERE pipeline = ?";

const REMOVE: &str = "DELETE FROM pauses WHERE pipeline = ?";

impl Meta {
    /// Lets a pipeline wait. One that waits already keeps its time and gets the new reason.
    pub async fn pause(&self, pipeline: PipelineId, reason: &str) -> Result<(), MetaError> {
        let query =
            sqlx::query(STORE).bind(pipeline.to_string()).bind(reason.to_owned()).bind(now_us());
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("keep a pause in", source))
    }

    /// Why a pipeline waits, if it does.
    pub async fn paused(&self, pipeline: PipelineId) -> Result<Option<Pause>, MetaError> {
        let query = sqlx::query(READ).bind(pipeline.to_string());
        let mut connection = self.connection.lock().await;
        let rows = query.fetch_all(&mut *connection).await;
        let rows = rows.map_err(|source| self.error("read a pause of", source))?;
        let pause = rows
            .first()
            .map(|row| Ok(Pause { reason: self.column(row, 0)?, since_us: self.column(row, 1)? }));
        pause.transpose()
    }

    /// Lets it go on. `false`: it did not wait.
    pub async fn go_on(&self, pipeline: PipelineId) -> Result<bool, MetaError> {
        let query = sqlx::query(REMOVE).bind(pipeline.to_string());
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        let done = done.map_err(|source| self.error("end a pause in", source))?;
        Ok(done.rows_affected() > 0)
    }
}
