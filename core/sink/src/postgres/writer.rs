//! The destination itself: decides what goes into a transaction and what becomes of it.
//!
//! In: batches in order. Out: `Written` after COMMIT, or `Refused` after ROLLBACK with all rows that stand in the way.
//!
//! A batch is tried at once. When the content of a row makes a statement fail, the server has given up the transaction: it is
//! begun again, every statement under a savepoint, and a statement that fails is cut in half until the rows that stand in the
//! way are found. Records that change nothing (repeated, stale, existing, missing) move from `delivered` to `dropped`, so that
//! `delivered` remains the number of records that the table has seen.

use std::collections::BTreeMap;

use async_trait::async_trait;
use garam_stage::{Cursor, CursorKey, Destination, Failure, Outcome, Refusal, StagedBatch};
use sqlx::{AssertSqlSafe, Row as _};

use super::client::{Client, Transaction};
use super::copy::{Copied, copy};
use super::cursors::CursorTable;
use super::encode::Encoder;
use super::error::{Cause, OnlyPostgres, PostgresError, cause};
use super::table::Table;
use crate::changes::{Act, Acts};
use crate::contract::{broken_rule, cursor_without, own_words};
use crate::fold::{EXISTING, Folded, MISSING, Meeting, REPEATED, STALE, fold};
use crate::halves::{self, Halves, NOTHING_OPEN, Tried};
use crate::limits::{Limit, too_long};
use crate::mode::Mode;
use crate::sqlite::Create;
use crate::table::TableError;

/// The most rows of a statement: more gain nothing and take longer to repeat.
const MAX_ROWS: usize = 2_000;
/// About the most bytes of a statement.
const MAX_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct PostgresWriter {
    pub(super) client: Client,
    pub(super) table: Table,
    pub(super) cursors: CursorTable,
    pub(super) create: Create,
    /// What its text columns hold at most.
    pub(super) limits: Vec<Option<Limit>>,
    /// Whether the table takes by COPY what it would take by INSERT.
    pub(super) suits_copy: bool,
    /// The last batch met rows that were there already: a cursor was set back, and the next one will too.
    pub(super) repeats: bool,
    /// Between the halves of a write.
    open: Option<Transaction>,
}

/// What became of a batch inside its transaction.
enum Applied {
    All {
        cursor: Cursor,
        /// Rows were there already.
        repeats: bool,
    },
    Refused {
        rows: Vec<Refusal>,
    },
    /// The content of a row ended the transaction; which one is not known.
    SomeRow,
}

/// How a statement is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// A failure ends the transaction.
    None,
    /// Under a savepoint: a failure undoes the statement alone.
    Savepoint,
}

/// A batch on its way in: what is known of its rows so far.
pub(super) struct Work<'a> {
    encoder: Encoder<'a>,
    acts: Acts<'a>,
    /// The table loses all its rows first.
    empties: bool,
    pub(super) folded: Folded,
    refused: Vec<Refusal>,
    /// A record has several rows, so it must be known of each row what became of it.
    by_row: bool,
}

impl PostgresWriter {
    pub(crate) fn new(client: Client, table: Table, create: Create) -> Self {
        let cursors = CursorTable::beside(&table);
        let limits = Vec::new();
        let (suits_copy, repeats, open) = (false, false, None);
        Self { client, table, cursors, create, limits, suits_copy, repeats, open }
    }

    /// Applies a batch in a transaction of its own, which is handed back open.
    async fn attempt(
        &mut self,
        batch: &StagedBatch,
    ) -> Result<(Transaction, Applied), PostgresError> {
        let mut transaction = self.client.begin().await?;
        let mut applied = self.apply(&mut transaction, batch, Care::None).await?;
        if matches!(applied, Applied::SomeRow) {
            self.client.rollback(transaction).await;
            transaction = self.client.begin().await?;
            applied = self.apply(&mut transaction, batch, Care::Savepoint).await?;
        }
        if let Applied::All { repeats, .. } = applied {
            self.repeats = repeats;
        }
        Ok((transaction, applied))
    }

