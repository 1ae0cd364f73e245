//! A whole copy of the file for a backup, and a look into such a copy.
//!
//! In: the file of a running or a stopped core. Out: one SQLite file without a write-ahead log, of one moment. Promise: the
//! original is opened for reading only; a file that is damaged, another program's or newer is refused. The copy is synced by
//! whoever gives it its name. Not here: when a backup is taken, what else is in it.

use std::path::Path;

use garam_proto::{LogOffset, PipelineId};
use sqlx::{ConnectOptions as _, Row as _};

use crate::error::MetaError;
use crate::{options, schema};

/// What a copy says, as far as a backup needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySummary {
    pub cluster: String,
    /// The format it has.
    pub version: i64,
    pub cursors: Vec<RememberedCursor>,
    /// The stream each pipeline reads, one for each.
    pub pipelines: Vec<String>,
}

/// Where a pipeline stood, or a little further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedCursor {
    pub pipeline: PipelineId,
    pub stream: String,
    pub partition: u32,
    pub next: LogOffset,
}

const CURSORS: &str = "\
SELECT c.pipeline, p.stream, c.partition, min(c.next) FROM cursors c JOIN pipelines p ON p.id = c.pipeline \
GROUP BY c.pipeline, c.partition";

/// Copies the file at `path` to `copy`, which must not exist.
pub async fn copy_file(path: &Path, copy: &Path) -> Result<(), MetaError> {
    let failed = |source| MetaError::sql(path, "copy", source);
    let mut connection = options(path).read_only(true).connect().await.map_err(failed)?;
    schema::check(&mut connection, path).await?;
    let name = copy.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await.map_err(failed)?;
    Ok(())
}

/// Checks a copy wholly and says what it holds. Nothing is changed.
pub async fn inspect_copy(path: &Path) -> Result<CopySummary, MetaError> {
    let failed = |source| MetaError::sql(path, "read", source);
    // Nobody writes to a copy: SQLite then needs no files beside it.
    let mut connection =
        options(path).read_only(true).immutable(true).connect().await.map_err(failed)?;
    schema::check(&mut connection, path).await?;
    let wrong = |what, found: String| MetaError::Stored { path: path.to_owned(), what, found };
    let cluster: Option<String> = sqlx::query_scalar("SELECT cluster FROM installation")
        .fetch_optional(&mut connection)
        .await
        .map_err(failed)?;
    let version: i64 = sqlx::query_scalar("SELECT user_version FROM pragma_user_version")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    let mut cursors = Vec::new();
    for row in sqlx::query(CURSORS).fetch_all(&mut connection).await.map_err(failed)? {
        let pipeline: String = row.try_get(0).map_err(failed)?;
        let partition: i64 = row.try_get(2).map_err(failed)?;
        let next: i64 = row.try_get(3).map_err(failed)?;
        cursors.push(RememberedCursor {
            pipeline: pipeline.parse().map_err(|_| wrong("a pipeline's id", pipeline.clone()))?,
            stream: row.try_get(1).map_err(failed)?,
            partition: u32::try_from(partition)
                .map_err(|_| wrong("a partition", partition.to_string()))?,
            next: LogOffset(next.cast_unsigned()),
        });
    }
    let pipelines: Vec<String> = sqlx::query_scalar("SELECT stream FROM pipelines")
        .fetch_all(&mut connection)
        .await
        .map_err(failed)?;
    let cluster = cluster.ok_or_else(|| wrong("the cluster id", String::new()))?;
    Ok(CopySummary { cluster, version, cursors, pipelines })
}
