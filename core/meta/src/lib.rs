//! The core's small durable tables, in one SQLite file of the data folder.
//!
//! In: what the core learns once and must not forget. Out: the same, after any crash. Promise: what a call returned as done
//! is on stable storage (WAL, `synchronous = FULL`), with one documented exception: where a cursor stands is written by
//! [`Meta::flush`] ([`memory`]), so that delivery never waits for this file. A file of a newer version, of another program,
//! with damage, or that contradicts its own copy ([`copy`]) is refused, never repaired and never changed.
//!
//! ```text
//! installation   the cluster's id, minted when the file is made
//! streams        name → id          pipelines   name → id, stream, destination          ids are minted at first sight
//! plans          id → full text     agents      certificates issued, by serial number
//! identities     who an agent is: its host, policy, the key it is bound to and the one it may change to
//! revocations    agent → the generation up to which its certificates count no more; rows are never removed
//! tokens         what may still enrol (only a hash of each secret); enrolments: by which key a token was used, and the answer
//! decisions      what an operator decided for a cursor that does not fit its log, until it is carried out
//! requests       what operators asked of a quarantine, and what became of it; rows are never removed
//! pauses         pipelines that an operator told to wait, and why
//! slot_maps      which shard of a destination takes which slots of a key
//! definition     what the core runs by, to compare a changed configuration with
//! cursors        the last cursor seen per pipeline, partition and slots; attempts: failed deliveries from an offset
//! ```
//!
//! Not here: cursors themselves (the destination keeps them with the rows), the log's registry of origins (the log), secrets.
//! Reading order: [`schema`] (tables and their versions) → [`copy`] → [`tables`] (names, plans, certificates) → [`identities`],
//! [`tokens`] → [`memory`], [`decisions`], [`requests`], [`replays`], [`pauses`], [`slot_maps`], [`definition`] → [`backup`] → [`error`].
#![forbid(unsafe_code)]

mod backup;
mod copy;
mod decisions;
mod definition;
mod error;
mod identities;
mod memory;
mod pauses;
mod replays;
mod requests;
mod schema;
mod slot_maps;
mod tables;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use garam_proto::ClusterId;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

pub use backup::{CopySummary, RememberedCursor, copy_file, inspect_copy};
pub use definition::recorded_definition;
pub use error::MetaError;
pub use identities::{Grant, GrantError, Identity, KeyHash, Proposal, Proven, Signed};
pub use pauses::Pause;
pub use requests::{RequestDone, RequestRecord};
pub use schema::VERSION;
pub use tables::{IssuedAgent, PipelineRecord};
pub use tokens::{Enrolled, Enrolment, NewToken, TokenRecord, Unusable};

use memory::Memory;

/// How long a statement waits for another process, such as `garam agent issue`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The open file.
///
/// There is one connection. Every call is a single statement that commits by itself, so a call that is cancelled has
/// happened or not, and leaves no transaction open. What needs several statements in one commit (a new key) takes a connection
/// of its own for it, which rolls back when it is dropped.
#[derive(Debug)]
pub struct Meta {
    path: PathBuf,
    connection: tokio::sync::Mutex<SqliteConnection>,
    cluster: ClusterId,
    memory: Memory,
    /// The copy lacks something that this file has.
    copy_is_behind: AtomicBool,
}

impl Meta {
    /// Opens or makes the file, checks it and brings it to this version.
    pub async fn open(path: &Path) -> Result<Arc<Self>, MetaError> {
        let failed = |source| MetaError::sql(path, "open", source);
        inspect(path).await?;
        // Only now that the file is known to be ours and whole may it be changed.
        let mut connection = options(path)
            .create_if_missing(true)
            .pragma("synchronous", "FULL")
            .connect()
            .await
            .map_err(failed)?;
        enter_wal(&mut connection).await.map_err(failed)?;
        let cluster = schema::migrate(&mut connection, path).await?;
        let meta = Self {
            path: path.to_owned(),
            connection: tokio::sync::Mutex::new(connection),
            cluster,
            memory: Memory::default(),
            copy_is_behind: AtomicBool::new(true),
        };
        meta.copy(&mut *meta.connection.lock().await).await;
        Ok(Arc::new(meta))
    }

    /// Refuses a file of a newer version, and changes nothing: no file beside it is made either. A missing one is fine. Not while
    /// this process has it open: closing any of its descriptors gives up SQLite's locks.
    pub fn check_version(path: &Path) -> Result<(), MetaError> {
        schema::check_header(path)
    }

    /// Which installation this is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    fn error(&self, action: &'static str, source: sqlx::Error) -> MetaError {
        MetaError::sql(&self.path, action, source)
    }
}

/// Refuses a file that is damaged, somebody else's or newer, and one that its copy contradicts. A reader's connection, so
/// that not even the write-ahead log of a refused file is touched.
async fn inspect(path: &Path) -> Result<(), MetaError> {
    // The copy first: whatever it holds was in the file before.
    let copied = copy::read(path).await;
    // Missing or empty. SQLite would remove the write-ahead log of an empty file.
    if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return match copied {
            Some(_) => Err(MetaError::Missing { path: path.to_owned() }),
            None => Ok(()),
        };
    }
    let failed = |source| MetaError::sql(path, "open", source);
    let mut connection = options(path).read_only(true).connect().await.map_err(failed)?;
    schema::check(&mut connection, path).await?;
    if let Some(copied) = copied {
        let held = copy::registry(&mut connection).await.map_err(failed)?;
        if let Some(what) = copied.missing_in(&held) {
            return Err(MetaError::OtherThanCopy { path: path.to_owned(), what });
        }
    }
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// Switches to the write-ahead log. Where two processes do so at the same moment SQLite gives one of them up at once
/// instead of letting it wait, so the waiting is done here.
async fn enter_wal(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let deadline = tokio::time::Instant::now() + BUSY_TIMEOUT;
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await {
            Err(error)
                if error::is_contention(&error) && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => return done.map(|_| ()),
        }
    }
}