    /// Moves the cursor and writes the rows inside the transaction.
    async fn apply(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
        care: Care,
    ) -> Result<Applied, PostgresError> {
        if let Some(why) = broken_rule(batch) {
            return Err(PostgresError::Batch { why });
        }
        self.cursors.advance(&self.client, transaction, &batch.from, &batch.to).await?;
        let mut work = self.work(batch)?;
        if care == Care::None && self.may_copy(transaction, &work) {
            let rows = &work.folded.write;
            return match copy(&self.client, transaction, &self.table, &work.encoder, rows).await? {
                Copied::All => Ok(Applied::All { cursor: batch.to.clone(), repeats: false }),
                Copied::SomeRow => Ok(Applied::SomeRow),
                Copied::Fewer { missing } => Err(self.vanished(rows.len(), missing)),
            };
        }
        let size = match work.by_row {
            true => 1,
            false => rows_of_a_statement(batch),
        };
        if work.empties {
            self.empty(transaction).await?;
        }
        let write = std::mem::take(&mut work.folded.write);
        let delete = std::mem::take(&mut work.folded.delete);
        // A stack: deletes come first, so that what they free can be taken.
        let parts = write.chunks(size).rev().chain(delete.chunks(size.max(MAX_ROWS)).rev());
        let mut pending: Vec<Vec<usize>> = parts.map(<[_]>::to_vec).collect();
        while let Some(rows) = pending.pop() {
            let Some(detail) = self.write_rows(transaction, &mut work, &rows, care).await? else {
                continue;
            };
            if care == Care::None {
                return Ok(Applied::SomeRow);
            }
            match *rows {
                [row] => {
                    work.refused.push(Refusal { row, detail });
                    pending.extend(work.folded.next(row, work.acts).map(|row| vec![row]));
                }
                _ => {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    pending.extend([right.to_vec(), left.to_vec()]);
                }
            }
        }
        if !work.refused.is_empty() {
            work.refused.sort_unstable_by_key(|refusal| refusal.row);
            return Ok(Applied::Refused { rows: work.refused });
        }
        let cursor = self.count_dropped(transaction, batch, &work.folded.dropped).await?;
        let repeats = work.folded.dropped.values().any(|&reason| reason == REPEATED);
        Ok(Applied::All { cursor, repeats })
    }

    /// Whether COPY may be tried: where some of the rows are there already, it could only fail.
    fn may_copy(&self, transaction: &Transaction, work: &Work<'_>) -> bool {
        self.table.mode == Mode::Append
            && self.suits_copy
            && !self.repeats
            && transaction.prompt
            && work.refused.is_empty()
            && !work.folded.write.is_empty()
    }

    pub(super) fn vanished(&self, rows: usize, missing: u64) -> PostgresError {
        OnlyPostgres::RowsVanished { table: self.table.display_name(), rows, missing }.into()
    }

    fn work<'a>(&'a self, batch: &'a StagedBatch) -> Result<Work<'a>, PostgresError> {
        let encoder = Encoder::new(&self.table, &batch.rows)?;
        let too_long = too_long(&encoder.columns, &self.limits);
        let mut unstorable: BTreeMap<usize, String> =
            too_long.into_iter().chain(encoder.unstorable()).collect();
        let acts = Acts::of(&batch.rows, self.table.obeys.is_some());
        let (all, name) = (batch.rows.num_rows(), || self.table.display_name());
        let mut kept = acts.kept(all, self.table.obeys, name).map_err(TableError::from)?;
        let (mode, version) = (self.table.mode, self.table.version);
        unstorable.retain(|row, _| kept.rows.binary_search(row).is_ok());
        kept.rows.retain(|row| !unstorable.contains_key(row));
        let meeting = Meeting { mode, unique: &self.table.unique, version, acts };
        let mut folded = fold(meeting, &encoder.columns, &kept.rows);
        folded.dropped.extend(kept.dropped);
        let refused = unstorable.into_iter().map(|(row, detail)| Refusal { row, detail }).collect();
        let several = batch.sources.windows(2).any(|two| two.first() == two.last());
        let counts = matches!(self.table.mode, Mode::Append | Mode::Ignore);
        let empties = kept.empties;
        Ok(Work { encoder, acts, empties, folded, refused, by_row: several && counts })
    }

