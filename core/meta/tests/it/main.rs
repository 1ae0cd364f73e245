//! The core's tables against real files: what is kept over a restart, what is refused.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod agents;
mod crash;
mod damage;
mod file;
mod full;
mod memory;
mod tables;

use std::path::PathBuf;
use std::sync::Arc;

use garam_meta::Meta;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tempfile::TempDir;

/// A data folder.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("meta.db")
    }

    async fn open(&self) -> Arc<Meta> {
        Meta::open(&self.path()).await.unwrap()
    }

    /// Runs SQL as another program would.
    async fn execute(&self, sql: &str) {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        let mut connection = options.create_if_missing(true).connect().await.unwrap();
        // A connection that was dropped just now closes on a thread of its own, and a change of the journal waits for nobody.
        for _ in 0..500 {
            let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
            match done {
                Err(error) if error.to_string().contains("database is locked") => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                done => {
                    done.unwrap();
                    return;
                }
            }
        }
        panic!("the database stays locked: {sql}");
    }

    /// What is on disk now, as another process sees it.
    async fn number(&self, sql: &str) -> i64 {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        let mut connection = options.connect().await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
    }
}
