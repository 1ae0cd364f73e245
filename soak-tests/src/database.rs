//! The destination as it stands at the end: rows, counters, and a copy of it that canaries may damage.
//!
//! In: the SQLite file of a core that has stopped. Out: rows in the order of insertion to the oracle, the pipeline's own
//! counters. Promise: the destination itself is opened read-only; only a copy is ever changed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use crate::book::Id;
use crate::oracle::{Judge, Row};

/// The damage that proves that the oracle sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Canary {
    /// Delete one delivered row.
    #[value(name = "lose-one")]
    Lose,
    /// Deliver one row twice.
    #[value(name = "repeat-one")]
    Repeat,
    /// Change the content of one row.
    #[value(name = "alter-one")]
    Alter,
}

/// What the pipeline says it did, summed over its partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) records_in: u64,
    pub(crate) delivered: u64,
    pub(crate) quarantined: u64,
    pub(crate) dropped: u64,
    /// Units of known losses: bytes.
    pub(crate) gap: u64,
}

impl Counters {
    /// How many records are accounted for.
    pub(crate) fn settled(&self) -> u64 {
        self.delivered + self.quarantined + self.dropped
    }
}

/// Rows are read in pages, so that a long run does not fill the memory.
const PAGE: i64 = 20_000;

const ROWS: &str = "SELECT rowid, writer, seq, weight, digest, payload FROM soak \
WHERE rowid > ? ORDER BY rowid LIMIT ?";
const CURSORS: &str =
    "SELECT records_in, delivered, quarantined, gap_units, dropped FROM _garam_cursors";
const NEXTS: &str = "SELECT partition, next FROM _garam_cursors ORDER BY partition";
const LOSE_ROWS: &str = "DELETE FROM rows WHERE id % 3 = 0";
const EPOCHS: &str = "SELECT partition, epoch FROM _garam_cursors ORDER BY partition";
const HAS_CURSORS: &str = "SELECT count(*) FROM sqlite_master WHERE name = '_garam_cursors'";
const HAS_ROWS: &str = "SELECT count(*) FROM sqlite_master WHERE name = 'soak'";
const EXTENT: &str = "SELECT count(*), coalesce(max(rowid), 0) FROM soak WHERE rowid <= ?";
const IDS: &str = "SELECT writer, seq FROM soak";
const NTH: &str = "SELECT rowid FROM soak WHERE seq > 0 ORDER BY rowid LIMIT 1 OFFSET ?";
const LOSE: &str = "DELETE FROM soak WHERE rowid = ?";
const REPEAT: &str = "INSERT INTO soak (writer, seq, weight, digest, payload, _host, _path, _origin, \
_position, _ordinal, _version, _event_time, _ingest_time) SELECT writer, seq, weight, digest, payload, _host, _path, \
_origin, _position, _ordinal + 1, _version, _event_time, _ingest_time FROM soak WHERE rowid = ?";
const ALTER: &str = "UPDATE soak SET payload = payload || '!' WHERE rowid = ?";

/// Shows every row to the judge.
pub(crate) async fn read_rows(path: &Path, judge: &mut Judge<'_>) -> anyhow::Result<()> {
    let mut connection = open(path, true).await?;
    let mut after = i64::MIN;
    loop {
        let rows = sqlx::query(ROWS).bind(after).bind(PAGE).fetch_all(&mut connection).await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(0)?;
        for row in &rows {
            judge.row(&Row {
                writer: row.try_get(1)?,
                seq: row.try_get(2)?,
                weight: row.try_get(3)?,
                digest: row.try_get(4)?,
                payload: row.try_get(5)?,
            });
        }
    }
    Ok(connection.close().await?)
}

/// The counters that are kept with the rows.
pub(crate) async fn read_counters(path: &Path) -> anyhow::Result<Counters> {
    let mut connection = open(path, true).await?;
    let mut sum = Counters::default();
    for row in sqlx::query(CURSORS).fetch_all(&mut connection).await? {
        let number =
            |i: usize| -> anyhow::Result<u64> { Ok(u64::try_from(row.try_get::<i64, _>(i)?)?) };
        let reasons: String = row.try_get(4)?;
        let reasons: std::collections::BTreeMap<String, u64> = serde_json::from_str(&reasons)?;
        sum.records_in += number(0)?;
        sum.delivered += number(1)?;
        sum.quarantined += number(2)?;
        sum.gap += number(3)?;
        sum.dropped += reasons.values().sum::<u64>();
    }
    connection.close().await?;
    Ok(sum)
}