    /// Writes some rows. `Some`: nothing of them is in, because of a row's content.
    async fn write_rows(
        &self,
        transaction: &mut Transaction,
        work: &mut Work<'_>,
        rows: &[usize],
        care: Care,
    ) -> Result<Option<String>, PostgresError> {
        if care == Care::Savepoint {
            self.simple(transaction, "SAVEPOINT part").await?;
        }
        let deletes = rows.first().is_some_and(|&row| work.acts.get(row) == Act::Delete);
        let columns: Vec<usize> = match deletes {
            true => self.table.unique.clone(),
            false => work.encoder.columns.all().collect(),
        };
        let sql = if deletes { &self.table.delete } else { &self.table.write };
        match self.run(transaction, sql, &work.encoder, columns, rows).await {
            Ok(changed) => {
                match deletes {
                    true => self.explain_delete(transaction, work, rows, changed).await?,
                    false => self.explain(transaction, work, rows, changed).await?,
                }
                if care == Care::Savepoint {
                    self.simple(transaction, "RELEASE SAVEPOINT part").await?;
                }
                Ok(None)
            }
            Err(PostgresError::Database { source, .. }) if cause(&source) == Cause::Row => {
                if care == Care::Savepoint {
                    self.simple(transaction, "ROLLBACK TO SAVEPOINT part").await?;
                }
                Ok(Some(own_words(&source)))
            }
            Err(error) => Err(error),
        }
    }

    /// Finds out why a statement changed fewer rows than it was given.
    async fn explain(
        &self,
        transaction: &mut Transaction,
        work: &mut Work<'_>,
        rows: &[usize],
        changed: u64,
    ) -> Result<(), PostgresError> {
        let unchanged = rows.len() - usize::try_from(changed).unwrap_or(0).min(rows.len());
        if unchanged == 0 {
            return Ok(());
        }
        let table = &self.table;
        let key = || table.unique.iter().copied();
        let absent = self.numbers(transaction, &table.absent, work, key(), rows).await?;
        let mut explained = 0;
        if table.mode == Mode::Update {
            explained += absent.len();
            absent.iter().for_each(|&row| work.folded.drop_with_earlier(row, MISSING));
        } else if let Some(missing) = u64::try_from(absent.len()).ok().filter(|&n| n > 0) {
            return Err(self.vanished(rows.len(), missing));
        }
        match (table.mode, &table.newer, table.version) {
            (Mode::Append | Mode::Ignore, ..) => {
                // Which of them does not matter: each row is a record of its own, or the statement has one row.
                let reason = if table.mode == Mode::Append { REPEATED } else { EXISTING };
                work.folded.dropped.extend(rows.iter().take(unchanged).map(|&row| (row, reason)));
                explained += unchanged;
            }
            (_, Some(newer), Some(version)) => {
                let columns = key().chain([version]);
                let stale = self.numbers(transaction, newer, work, columns, rows).await?;
                explained += stale.len();
                stale.iter().for_each(|&row| work.folded.drop_with_earlier(row, STALE));
            }
            _ => {}
        }
        if explained < unchanged {
            let missing = (unchanged - explained) as u64;
            return Err(self.vanished(rows.len(), missing));
        }
        Ok(())
    }

