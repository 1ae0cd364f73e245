//! The tables and their versions.
//!
//! `application_id` says that the file is ours, `user_version` how many of [`MIGRATIONS`] it has seen. A migration is never
//! edited after a release, only followed by another; all that are missing run in one transaction.

use std::path::Path;

use garam_proto::ClusterId;
use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::error::MetaError;

/// `GARM`.
const APPLICATION_ID: i64 = 0x4741_524D;

/// The format this build writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

const MIGRATIONS: [&str; 7] = [
    "
CREATE TABLE installation (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  cluster TEXT NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;
CREATE TABLE streams (
  name TEXT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  first_seen_us INTEGER NOT NULL
) STRICT;
CREATE TABLE pipelines (
  name TEXT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  stream TEXT NOT NULL,
  destination TEXT NOT NULL,
  first_seen_us INTEGER NOT NULL
) STRICT;
CREATE TABLE plans (
  id INTEGER PRIMARY KEY,
  text TEXT NOT NULL,
  first_seen_us INTEGER NOT NULL
) STRICT;
CREATE TABLE agents (
  serial TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  name TEXT NOT NULL,
  issued_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL
) STRICT;
CREATE TABLE cursors (
  pipeline TEXT NOT NULL,
  partition INTEGER NOT NULL,
  slot_first INTEGER NOT NULL,
  slot_last INTEGER NOT NULL,
  next INTEGER NOT NULL,
  seen_us INTEGER NOT NULL,
  PRIMARY KEY (pipeline, partition, slot_first, slot_last)
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
  pipeline TEXT NOT NULL,
  partition INTEGER NOT NULL,
  slot_first INTEGER NOT NULL,
  slot_last INTEGER NOT NULL,
  next INTEGER NOT NULL,
  count INTEGER NOT NULL,
  last_us INTEGER NOT NULL,
  PRIMARY KEY (pipeline, partition, slot_first, slot_last)
) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE decisions (
  pipeline TEXT NOT NULL,
  partition INTEGER NOT NULL,
  slot_first INTEGER NOT NULL,
  slot_last INTEGER NOT NULL,
  choice TEXT NOT NULL,
  stored_incarnation TEXT,
  stored_next INTEGER,
  incarnation TEXT NOT NULL,
  next INTEGER NOT NULL,
  gap_from INTEGER,
  decided_us INTEGER NOT NULL,
  PRIMARY KEY (pipeline, partition, slot_first, slot_last)
) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE identities (
  agent TEXT PRIMARY KEY,
  host TEXT NOT NULL,
  policy TEXT,
  generation INTEGER NOT NULL,
  key_hash TEXT NOT NULL,
  next_generation INTEGER,
  next_key_hash TEXT,
  recoveries INTEGER NOT NULL DEFAULT 0,
  expires_us INTEGER NOT NULL,
  changed_us INTEGER NOT NULL
) STRICT;
CREATE TABLE revocations (
  agent TEXT NOT NULL,
  generation INTEGER NOT NULL,
  revoked_us INTEGER NOT NULL,
  PRIMARY KEY (agent, generation)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  secret_hash TEXT NOT NULL,
  host TEXT NOT NULL,
  policy TEXT,
  replaces TEXT,
  networks TEXT NOT NULL,
  uses INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL,
  revoked_us INTEGER
) STRICT;
CREATE TABLE enrolments (
  token TEXT NOT NULL,
  key_hash TEXT NOT NULL,
  agent TEXT NOT NULL,
  host TEXT NOT NULL,
  chain TEXT NOT NULL,
  enrolled_us INTEGER NOT NULL,
  PRIMARY KEY (token, key_hash)
) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE requests (
  id TEXT PRIMARY KEY,
  pipeline TEXT NOT NULL,
  what TEXT NOT NULL,
  reason TEXT,
  names TEXT NOT NULL,
  until INTEGER NOT NULL,
  incarnation TEXT NOT NULL,
  asked_us INTEGER NOT NULL,
  done_us INTEGER,
  taken INTEGER,
  unfit INTEGER,
  void INTEGER
) STRICT;
CREATE TABLE pauses (
  pipeline TEXT PRIMARY KEY,
  reason TEXT NOT NULL,
  since_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE definition (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  text TEXT NOT NULL,
  since_us INTEGER NOT NULL
) STRICT;
",
    "
ALTER TABLE plans ADD COLUMN recipe TEXT;
",
    "
CREATE TABLE slot_maps (
  pipeline TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL,
  parts TEXT NOT NULL,
  since_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
];

/// Refuses a file that is damaged, somebody else's or newer, before anything is changed.
pub(crate) async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), MetaError> {
    let failed = |source| MetaError::sql(path, "check", source);
    // One snapshot for all questions: another process may be making the file right now.
    sqlx::query("BEGIN").execute(&mut *connection).await.map_err(failed)?;
    let found: String = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if found != "ok" {
        return Err(MetaError::Damaged { path: path.to_owned(), found });
    }
    let application: i64 = sqlx::query_scalar("SELECT application_id FROM pragma_application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(MetaError::Foreign { path: path.to_owned() });
    }
    let found = version(connection, path).await?;
    if found > VERSION {
        return Err(MetaError::NewerFormat { path: path.to_owned(), found, supported: VERSION });
    }
    sqlx::query("COMMIT").execute(connection).await.map_err(failed)?;
    Ok(())
}

/// Runs the migrations the file has not seen, and mints the cluster's id for a new one.
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<ClusterId, MetaError> {
    let failed = |source| MetaError::sql(path, "migrate", source);
    // Nothing is written when nothing is to be done: a core must also start on a full disk.
    if version(connection, path).await? < VERSION {
        bring_up(connection).await.map_err(failed)?;
    }
    let cluster: String = sqlx::query_scalar("SELECT cluster FROM installation")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    cluster.parse().map_err(|_| MetaError::Stored {
        path: path.to_owned(),
        what: "the cluster id",
        found: cluster,
    })
}

async fn bring_up(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let run = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql));
    // A caller that is cancelled in here drops the connection, which rolls everything back.
    run("BEGIN IMMEDIATE".into()).execute(&mut *connection).await?;
    let seen = usize::try_from(format(connection).await?).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(seen) {
        run((*migration).to_owned()).execute(&mut *connection).await?;
    }
    let marks =
        format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}");
    run(marks).execute(&mut *connection).await?;
    sqlx::query("INSERT INTO installation VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
        .bind(uuid::Uuid::new_v4().to_string())
        .bind(crate::tables::now_us())
        .execute(&mut *connection)
        .await?;
    run("COMMIT".into()).execute(connection).await.map(drop)
}

async fn version(connection: &mut SqliteConnection, path: &Path) -> Result<i64, MetaError> {
    let read = format(connection).await;
    read.map_err(|source| MetaError::sql(path, "read the format of", source))
}

pub(crate) async fn format(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT user_version FROM pragma_user_version").fetch_one(connection).await
}

/// Refuses a newer file by its first bytes, at the places that SQLite's file format gives them: opening a file with
/// a write-ahead log, even only for reading, makes and removes files beside it. What only that log holds is found by [`check`].
pub(crate) fn check_header(path: &Path) -> Result<(), MetaError> {
    use std::io::Read as _;
    let mut header = [0; 100];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() {
        // Missing, empty or unreadable: opening it says which.
        return Ok(());
    }
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        i64::from(u32::from_be_bytes(bytes.unwrap_or_default()))
    };
    let (found, application) = (number(60), number(68));
    if header.starts_with(b"SQLite format 3\0") && application == APPLICATION_ID && found > VERSION
    {
        return Err(MetaError::NewerFormat { path: path.to_owned(), found, supported: VERSION });
    }
    Ok(())
}