/// Removes every third row of a table `rows`, beside a core that uses it. Gives how many.
pub(crate) async fn lose_rows(path: &Path) -> anyhow::Result<u64> {
    let mut connection = open(path, false).await?;
    let lost = sqlx::query(LOSE_ROWS).execute(&mut connection).await?.rows_affected();
    connection.close().await?;
    Ok(lost)
}

/// By partition, how often the cursor was taken over.
pub(crate) async fn read_epochs(path: &Path) -> anyhow::Result<Vec<(i64, i64)>> {
    let mut connection = open(path, true).await?;
    let rows = sqlx::query_as(EPOCHS).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(rows)
}

/// Where the pipeline's cursors stand, by partition; none when there is no destination yet.
pub(crate) async fn read_cursors(path: &Path) -> anyhow::Result<Vec<(i64, i64)>> {
    if !path.try_exists()? {
        return Ok(Vec::new());
    }
    let mut connection = open(path, false).await?;
    let exists: i64 = sqlx::query_scalar(HAS_CURSORS).fetch_one(&mut connection).await?;
    let rows = match exists {
        0 => Vec::new(),
        _ => sqlx::query_as(NEXTS).fetch_all(&mut connection).await?,
    };
    connection.close().await?;
    Ok(rows)
}

/// How many rows there are, and the number of the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) rows: i64,
    pub(crate) newest: i64,
}

/// The extent of a destination, perhaps as far as an older one went. Rows that can be seen are committed.
pub(crate) async fn extent(path: &Path, up_to: Option<i64>) -> anyhow::Result<Extent> {
    if !path.try_exists()? {
        return Ok(Extent::default());
    }
    // A live destination is only looked at; in a copy what the cut left may be finished.
    let mut connection = open(path, up_to.is_none()).await?;
    let exists: i64 = sqlx::query_scalar(HAS_ROWS).fetch_one(&mut connection).await?;
    let (rows, newest) = match exists {
        0 => (0, 0),
        _ => {
            let extent = sqlx::query_as(EXTENT).bind(up_to.unwrap_or(i64::MAX));
            extent.fetch_one(&mut connection).await?
        }
    };
    connection.close().await?;
    Ok(Extent { rows, newest })
}

/// The id of every row, heads as number 0.
pub(crate) async fn read_ids(path: &Path) -> anyhow::Result<HashSet<Id>> {
    if !path.try_exists()? {
        return Ok(HashSet::new());
    }
    let mut connection = open(path, false).await?;
    let exists: i64 = sqlx::query_scalar(HAS_ROWS).fetch_one(&mut connection).await?;
    let mut ids = HashSet::new();
    if exists > 0 {
        let rows: Vec<(i64, i64)> = sqlx::query_as(IDS).fetch_all(&mut connection).await?;
        for (writer, seq) in rows {
            ids.insert(Id { writer: u32::try_from(writer)?, seq: u64::try_from(seq)? });
        }
    }
    connection.close().await?;
    Ok(ids)
}

/// Copies the database with its log into a folder, byte for byte; a torn copy of a torn database is as good.
pub(crate) fn copy(path: &Path, copy: &Path) -> anyhow::Result<()> {
    for suffix in ["", "-wal", "-journal"] {
        let part = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if part(path).try_exists()? {
            fs::copy(part(path), part(copy)).context("cannot copy the destination")?;
        }
    }
    Ok(())
}

