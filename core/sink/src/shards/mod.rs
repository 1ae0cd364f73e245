//! One destination over several databases, each for a part of the keys.
//!
//! ```text
//! main    rows of its slots · cursor of its slots · the pipeline's cursor (all slots)       committed last
//! b       rows of its slots · cursor of its slots                                           committed before
//! c       …
//! ```
//!
//! In: batches. Out: `Written` once every shard has committed, `Refused` with the rows that any shard refuses and nothing
//! committed anywhere. How: every shard applies its part in a transaction that stays open; when none refuses, all but the main
//! one commit, then the main one, with the pipeline's cursor in the same transaction. Promise: the pipeline's cursor stands where
//! every shard has at least been, so after a crash a shard is beyond it by one batch at most; it then takes only the rows behind
//! its own cursor. Each shard counts the records whose rows it has; what has no row counts in the pipeline's cursor alone, which
//! holds the exact sums whenever all stand together. A write that was cut off leaves nothing open and nothing owned.
//! Not here: when the map changes (the core), what one database does (its folder).
//! Reading order: [`config`] → here → [`split`] → [`counting`] → [`standing`].

mod config;
mod counting;
mod split;
mod standing;

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use futures_util::future::join_all;
use garam_stage::{
    Counters, Cursor, CursorKey, Destination, Durability, Failure, FailureKind, Outcome, PlanId,
    Refusal, SlotMap, SlotRange, StagedBatch,
};

use crate::SinkConfig;
use crate::halves::{Halves, Tried};
use crate::stats::SinkStats;
pub(crate) use config::of_shard;
use split::{Share, moved, owners, share, torn};

/// One writer for each part of the slot map, the main shard's first.
pub(crate) struct Sharded {
    map: SlotMap,
    schema: SchemaRef,
    /// Numbers of the key's columns.
    key: Vec<usize>,
    shards: Vec<Shard>,
    /// Where the shards stand is known: not before a take-over, and not after a write that was cut off.
    owned: bool,
}

struct Shard {
    name: String,
    slots: SlotRange,
    writer: Box<dyn Halves>,
    /// As stored.
    cursor: Option<Cursor>,
}

/// All shards have applied their parts, or rows stand in the way.
enum Both {
    Applied {
        /// Where each shard will stand; `None`: where it stands.
        shards: Vec<Option<Cursor>>,
        pipeline: Cursor,
    },
    Refused(Vec<Refusal>),
}

impl Sharded {
    pub(crate) fn new(
        config: &SinkConfig,
        schema: &SchemaRef,
        stats: &Arc<SinkStats>,
        map: &SlotMap,
    ) -> Result<Self, Failure> {
        let names = config.key();
        let key: Vec<usize> = names.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        if key.is_empty() || key.len() != names.len() {
            return Err(Failure::new(
                FailureKind::Config,
                "shards take rows by their key, say key = [..]",
            ));
        }
        let mut shards = Vec::new();
        for part in &map.parts {
            let writer = config.shard_of(&part.shard)?.writer(schema, stats)?;
            let (name, slots) = (part.shard.clone(), part.slots);
            shards.push(Shard { name, slots, writer, cursor: None });
        }
        let (map, schema) = (map.clone(), Arc::clone(schema));
        Ok(Self { map, schema, key, shards, owned: false })
    }

    /// Applies a batch in all shards; what was begun stays open.
    async fn try_all(&mut self, batch: &StagedBatch) -> Result<Both, Failure> {
        let (shares, refused) = self.shares(batch)?;
        if !refused.is_empty() {
            return Ok(Both::Refused(refused));
        }
        let tries =
            self.shards.iter_mut().zip(&shares).map(|(shard, share)| shard.try_write(share));
        let mut refused = Vec::new();
        let mut stored = Vec::new();
        // All of them end before any is judged: every row that stands in the way is to be known.
        for (tried, share) in join_all(tries).await.into_iter().zip(&shares) {
            match (tried?, share) {
                (Some(Tried::Applied(cursor)), _) => stored.push(Some(cursor)),
                (Some(Tried::Refused(rows)), Some(share)) => {
                    refused.extend(rows.into_iter().filter_map(|refusal| share.whole(refusal)));
                }
                _ => stored.push(None),
            }
        }
        if !refused.is_empty() {
            refused.sort_unstable_by_key(|refusal| refusal.row);
            return Ok(Both::Refused(refused));
        }
        let stand = self.shards.iter().zip(&stored);
        let stand = stand.filter_map(|(shard, stored)| stored.as_ref().or(shard.cursor.as_ref()));
        let pipeline = counting::pipeline(&batch.to, stand)?;
        let kept = Cursor { slot_map_epoch: self.map.epoch, ..pipeline.clone() };
        if let Some(main) = self.shards.first_mut() {
            main.move_along(&batch.from, &kept).await?;
        }
        Ok(Both::Applied { shards: stored, pipeline })
    }

