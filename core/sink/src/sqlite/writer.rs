//! The destination itself: decides what goes into a transaction and what becomes of it.
//!
//! In: batches in order. Out: `Written` after COMMIT, or `Refused` after ROLLBACK with all rows that stand in the way.
//!
//! *Append:* a row that is there already (a rewound cursor) stays as it is and its record counts as dropped, reason
//! `repeated`, so that `delivered` remains the number of records in the table. *Upsert:* of several rows of one key only the
//! last is written; when the database refuses it, the one before it is tried, so that one round names every refused row.

use std::collections::BTreeSet;

use async_trait::async_trait;
use garam_stage::{
    Cursor, CursorKey, Destination, Failure, Outcome, RecordRef, Refusal, StagedBatch, WriteMode,
};
use sqlx::AssertSqlSafe;

use super::client::{Client, Transaction};
use super::config::Create;
use super::cursors;
use super::encode::Encoder;
use super::error::{SqliteError, TableError, is_row_error};
use super::inspect;
use super::table::Table;
use crate::changes::Acts;
use crate::contract::{broken_rule, own_words};
use crate::fold::{Folded, Meeting, REPEATED, fold};
use crate::halves::{self, Halves, NOTHING_OPEN, Tried};
use crate::mode::Mode;

#[derive(Debug)]
pub(crate) struct SqliteWriter {
    pub(super) client: Client,
    pub(super) table: Table,
    create: Create,
    /// Between the halves of a write.
    open: Option<Transaction>,
}

/// What became of a batch inside its transaction.
enum Applied {
    All { cursor: Cursor },
    Refused { rows: Vec<Refusal> },
}

/// What became of one statement.
enum Inserted {
    /// How many rows are new or changed.
    Rows(u64),
    /// Nothing of it is in: a row's content is the reason.
    Refused(String),
}

impl SqliteWriter {
    pub(crate) fn new(client: Client, table: Table, create: Create) -> Self {
        Self { client, table, create, open: None }
    }

    async fn prepare_table(&self, transaction: &mut Transaction) -> Result<(), SqliteError> {
        let connection = &mut transaction.connection;
        cursors::prepare(&self.client, connection).await?;
        let failed = |source| self.client.error("read the table's columns", source);
        let existing = inspect::look(connection, &self.table.name).await.map_err(failed)?;
        match (existing, self.create) {
            (Some(existing), _) => Ok(existing.check(&self.table)?),
            (None, Create::Missing | Create::Evolve) => {
                sqlx::query(AssertSqlSafe(self.table.ddl()))
                    .execute(connection)
                    .await
                    .map_err(|source| self.client.error("create the table", source))?;
                Ok(())
            }
            (None, Create::Never) => {
                let (table, ddl) = (self.table.name.clone(), self.table.ddl());
                Err(TableError::Missing { table, ddl }.into())
            }
        }
    }

    /// Moves the cursor and writes the rows inside the transaction.
    async fn apply(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
    ) -> Result<Applied, SqliteError> {
        if let Some(why) = broken_rule(batch) {
            return Err(SqliteError::Batch { why });
        }
        let connection = &mut transaction.connection;
        cursors::advance(&self.client, connection, &batch.from, &batch.to).await?;
        let encoder = Encoder::new(&self.table, &batch.rows)?;
        let mut refused = Vec::new();
        let mut rows = Vec::with_capacity(batch.rows.num_rows());
        let acts = Acts::of(&batch.rows, self.table.obeys.is_some());
        let (all, name) = (batch.rows.num_rows(), || self.table.name.clone());
        let kept = acts.kept(all, self.table.obeys, name).map_err(TableError::from)?;
        for row in kept.rows {
            match encoder.unstorable(row) {
                Some(detail) => refused.push(Refusal { row, detail }),
                None => rows.push(row),
            }
        }
        if kept.empties {
            self.empty(transaction).await?;
        }
        let repeated = match self.table.mode {
            WriteMode::Upsert => {
                self.upsert(transaction, &encoder, acts, &rows, &mut refused).await?;
                0
            }
            WriteMode::Append => {
                self.append(transaction, &encoder, batch, &rows, &mut refused).await?
            }
        };
        if !refused.is_empty() {
            refused.sort_unstable_by_key(|refusal| refusal.row);
            return Ok(Applied::Refused { rows: refused });
        }
        let cursor = match kept.dropped.is_empty() {
            true => self.count_repeated(transaction, batch, repeated).await?,
            false => self.count_dropped(transaction, batch, &kept.dropped).await?,
        };
        Ok(Applied::All { cursor })
    }