/// Puts a copy in a destination's place. Nobody has it open.
pub(crate) fn replace(path: &Path, with: &Path) -> anyhow::Result<()> {
    for suffix in ["-wal", "-shm"] {
        let _absent = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    copy(with, path)
}

/// Another writer that has begun and does not end: nobody else can write meanwhile.
pub(crate) struct Lock(SqliteConnection);

/// Takes the write lock of a destination.
pub(crate) async fn lock(path: &Path) -> anyhow::Result<Lock> {
    let mut connection = open(path, false).await?;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
    Ok(Lock(connection))
}

impl Lock {
    pub(crate) async fn release(mut self) -> anyhow::Result<()> {
        sqlx::query("ROLLBACK").execute(&mut self.0).await?;
        Ok(self.0.close().await?)
    }
}

/// Copies the database into a folder and damages one row of the copy.
pub(crate) async fn damaged_copy(
    path: &Path,
    folder: &Path,
    canary: Canary,
    seed: u64,
) -> anyhow::Result<PathBuf> {
    let copy = folder.join("canary.sqlite");
    self::copy(path, &copy)?;
    let mut connection = open(&copy, false).await?;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM soak WHERE seq > 0")
        .fetch_one(&mut connection)
        .await?;
    anyhow::ensure!(rows > 0, "nothing was delivered, so there is nothing to damage");
    let nth = fastrand::Rng::with_seed(seed).i64(0..rows);
    let victim: i64 = sqlx::query_scalar(NTH).bind(nth).fetch_one(&mut connection).await?;
    let damage = match canary {
        Canary::Lose => LOSE,
        Canary::Repeat => REPEAT,
        Canary::Alter => ALTER,
    };
    let done = sqlx::query(damage).bind(victim).execute(&mut connection).await?;
    anyhow::ensure!(done.rows_affected() == 1, "the canary damaged nothing");
    connection.close().await?;
    Ok(copy)
}

async fn open(path: &Path, read_only: bool) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(read_only)
        .busy_timeout(std::time::Duration::from_secs(30))
        .disable_statement_logging();
    options.connect().await.with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::{Book, Chapter};
    use crate::generate::record::Members;
    use crate::oracle::Judgement;

    const TABLE: &str = "CREATE TABLE soak (writer INTEGER NOT NULL, seq INTEGER NOT NULL, weight INTEGER NOT NULL, \
digest TEXT NOT NULL, payload TEXT NOT NULL, _rest TEXT, _host TEXT NOT NULL, _path TEXT NOT NULL, \
_origin BLOB NOT NULL, _position ANY NOT NULL, _ordinal INTEGER NOT NULL, _version BLOB NOT NULL, _event_time TEXT, \
_ingest_time TEXT NOT NULL, UNIQUE (_origin, _position, _ordinal)) STRICT";
    const ROW: &str =
        "INSERT INTO soak VALUES (?, ?, ?, ?, ?, NULL, 'h', '/p', x'01', ?, 0, x'00', NULL, '')";
    const CURSOR_TABLE: &str =
        "CREATE TABLE _garam_cursors (records_in, delivered, quarantined, gap_units, dropped)";

    /// A destination with twenty rows, as the core would leave it, and its book.
    async fn destination(path: &Path) -> Book {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        for sql in [TABLE, CURSOR_TABLE] {
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
        let cursor = "INSERT INTO _garam_cursors VALUES (10, 8, 1, 5, '{\"filtered\":1}'), (12, 12, 0, 0, '{}')";
        sqlx::query(cursor).execute(&mut connection).await.unwrap();
        let mut chapter = Chapter::default();
        for seq in 1..=20_u64 {
            let members = Members { id: Id { writer: 0, seq }, weight: 1, payload: "x" };
            chapter.note(seq, members.line(None).1);
            sqlx::query(ROW)
                .bind(0)
                .bind(i64::try_from(seq).unwrap())
                .bind(1)
                .bind(format!("{:016x}", members.digest()))
                .bind("x")
                .bind(i64::try_from(seq).unwrap())
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
        Book { chapters: vec![chapter] }
    }

    async fn judge(path: &Path, book: &Book) -> Judgement {
        let mut judge = Judge::new(book);
        read_rows(path, &mut judge).await.unwrap();
        judge.finish()
    }

    #[tokio::test]
    async fn each_canary_is_seen_in_the_copy_and_the_destination_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.sqlite");
        let book = destination(&path).await;
        let errors =
            |found: &Judgement| [found.lost, found.duplicated, found.reordered, found.altered];
        for (canary, expected) in [
            (Canary::Lose, [1, 0, 0, 0]),
            (Canary::Repeat, [0, 1, 0, 0]),
            (Canary::Alter, [0, 0, 0, 1]),
        ] {
            let elsewhere = tempfile::tempdir().unwrap();
            let copy = damaged_copy(&path, elsewhere.path(), canary, 7).await.unwrap();
            assert_eq!(errors(&judge(&copy, &book).await), expected, "{canary:?}");
        }
        let whole = judge(&path, &book).await;
        assert_eq!((errors(&whole), whole.delivered), ([0; 4], 20));
    }

    #[tokio::test]
    async fn counters_are_summed_over_partitions_and_reasons() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.sqlite");
        destination(&path).await;
        let expected =
            Counters { records_in: 22, delivered: 20, quarantined: 1, dropped: 1, gap: 5 };
        assert_eq!(read_counters(&path).await.unwrap(), expected);
    }
}
