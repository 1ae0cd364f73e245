//! The destination itself: decides what goes into a transaction and what becomes of it.
//!
//! In: batches in order. Out: `Written` after COMMIT, or `Refused` after ROLLBACK with all rows that stand in the way.
//!
//! A statement that fails because of a row is undone by the server alone: it is cut in half until the rows that stand in the way
//! are found. Where only new rows are wanted (append, ignore) a duplicate key first asks which of the rows are there already.
//! Records that change nothing (repeated, stale, existing, missing) move from `delivered` to `dropped`, so that `delivered`
//! remains the number of records that the table has seen.

use std::collections::BTreeMap;

use async_trait::async_trait;
use garam_stage::{Cursor, CursorKey, Destination, Failure, Outcome, Refusal, StagedBatch};
use sqlx::{AssertSqlSafe, Row as _};

use super::client::{Client, Transaction};
use super::cursors::CursorTable;
use super::encode::Encoder;
use super::error::{Cause, MySqlError, OnlyMySql, cause, is_duplicate, own_words};
use super::table::{Statements, Table, Wanted};
use crate::changes::{Act, Acts};
use crate::contract::{broken_rule, cursor_without};
use crate::fold::{EXISTING, Folded, MISSING, Meeting, REPEATED, STALE, fold};
use crate::halves::{self, Halves, NOTHING_OPEN, Tried};
use crate::limits::{Limit, too_long};
use crate::mode::Mode;
use crate::sqlite::Create;
use crate::table::TableError;

/// About the most bytes of a statement: more gain nothing and take longer to repeat.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What a statement takes besides its rows, rather more than less.
const STATEMENT: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct MySqlWriter {
    pub(super) client: Client,
    pub(super) wanted: Wanted,
    /// For the kind of server that was met last.
    pub(super) table: Option<Table>,
    pub(super) cursors: CursorTable,
    pub(super) create: Create,
    /// What the table's text columns hold at most.
    pub(super) limits: Vec<Option<Limit>>,
    /// Between the halves of a write.
    open: Option<Transaction>,
}

/// What became of a batch inside its transaction.
enum Applied {
    All { cursor: Cursor },
    Refused { rows: Vec<Refusal> },
}

/// A batch on its way in: what is known of its rows so far.
pub(super) struct Work<'a> {
    pub(super) table: &'a Table,
    encoder: Encoder<'a>,
    acts: Acts<'a>,
    /// The table loses all its rows first.
    empties: bool,
    pub(super) folded: Folded,
    refused: Vec<Refusal>,
}

impl MySqlWriter {
    pub(crate) fn new(client: Client, wanted: Wanted, create: Create) -> Self {
        let cursors = CursorTable::beside(wanted.name());
        Self { client, wanted, table: None, cursors, create, limits: Vec::new(), open: None }
    }

    /// A transaction, and the table as its server speaks of it.
    async fn begin_transaction(&mut self) -> Result<Transaction, MySqlError> {
        let transaction = self.client.begin().await?;
        let dialect = transaction.server.dialect;
        if self.table.as_ref().is_none_or(|table| table.dialect != dialect) {
            self.table = Some(self.wanted.table(dialect)?);
        }
        Ok(transaction)
    }

    /// Applies a batch in a transaction of its own, which is handed back open.
    async fn attempt(&mut self, batch: &StagedBatch) -> Result<(Transaction, Applied), MySqlError> {
        let mut transaction = self.begin_transaction().await?;
        let applied = self.apply(&mut transaction, batch).await?;
        Ok((transaction, applied))
    }

    /// Moves the cursor and writes the rows inside the transaction.
    async fn apply(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
    ) -> Result<Applied, MySqlError> {
        if let Some(why) = broken_rule(batch) {
            return Err(MySqlError::Batch { why });
        }
        self.cursors.advance(&self.client, transaction, &batch.from, &batch.to).await?;
        let max_packet = transaction.server.max_packet;
        let mut work = self.work(batch, max_packet)?;
        // A stack: the rows that come next are at its end.
        let mut pending = vec![std::mem::take(&mut work.folded.write)];
        if work.empties {
            self.empty(transaction, &work).await?;
        }
        // Deletes come first, so that what they free can be taken.
        pending.push(std::mem::take(&mut work.folded.delete));
        while let Some(mut rows) = pending.pop() {
            let part = work.part(&rows, max_packet);
            let rest = rows.split_off(part.min(rows.len()));
            if !rest.is_empty() {
                pending.push(rest);
            }
            if rows.is_empty() {
                continue;
            }
            let offered = rows.len();
            let Some(detail) = self.write_rows(transaction, &mut work, &mut rows).await? else {
                continue;
            };
            match *rows {
                [] => {}
                // Those that stood in the way are taken out; nothing is said of the others yet.
                _ if rows.len() < offered => pending.push(rows),
                [row] => {
                    work.refused.push(Refusal { row, detail });
                    pending.extend(work.folded.next(row, work.acts).map(|row| vec![row]));
                }
                _ => {
                    let right = rows.split_off(rows.len() / 2);
                    pending.extend([right, rows]);
                }
            }
        }
        if !work.refused.is_empty() {
            work.refused.sort_unstable_by_key(|refusal| refusal.row);
            return Ok(Applied::Refused { rows: work.refused });
        }
        let cursor = self.count_dropped(transaction, batch, &work.folded.dropped).await?;
        Ok(Applied::All { cursor })
    }