    async fn upsert(
        &self,
        transaction: &mut Transaction,
        encoder: &Encoder<'_>,
        acts: Acts<'_>,
        rows: &[usize],
        refused: &mut Vec<Refusal>,
    ) -> Result<(), SqliteError> {
        let folded = self.fold(encoder, acts, rows);
        let earlier = self.remove(transaction, encoder, acts, &folded, refused).await?;
        let mut pending = self.statements(&earlier, 2);
        pending.extend(self.statements(&folded.write, usize::MAX));
        while let Some(rows) = pending.pop() {
            match self.insert(transaction, encoder, rows).await? {
                Inserted::Rows(count) if count == rows.len() as u64 => {}
                Inserted::Rows(count) => {
                    let missing = (rows.len() as u64).saturating_sub(count);
                    let table = self.table.name.clone();
                    return Err(SqliteError::RowsVanished { table, rows: rows.len(), missing });
                }
                Inserted::Refused(detail) => match *rows {
                    [row] => {
                        refused.push(Refusal { row, detail });
                        let next =
                            folded.instead.get(&row).filter(|_| folded.next(row, acts).is_some());
                        pending.extend(next.map(std::slice::from_ref));
                    }
                    _ => pending.extend(self.statements(rows, rows.len())),
                },
            }
        }
        Ok(())
    }

    /// Returns how many records were there already.
    async fn append(
        &self,
        transaction: &mut Transaction,
        encoder: &Encoder<'_>,
        batch: &StagedBatch,
        rows: &[usize],
        refused: &mut Vec<Refusal>,
    ) -> Result<u64, SqliteError> {
        let records: BTreeSet<_> = batch.sources.iter().collect();
        // Rows and records are equally many unless a record has several rows; then each row is asked by itself.
        let by_row = records.len() < batch.sources.len();
        let mut fresh: BTreeSet<&RecordRef> = BTreeSet::new();
        let mut repeated = 0;
        let mut pending = self.statements(rows, if by_row { 2 } else { usize::MAX });
        while let Some(rows) = pending.pop() {
            match self.insert(transaction, encoder, rows).await? {
                Inserted::Rows(count) => {
                    repeated += (rows.len() as u64).saturating_sub(count);
                    if let (true, 1, [row]) = (by_row, count, rows) {
                        fresh.extend(batch.sources.get(*row));
                    }
                }
                Inserted::Refused(detail) => match *rows {
                    [row] => refused.push(Refusal { row, detail }),
                    _ => pending.extend(self.statements(rows, rows.len())),
                },
            }
        }
        if by_row {
            return Ok((records.len() - fresh.len()) as u64);
        }
        Ok(repeated)
    }