    /// Each shard's part, and the rows that can be no shard's.
    fn shares(&self, batch: &StagedBatch) -> Result<(Vec<Option<Share>>, Vec<Refusal>), Failure> {
        if !self.owned {
            return Err(not_owned());
        }
        let owners = owners(batch, &self.key, &self.map)?;
        let refused = torn(batch, &owners);
        let is_reset = standing::is_reset(batch);
        let stand = self.shards.iter().filter_map(|shard| shard.cursor.as_ref());
        let counted = is_reset.then(|| counting::anew(&batch.to, stand));
        let mut shares = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let stored = shard.cursor.as_ref().ok_or_else(|| standing::missing(&shard.name))?;
            if let Some(counted) = &counted {
                let mut to = moved(stored, &batch.to);
                if let Some(counted) = counted {
                    to.counters = if number == 0 { counted.clone() } else { Counters::default() };
                }
                shares.push(Some(self.alone(stored, to)));
                continue;
            }
            standing::check(&shard.name, stored, batch)?;
            shares.push(share(batch, &owners, number, stored)?);
        }
        Ok((shares, refused))
    }

    /// A cursor without rows.
    fn alone(&self, from: &Cursor, to: Cursor) -> Share {
        let rows = RecordBatch::new_empty(Arc::clone(&self.schema));
        let batch = StagedBatch { rows, sources: Vec::new(), from: from.clone(), to };
        Share { batch, rows: Vec::new() }
    }

    /// Commits: the main shard last.
    async fn settle_all(&mut self, stored: Vec<Option<Cursor>>) -> Result<(), Failure> {
        self.owned = false;
        let mut stored = stored.into_iter();
        let main_stored = stored.next().flatten();
        let Some((main, others)) = self.shards.split_first_mut() else { return Err(not_owned()) };
        let settles = others.iter_mut().zip(stored).map(|(shard, cursor)| shard.settle(cursor));
        let settled = join_all(settles).await;
        let some_are_in = settled.iter().any(|settled| matches!(settled, Ok(true)));
        let failed = settled.into_iter().find_map(Result::err);
        let failed = match failed {
            Some(failure) => Some(failure),
            None => main.settle(main_stored).await.err(),
        };
        let Some(failure) = failed else {
            self.owned = true;
            return Ok(());
        };
        // What others have committed is known after a take-over only.
        let kind = if some_are_in { FailureKind::Unknown } else { failure.kind };
        self.owned = kind == FailureKind::Data;
        Err(Failure { kind, ..failure })
    }

    async fn undo_all(&mut self) {
        join_all(self.shards.iter_mut().map(|shard| shard.writer.undo())).await;
    }

    /// What a shard lacks that somebody emptied is put in place, before all of them go to the same place.
    async fn fill(&mut self, batch: &StagedBatch) -> Result<(), Failure> {
        let (epoch, to) = (self.map.epoch, &batch.to);
        for shard in self.shards.iter_mut().filter(|shard| shard.cursor.is_none()) {
            shard.begin(&self.schema, to, epoch).await?;
        }
        Ok(())
    }
}

impl Shard {
    async fn try_write(&mut self, share: &Option<Share>) -> Result<Option<Tried>, Failure> {
        let Some(share) = share else { return Ok(None) };
        let tried = self.writer.try_write(&share.batch).await;
        tried.map(Some).map_err(|failure| of_shard(&self.name, failure))
    }

    async fn move_along(&mut self, from: &Cursor, to: &Cursor) -> Result<(), Failure> {
        let moved = self.writer.move_along(from, to).await;
        moved.map_err(|failure| of_shard(&self.name, failure))
    }

    /// `false`: there was nothing to commit.
    async fn settle(&mut self, cursor: Option<Cursor>) -> Result<bool, Failure> {
        let Some(cursor) = cursor else { return Ok(false) };
        self.writer.settle().await.map_err(|failure| of_shard(&self.name, failure))?;
        self.cursor = Some(cursor);
        Ok(true)
    }

    fn key(&self, pipeline: &CursorKey) -> CursorKey {
        CursorKey { slots: self.slots, ..pipeline.clone() }
    }

    async fn take_over(&mut self, key: &CursorKey, floor: u64, map: u32) -> Result<(), Failure> {
        let key = self.key(key);
        let taken = self.writer.take_over(&key, floor).await;
        self.cursor = taken.map_err(|failure| of_shard(&self.name, failure))?;
        match &self.cursor {
            Some(cursor) if cursor.slot_map_epoch != map => {
                Err(standing::other_map(&self.name, cursor.slot_map_epoch, map))
            }
            _ => Ok(()),
        }
    }

