//! What the core runs by, as a text, so that a changed configuration can be compared with it while no core runs.
//!
//! In: the text, at each start and each reload. Out: the same, to a running core or to a look at the file alone. Promise: it is on
//! stable storage when [`Meta::define`] returns; [`recorded_definition`] changes nothing. Not here: what the text says.

use std::path::Path;

use sqlx::ConnectOptions as _;

use crate::error::MetaError;
use crate::tables::now_us;
use crate::{Meta, options, schema};

/// The format that has it first.
const SINCE_FORMAT: i64 = 5;

const STORE: &str = "\
INSERT INTO definition (one, text, since_us) VALUES (1, ?, ?) \
ON CONFLICT (one) DO UPDATE SET text = excluded.text, since_us = excluded.since_us";

const READ: &str = "SELECT text FROM definition";

impl Meta {
    /// Notes what the core runs by. What stands there already is not written again: a core must also start on a full disk.
    pub async fn define(&self, text: &str) -> Result<(), MetaError> {
        let mut connection = self.connection.lock().await;
        let known: Vec<String> = sqlx::query_scalar(READ)
            .fetch_all(&mut *connection)
            .await
            .map_err(|source| self.error("read the definition from", source))?;
        if known.first().is_some_and(|known| known == text) {
            return Ok(());
        }
        let query = sqlx::query(STORE).bind(text.to_owned()).bind(now_us());
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("note the definition in", source))
    }
}

/// What the core of a file ran by last; `None` without a file, or where none was noted yet.
pub async fn recorded_definition(path: &Path) -> Result<Option<String>, MetaError> {
    if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return Ok(None);
    }
    let failed = |source| MetaError::sql(path, "read the definition from", source);
    let mut connection = options(path).read_only(true).connect().await.map_err(failed)?;
    if schema::format(&mut connection).await.map_err(failed)? < SINCE_FORMAT {
        return Ok(None);
    }
    let found: Vec<String> =
        sqlx::query_scalar(READ).fetch_all(&mut connection).await.map_err(failed)?;
    Ok(found.into_iter().next())
}