    /// Runs a query over some rows' columns that answers with numbers of rows, from 1.
    pub(super) async fn numbers(
        &self,
        transaction: &mut Transaction,
        sql: &std::sync::Arc<str>,
        work: &Work<'_>,
        columns: impl IntoIterator<Item = usize>,
        rows: &[usize],
    ) -> Result<Vec<usize>, PostgresError> {
        const ACTION: &str = "look at the rows that did not change";
        let failed = |source| self.client.error(ACTION, source);
        let arguments = work.encoder.arguments(columns, rows);
        let arguments = arguments.map_err(|error| failed(sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(AssertSqlSafe(sql.to_string()), arguments);
        let asked = query.fetch_all(&mut transaction.connection);
        let found = self.client.within(ACTION, asked).await?;
        let mut named = Vec::with_capacity(found.len());
        for row in found {
            let number: i64 = row.try_get(0).map_err(failed)?;
            let index = usize::try_from(number - 1).ok().and_then(|i| rows.get(i));
            named.extend(index);
        }
        Ok(named)
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        sql: &std::sync::Arc<str>,
        encoder: &Encoder<'_>,
        columns: impl IntoIterator<Item = usize>,
        rows: &[usize],
    ) -> Result<u64, PostgresError> {
        const ACTION: &str = "write rows";
        let arguments = encoder.arguments(columns, rows);
        let arguments =
            arguments.map_err(|error| self.client.error(ACTION, sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(AssertSqlSafe(sql.to_string()), arguments);
        let asked = query.execute(&mut transaction.connection);
        Ok(self.client.within(ACTION, asked).await?.rows_affected())
    }

    async fn simple(
        &self,
        transaction: &mut Transaction,
        sql: &'static str,
    ) -> Result<(), PostgresError> {
        let asked = sqlx::raw_sql(sql).execute(&mut transaction.connection);
        self.client.within("set a savepoint", asked).await.map(|_| ())
    }

    /// The cursor as stored: a record of which no row changed anything is not delivered.
    async fn count_dropped(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
        rows: &BTreeMap<usize, &'static str>,
    ) -> Result<Cursor, PostgresError> {
        if rows.is_empty() {
            return Ok(batch.to.clone());
        }
        let why = "it delivers fewer records than it has";
        let cursor = cursor_without(batch, rows).ok_or(PostgresError::Batch { why })?;
        self.cursors.advance(&self.client, transaction, &batch.to, &cursor).await?;
        Ok(cursor)
    }
}

fn rows_of_a_statement(batch: &StagedBatch) -> usize {
    let row = batch.rows.get_array_memory_size() / batch.rows.num_rows().max(1);
    (MAX_BYTES / row.max(1)).clamp(1, MAX_ROWS)
}

#[async_trait]
impl Destination for PostgresWriter {
    async fn prepare(&mut self) -> Result<(), Failure> {
        let mut transaction = self.client.begin().await?;
        self.prepare_tables(&mut transaction).await?;
        Ok(self.client.commit(transaction).await?)
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        let mut transaction = self.client.begin().await?;
        let Some(mut cursor) = self.cursors.read(&self.client, &mut transaction, key).await? else {
            self.client.rollback(transaction).await;
            return Ok(None);
        };
        cursor.epoch = epoch_floor.max(cursor.epoch).saturating_add(1);
        self.cursors.raise_epoch(&self.client, &mut transaction, key, cursor.epoch).await?;
        self.client.commit(transaction).await?;
        Ok(Some(cursor))
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        let mut transaction = self.client.begin().await?;
        self.cursors.insert(&self.client, &mut transaction, cursor).await?;
        Ok(self.client.commit(transaction).await?)
    }

    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure> {
        halves::write(self, batch).await
    }

    async fn rehearse(&mut self, batch: &StagedBatch) -> Result<Option<Outcome>, Failure> {
        halves::rehearse(self, batch).await
    }

    /// Every batch is durable when `write` returns.
    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Halves for PostgresWriter {
    async fn try_write(&mut self, batch: &StagedBatch) -> Result<Tried, Failure> {
        self.open = None;
        let (transaction, applied) = self.attempt(batch).await?;
        self.open = Some(transaction);
        match applied {
            Applied::All { cursor, .. } => Ok(Tried::Applied(cursor)),
            Applied::Refused { rows } => Ok(Tried::Refused(rows)),
            Applied::SomeRow => {
                self.open = None;
                Err(PostgresError::Batch { why: "a statement failed under a savepoint" }.into())
            }
        }
    }

    async fn move_along(&mut self, from: &Cursor, to: &Cursor) -> Result<(), Failure> {
        let Some(mut transaction) = self.open.take() else {
            return Err(PostgresError::Batch { why: NOTHING_OPEN }.into());
        };
        self.cursors.advance(&self.client, &mut transaction, from, to).await?;
        self.open = Some(transaction);
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some(transaction) => Ok(self.client.commit(transaction).await?),
            None => Err(PostgresError::Batch { why: NOTHING_OPEN }.into()),
        }
    }

    async fn undo(&mut self) {
        if let Some(transaction) = self.open.take() {
            self.client.rollback(transaction).await;
        }
    }

    fn let_go(&mut self) {
        self.open = None;
    }
}
