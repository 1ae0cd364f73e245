//! The copy beside the file: `meta.db.copy`, for the day on which the file is damaged or gone.
//!
//! In: the open file. Out: a whole SQLite file with the same rows, and what it says about the file at the next start.
//! Promise: whatever cannot be learned again (the cluster's id, the ids of pipelines and streams, plans, certificates, that
//! a cursor exists) is in the copy moments after it is in the file, and a copy is replaced only by a whole, synced one. Rows
//! of these tables are never removed and never changed, so whatever the copy holds and the file does not is the file's fault:
//! SQLite has no checksums of its own, and an id with a flipped bit would look like another pipeline.
//! Not here: using the copy. That is the operator's choice; the errors name it. A copy that cannot be read counts as none, one
//! that cannot be written is tried again by [`Meta::flush`]: it never keeps the core from working.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use sqlx::{ConnectOptions as _, Row as _, SqliteConnection};

use crate::{Meta, options};

/// One line per fact, its name first.
const REGISTRY: &str = "\
SELECT 'cluster id', cluster FROM installation UNION ALL \
SELECT 'id of pipeline ' || name, id FROM pipelines UNION ALL \
SELECT 'id of stream ' || name, id FROM streams UNION ALL \
SELECT 'text of plan ' || id, text FROM plans UNION ALL \
SELECT 'certificate ' || serial, agent FROM agents UNION ALL \
SELECT 'cursor of pipeline ' || pipeline || ' in partition ' || partition || ', slots ' || slot_first || ' to ' || slot_last, '' \
FROM cursors";

/// The same of format 3 and later. A revocation is never taken back: a later enrolment gets a higher generation.
const REGISTRY_OF_AGENTS: &str = "\
SELECT 'agent ' || agent, host FROM identities UNION ALL \
SELECT 'revocation of agent ' || agent || ' up to ' || generation, '' FROM revocations";

/// What cannot be learned again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Registry(BTreeMap<String, String>);

impl Registry {
    /// The first fact that `other` does not hold, by name.
    pub(crate) fn missing_in(&self, other: &Self) -> Option<String> {
        let missing = self.0.iter().find(|(name, value)| other.0.get(*name) != Some(value));
        missing.map(|(name, _)| name.clone())
    }
}

/// Where the copy of a file lies.
pub(crate) fn path_of(path: &Path) -> PathBuf {
    with_suffix(path, ".copy")
}

/// Everything of a file that cannot be learned again.
pub(crate) async fn registry(connection: &mut SqliteConnection) -> Result<Registry, sqlx::Error> {
    let mut rows = sqlx::query(REGISTRY).fetch_all(&mut *connection).await?;
    // A file of an older build is looked at before it is brought up.
    if crate::schema::format(connection).await? >= 3 {
        rows.extend(sqlx::query(REGISTRY_OF_AGENTS).fetch_all(connection).await?);
    }
    let facts = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok(Registry(facts.collect::<Result<_, sqlx::Error>>()?))
}

/// What the copy of a file holds; `None` without a copy that is whole.
pub(crate) async fn read(path: &Path) -> Option<Registry> {
    let copy = path_of(path);
    if !copy.try_exists().unwrap_or(false) {
        return None;
    }
    let read = async {
        let mut connection = options(&copy).read_only(true).connect().await?;
        let found: String =
            sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
        if found != "ok" {
            return Err(sqlx::Error::Protocol(found));
        }
        registry(&mut connection).await
    };
    match read.await {
        Ok(registry) => Some(registry),
        Err(error) => {
            tracing::warn!(path = %copy.display(), %error, "the copy of the metadata is damaged, it is made anew");
            None
        }
    }
}

impl Meta {
    /// Something new was stored, or may have been.
    pub(crate) async fn copy_anew(&self, connection: &mut SqliteConnection) {
        self.copy_is_behind.store(true, Ordering::Relaxed);
        self.copy(connection).await;
    }

    /// Brings the copy up to date, when it is not.
    pub(crate) async fn copy(&self, connection: &mut SqliteConnection) {
        if !self.copy_is_behind.load(Ordering::Relaxed) {
            return;
        }
        let made = async {
            let held = registry(connection).await.map_err(io::Error::other)?;
            if read(&self.path).await.as_ref() != Some(&held) {
                write(connection, &self.path).await?;
            }
            Ok::<_, io::Error>(())
        };
        match made.await {
            Ok(()) => self.copy_is_behind.store(false, Ordering::Relaxed),
            Err(error) => tracing::warn!(
                path = %path_of(&self.path).display(), %error,
                "cannot write the copy of the metadata, it is tried again"
            ),
        }
    }
}

async fn write(connection: &mut SqliteConnection, path: &Path) -> io::Result<()> {
    // Its own name per process: `garam agent issue` may do the same at this moment.
    let temporary = with_suffix(path, &format!(".copy.{}", std::process::id()));
    let written = async {
        remove(&temporary)?;
        let name = temporary.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        sqlx::query("VACUUM INTO ?")
            .bind(name.to_owned())
            .execute(connection)
            .await
            .map_err(io::Error::other)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, path_of(path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    let outcome = written.await;
    if outcome.is_err() {
        remove(&temporary)?;
    }
    outcome
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