    /// Stores the first cursor, over one that a crash left before the pipeline had one.
    async fn begin(
        &mut self,
        schema: &SchemaRef,
        pipeline: &Cursor,
        map: u32,
    ) -> Result<(), Failure> {
        let (key, counters) = (self.key(&pipeline.key), Counters::default());
        let mut cursor = Cursor { key, counters, slot_map_epoch: map, ..pipeline.clone() };
        let begun = match &self.cursor {
            None => self.writer.begin(&cursor).await,
            Some(stored) => {
                cursor.epoch = stored.epoch;
                let rows = RecordBatch::new_empty(Arc::clone(schema));
                let (from, to, sources) = (stored.clone(), cursor.clone(), Vec::new());
                self.writer.write(&StagedBatch { rows, sources, from, to }).await.map(drop)
            }
        };
        begun.map_err(|failure| of_shard(&self.name, failure))?;
        self.cursor = Some(cursor);
        Ok(())
    }
}

impl Share {
    /// A refusal of one of its rows, by the row's number in the whole batch.
    fn whole(&self, refusal: Refusal) -> Option<Refusal> {
        self.rows.get(refusal.row).map(|&row| Refusal { row, ..refusal })
    }
}

/// Lets go of what is open when a write ends early, also by being dropped.
struct Open<'a>(&'a mut Sharded);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        for shard in &mut self.0.shards {
            shard.writer.let_go();
        }
    }
}

#[async_trait]
impl Destination for Sharded {
    async fn prepare(&mut self) -> Result<(), Failure> {
        for shard in &mut self.shards {
            shard.writer.prepare().await.map_err(|failure| of_shard(&shard.name, failure))?;
        }
        Ok(())
    }

    async fn take_over(
        &mut self,
        key: &CursorKey,
        epoch_floor: u64,
    ) -> Result<Option<Cursor>, Failure> {
        self.owned = false;
        let epoch = self.map.epoch;
        let Some(main) = self.shards.first_mut() else { return Err(not_owned()) };
        // First, since an older writer commits it last: it has either finished or can finish nowhere any more.
        let taken = main.writer.take_over(key, epoch_floor).await;
        let pipeline = taken.map_err(|failure| of_shard(&main.name, failure))?;
        if let Some(cursor) = &pipeline
            && cursor.slot_map_epoch != epoch
        {
            return Err(standing::other_map(&main.name, cursor.slot_map_epoch, epoch));
        }
        let floor = pipeline.as_ref().map_or(epoch_floor, |cursor| cursor.epoch.saturating_sub(1));
        for shard in &mut self.shards {
            shard.take_over(key, floor, epoch).await?;
        }
        self.owned = true;
        Ok(pipeline)
    }

    fn admits(&self, cursor: &Cursor, plan: PlanId) -> Result<(), Failure> {
        self.shards.iter().try_for_each(|shard| match &shard.cursor {
            Some(stored) => standing::check_plan(&shard.name, stored, cursor.next, plan),
            None => Ok(()),
        })
    }

    async fn begin(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        let epoch = self.map.epoch;
        self.owned = false;
        for shard in &mut self.shards {
            shard.begin(&self.schema, cursor, epoch).await?;
        }
        // Last: a pipeline that has a cursor has all of them.
        let Some(main) = self.shards.first_mut() else { return Err(not_owned()) };
        let first = Cursor { slot_map_epoch: epoch, ..cursor.clone() };
        main.writer.begin(&first).await.map_err(|failure| of_shard(&main.name, failure))?;
        self.owned = true;
        Ok(())
    }

    async fn write(&mut self, batch: &StagedBatch) -> Result<Outcome, Failure> {
        if self.owned && standing::is_reset(batch) {
            self.fill(batch).await?;
        }
        let open = Open(self);
        match open.0.try_all(batch).await? {
            Both::Applied { shards, pipeline } => {
                open.0.settle_all(shards).await?;
                Ok(Outcome::Written { durability: Durability::Durable, cursor: pipeline })
            }
            Both::Refused(rows) => {
                open.0.undo_all().await;
                Ok(Outcome::Refused { rows })
            }
        }
    }

    async fn rehearse(&mut self, batch: &StagedBatch) -> Result<Option<Outcome>, Failure> {
        let open = Open(self);
        let both = open.0.try_all(batch).await?;
        open.0.undo_all().await;
        Ok(Some(match both {
            Both::Applied { pipeline: cursor, .. } => {
                Outcome::Written { durability: Durability::Accepted, cursor }
            }
            Both::Refused(rows) => Outcome::Refused { rows },
        }))
    }

    /// Every batch is durable when `write` returns.
    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn not_owned() -> Failure {
    Failure::new(
        FailureKind::Fenced,
        "the cursors of the shards are not this writer's: they must be taken over first",
    )
}