    fn work<'a>(
        &'a self,
        batch: &'a StagedBatch,
        max_packet: usize,
    ) -> Result<Work<'a>, MySqlError> {
        let table = self.table.as_ref().ok_or(MySqlError::Batch { why: "no server was met" })?;
        let encoder = Encoder::new(table, &batch.rows)?;
        let too_long = too_long(&encoder.columns, &self.limits);
        let mut unstorable: BTreeMap<usize, String> =
            too_long.into_iter().chain(encoder.unstorable()).collect();
        for row in 0..batch.rows.num_rows() {
            let bytes = encoder.bytes(row).saturating_add(STATEMENT);
            if bytes > max_packet {
                let why =
                    format!("it needs about {bytes} bytes, max_allowed_packet is {max_packet}");
                unstorable.entry(row).or_insert(why);
            }
        }
        let acts = Acts::of(&batch.rows, table.obeys.is_some());
        let (all, name) = (batch.rows.num_rows(), || table.name.display());
        let mut kept = acts.kept(all, table.obeys, name).map_err(TableError::from)?;
        let (mode, unique, version) = (table.mode, table.unique.as_slice(), table.version);
        unstorable.retain(|row, _| kept.rows.binary_search(row).is_ok());
        kept.rows.retain(|row| !unstorable.contains_key(row));
        let meeting = Meeting { mode, unique, version, acts };
        let mut folded = fold(meeting, &encoder.columns, &kept.rows);
        folded.dropped.extend(kept.dropped);
        let refused = unstorable.into_iter().map(|(row, detail)| Refusal { row, detail }).collect();
        Ok(Work { table, encoder, acts, empties: kept.empties, folded, refused })
    }

    /// Writes some rows. `Some`: nothing of them is in, because of a row's content. Rows that need not be written are taken out.
    async fn write_rows(
        &self,
        transaction: &mut Transaction,
        work: &mut Work<'_>,
        rows: &mut Vec<usize>,
    ) -> Result<Option<String>, MySqlError> {
        let deletes = work.deletes(rows);
        match self.run(transaction, work, rows).await {
            Ok(changed) if deletes => {
                self.explain_delete(transaction, work, rows, changed).await?;
                Ok(None)
            }
            Ok(changed) => {
                self.explain(transaction, work, rows, changed).await?;
                Ok(None)
            }
            Err(MySqlError::Database { source, .. }) if cause(&source) == Cause::Row => {
                let reason = match work.table.mode {
                    Mode::Append => Some(REPEATED),
                    Mode::Ignore => Some(EXISTING),
                    _ => None,
                };
                if let Some(reason) = reason.filter(|_| is_duplicate(&source)) {
                    let (key, looks) = (&work.table.unique, &work.table.present);
                    let there = self.look(transaction, looks, work, key, rows).await?;
                    rows.retain(|row| !there.contains(row));
                    work.folded.dropped.extend(there.into_iter().map(|row| (row, reason)));
                }
                Ok(Some(own_words(&source, &work.table.unique_names())))
            }
            Err(error) => Err(error),
        }
    }

    /// Finds out which of the rows of a statement changed nothing.
    async fn explain(
        &self,
        transaction: &mut Transaction,
        work: &mut Work<'_>,
        rows: &[usize],
        changed: u64,
    ) -> Result<(), MySqlError> {
        let table = work.table;
        let offered = rows.len() as u64;
        // An upsert counts two for a row that changes, one for a row that is new or stays as it is.
        let complete = match table.mode {
            Mode::Upsert => (offered..=2 * offered).contains(&changed),
            Mode::Update => changed <= offered,
            _ => changed == offered,
        };
        if !complete {
            let table = table.name.display();
            return Err(OnlyMySql::RowsVanished { table, rows: rows.len(), changed }.into());
        }
        let all_changed = match table.mode {
            Mode::Upsert => changed == 2 * offered,
            _ => changed == offered,
        };
        if all_changed {
            return Ok(());
        }
        if let (Some(newer), Some(version)) = (&table.newer, table.version) {
            let columns: Vec<usize> = table.unique.iter().copied().chain([version]).collect();
            let stale = self.look(transaction, newer, work, &columns, rows).await?;
            stale.iter().for_each(|&row| work.folded.drop_with_earlier(row, STALE));
        }
        if table.mode == Mode::Update {
            let there = self.look(transaction, &table.present, work, &table.unique, rows).await?;
            let missing = rows.iter().filter(|row| !there.contains(row));
            missing.for_each(|&row| work.folded.drop_with_earlier(row, MISSING));
        }
        Ok(())
    }

    /// Which of some rows a query finds, given their values in these columns.
    pub(super) async fn look(
        &self,
        transaction: &mut Transaction,
        statements: &Statements,
        work: &Work<'_>,
        columns: &[usize],
        mut rows: &[usize],
    ) -> Result<Vec<usize>, MySqlError> {
        const ACTION: &str = "look at the rows that did not change";
        let failed = |source| self.client.error(ACTION, source);
        let mut named = Vec::new();
        while !rows.is_empty() {
            let (size, sql) = statements.of_at_most(rows.len());
            let (part, rest) = rows.split_at(size.min(rows.len()));
            rows = rest;
            let arguments = work.encoder.arguments(columns, part);
            let arguments = arguments.map_err(|error| failed(sqlx::Error::Encode(error)))?;
            let query = sqlx::query_with(AssertSqlSafe(sql.to_string()), arguments);
            let asked = query.fetch_all(&mut transaction.connection);
            for row in self.client.within(ACTION, asked).await? {
                let number: i64 = row.try_get(0).map_err(failed)?;
                named.extend(usize::try_from(number).ok().and_then(|i| part.get(i)));
            }
        }
        Ok(named)
    }

    /// Runs the statement of so many rows as there are, and says how many it changed, as the server counts.
    async fn run(
        &self,
        transaction: &mut Transaction,
        work: &Work<'_>,
        rows: &[usize],
    ) -> Result<u64, MySqlError> {
        const ACTION: &str = "write rows";
        let columns = match work.table.mode {
            _ if work.deletes(rows) => work.table.unique.clone(),
            Mode::Update => work.table.update_columns(),
            _ => work.encoder.columns.all().collect(),
        };
        let (_, sql) = work.statements(rows).of_at_most(rows.len());
        let arguments = work.encoder.arguments(&columns, rows);
        let arguments =
            arguments.map_err(|error| self.client.error(ACTION, sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(AssertSqlSafe(sql.to_string()), arguments);
        let asked = query.execute(&mut transaction.connection);
        Ok(self.client.within(ACTION, asked).await?.rows_affected())
    }

    /// The cursor as stored: a record of which no row changed anything is not delivered. That it moves once more also shows that
    /// the transaction is still the one in which it moved first.
    async fn count_dropped(
        &self,
        transaction: &mut Transaction,
        batch: &StagedBatch,
        rows: &BTreeMap<usize, &'static str>,
    ) -> Result<Cursor, MySqlError> {
        if rows.is_empty() {
            return Ok(batch.to.clone());
        }
        let why = "it delivers fewer records than it has";
        let cursor = cursor_without(batch, rows).ok_or(MySqlError::Batch { why })?;
        self.cursors.advance(&self.client, transaction, &batch.to, &cursor).await?;
        Ok(cursor)
    }
}

impl Work<'_> {
    /// Whether these rows, which all ask for the same, delete.
    fn deletes(&self, rows: &[usize]) -> bool {
        rows.first().is_some_and(|&row| self.acts.get(row) == Act::Delete)
    }

    fn statements(&self, rows: &[usize]) -> &Statements {
        if self.deletes(rows) { &self.table.delete } else { &self.table.write }
    }

    /// How many of the next rows go into one statement: one of the sizes there are, within the bytes there may be.
    fn part(&self, rows: &[usize], max_packet: usize) -> usize {
        let mut room = MAX_BYTES.min(max_packet.saturating_sub(STATEMENT));
        let fits = rows.iter().take_while(|&&row| {
            let bytes = self.encoder.bytes(row);
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        });
        let (size, _) = self.statements(rows).of_at_most(fits.count().max(1));
        size
    }
}