    /// Cuts rows into statements of the fixed sizes smaller than `below`: a stack whose top is the first of them.
    fn statements<'r>(&self, rows: &'r [usize], below: usize) -> Vec<&'r [usize]> {
        let mut rest = rows;
        let mut cut = Vec::new();
        for (size, _) in self.table.inserts.iter().filter(|(size, _)| *size < below) {
            while rest.len() >= *size {
                let (head, tail) = rest.split_at(*size);
                cut.push(head);
                rest = tail;
            }
        }
        cut.reverse();
        cut
    }

    /// Runs one statement. SQLite undoes a failed statement by itself and the transaction goes on, so a refused
    /// statement is cut smaller until the rows that stand in the way are found.
    async fn insert(
        &self,
        transaction: &mut Transaction,
        encoder: &Encoder<'_>,
        rows: &[usize],
    ) -> Result<Inserted, SqliteError> {
        let failed = |source| self.client.error("write rows", source);
        let (_, sql) = self
            .table
            .inserts
            .iter()
            .find(|(size, _)| *size == rows.len())
            .ok_or(SqliteError::Batch { why: "no statement has this many rows" })?;
        let arguments =
            encoder.arguments(rows).map_err(|error| failed(sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments);
        match query.execute(&mut transaction.connection).await {
            Ok(done) => Ok(Inserted::Rows(done.rows_affected())),
            Err(error) if is_row_error(&error) => Ok(Inserted::Refused(own_words(&error))),
            Err(error) => Err(failed(error)),
        }
    }

    fn fold(&self, encoder: &Encoder<'_>, acts: Acts<'_>, rows: &[usize]) -> Folded {
        let meeting = Meeting {
            mode: Mode::Upsert,
            unique: &self.table.unique_columns(),
            version: None,
            acts,
        };
        let mut folded = fold(meeting, encoder, rows);
        folded.write.sort_unstable();
        folded
    }

    /// The cursor as stored: repeated records are not delivered a second time.
    async fn count_repeated(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
        repeated: u64,
    ) -> Result<Cursor, SqliteError> {
        let mut cursor = batch.to.clone();
        if repeated == 0 {
            return Ok(cursor);
        }
        let counters = &mut cursor.counters;
        counters.delivered = counters
            .delivered
            .checked_sub(repeated)
            .ok_or(SqliteError::Batch { why: "it delivers fewer records than it has rows" })?;
        *counters.dropped.entry(REPEATED.into()).or_default() += repeated;
        let connection = &mut transaction.connection;
        cursors::advance(&self.client, connection, &batch.to, &cursor).await?;
        Ok(cursor)
    }
}

#[async_trait]
impl Destination for SqliteWriter {
    async fn prepare(&mut self) -> Result<(), Failure> {
        let mut transaction = self.client.begin().await?;
        self.prepare_table(&mut transaction).await?;
        Ok(self.client.commit(transaction).await?)
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        let mut transaction = self.client.begin().await?;
        let connection = &mut transaction.connection;
        let Some(mut cursor) = cursors::read(&self.client, connection, key).await? else {
            self.client.rollback(transaction).await;
            return Ok(None);
        };
        cursor.epoch = epoch_floor.max(cursor.epoch).saturating_add(1);
        cursors::raise_epoch(&self.client, connection, key, cursor.epoch).await?;
        self.client.commit(transaction).await?;
        Ok(Some(cursor))
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        let mut transaction = self.client.begin().await?;
        cursors::insert(&self.client, &mut transaction.connection, cursor).await?;
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
impl Halves for SqliteWriter {
    async fn try_write(&mut self, batch: &StagedBatch) -> Result<Tried, Failure> {
        self.open = None;
        let mut transaction = self.client.begin().await?;
        let applied = self.apply(&mut transaction, batch).await?;
        self.open = Some(transaction);
        Ok(match applied {
            Applied::All { cursor } => Tried::Applied(cursor),
            Applied::Refused { rows } => Tried::Refused(rows),
        })
    }

    async fn move_along(&mut self, from: &Cursor, to: &Cursor) -> Result<(), Failure> {
        let Some(mut transaction) = self.open.take() else {
            return Err(SqliteError::Batch { why: NOTHING_OPEN }.into());
        };
        cursors::advance(&self.client, &mut transaction.connection, from, to).await?;
        self.open = Some(transaction);
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some(transaction) => Ok(self.client.commit(transaction).await?),
            None => Err(SqliteError::Batch { why: NOTHING_OPEN }.into()),
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