#[async_trait]
impl Destination for MySqlWriter {
    async fn prepare(&mut self) -> Result<(), Failure> {
        let mut transaction = self.begin_transaction().await?;
        self.prepare_tables(&mut transaction).await?;
        Ok(self.client.commit(transaction).await?)
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        let mut transaction = self.begin_transaction().await?;
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
        let mut transaction = self.begin_transaction().await?;
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
impl Halves for MySqlWriter {
    async fn try_write(&mut self, batch: &StagedBatch) -> Result<Tried, Failure> {
        self.open = None;
        let (transaction, applied) = self.attempt(batch).await?;
        self.open = Some(transaction);
        Ok(match applied {
            Applied::All { cursor } => Tried::Applied(cursor),
            Applied::Refused { rows } => Tried::Refused(rows),
        })
    }

    async fn move_along(&mut self, from: &Cursor, to: &Cursor) -> Result<(), Failure> {
        let Some(mut transaction) = self.open.take() else {
            return Err(MySqlError::Batch { why: NOTHING_OPEN }.into());
        };
        self.cursors.advance(&self.client, &mut transaction, from, to).await?;
        self.open = Some(transaction);
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some(transaction) => Ok(self.client.commit(transaction).await?),
            None => Err(MySqlError::Batch { why: NOTHING_OPEN }.into()),
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
