//! Several databases as one destination: each row at one place, once, whatever is cut off in between.

use arrow_array::UInt32Array;
use arrow_select::take::take_record_batch;
use garam_proto::LogOffset;
use garam_sink::sqlite::{SqliteShard, read_cursors};
use garam_sink::{SinkConfig, SqliteConfig};
use garam_stage::slots::{key_hashes, slot_of};
use garam_stage::{
    Cursor, CursorKey, Destination, FailureKind, PlanId, SlotMap, SlotRange, StagedBatch, WriteMode,
};

use crate::fixture::{
    Place, Row, batch, cancelled_after, first_cursor, record_batch, refused, row, rows, schema,
    written,
};

const NAMES: [&str; 3] = ["main", "b", "c"];

/// Three files, of which each remembers which keys were written to it, and how often.
struct Files {
    places: [Place; 3],
}

impl Files {
    async fn new() -> (Self, Box<dyn Destination>, Cursor) {
        let files = Self { places: [Place::new(), Place::new(), Place::new()] };
        let mut destination = files.destination();
        destination.prepare().await.unwrap();
        for place in &files.places {
            place
                .execute(
                    "create table applied (id); \
                     create trigger ins after insert on orders begin insert into applied values (new.id); end; \
                     create trigger upd after update on orders begin insert into applied values (new.id); end",
                )
                .await;
        }
        let key = first_cursor().key;
        assert_eq!(destination.take_over(&key, 0).await.unwrap(), None);
        destination.begin(&first_cursor()).await.unwrap();
        (files, destination, first_cursor())
    }

    fn config(&self) -> SinkConfig {
        let [main, more @ ..] = &self.places;
        let shard = more.iter().zip(&NAMES[1..]);
        let shard = shard.map(|(at, name)| SqliteShard { name: (*name).into(), path: at.path() });
        let config = main.config(WriteMode::Upsert);
        SinkConfig::Sqlite(SqliteConfig { shard: shard.collect(), ..config })
    }

    fn destination(&self) -> Box<dyn Destination> {
        self.config().build(&schema()).unwrap()
    }

    /// A new owner, as after a crash.
    async fn next_owner(&self) -> (Box<dyn Destination>, Cursor) {
        let mut destination = self.destination();
        destination.prepare().await.unwrap();
        let cursor = destination.take_over(&first_cursor().key, 0).await.unwrap().unwrap();
        (destination, cursor)
    }

    /// What one shard alone would have committed of a batch when the core ended.
    async fn commit_alone(&self, number: usize, offered: &StagedBatch) {
        let writer = self.places[number].destination(WriteMode::Upsert);
        let owners = owners(&offered.rows);
        commit_part(writer, ranges()[number], |row| owners[row] == number, offered).await;
    }

    /// Keys that are there and how often they were written, over all files; each must lie where its slot is.
    async fn applied(&self) -> Vec<i64> {
        let mut all = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            let stored = ids(&place.lines("select id from orders order by id").await);
            let there: Vec<Row> = stored.iter().map(|&id| row(id, "x", 1)).collect();
            let owners = owners(&record_batch(&there));
            assert!(owners.iter().all(|owner| *owner == number), "{number}: {stored:?} {owners:?}");
            let mut written = ids(&place.lines("select id from applied order by id").await);
            all.extend(written.iter().copied());
            written.dedup();
            assert_eq!(stored, written);
        }
        all.sort_unstable();
        all
    }

    /// The pipeline's cursor and those of the shards.
    async fn cursors(&self) -> (Cursor, Vec<Cursor>) {
        let (mut pipeline, mut shards) = (Vec::new(), Vec::new());
        for place in &self.places {
            let found = read_cursors(&place.path()).await.unwrap();
            let (all, own): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|cursor| cursor.key.slots == SlotRange::ALL);
            pipeline.extend(all);
            shards.extend(own);
        }
        assert_eq!(pipeline.len(), 1);
        (pipeline.remove(0), shards)
    }
}

/// Commits a shard's part of a batch, as if the core had ended before the main shard's commit.
pub(crate) async fn commit_part(
    mut writer: Box<dyn Destination>,
    slots: SlotRange,
    is_own: impl Fn(usize) -> bool,
    offered: &StagedBatch,
) {
    let key = CursorKey { slots, ..offered.from.key.clone() };
    let from = writer.take_over(&key, 0).await.unwrap().unwrap();
    let own: Vec<usize> = (0..offered.rows.num_rows()).filter(|&row| is_own(row)).collect();
    let indices: UInt32Array = own.iter().map(|&i| u32::try_from(i).unwrap()).collect();
    let rows = take_record_batch(&offered.rows, &indices).unwrap();
    let sources: Vec<_> = own.iter().map(|&i| offered.sources[i]).collect();
    let epochs = (from.epoch, from.slot_map_epoch);
    let mut to = Cursor { key, epoch: epochs.0, slot_map_epoch: epochs.1, ..offered.to.clone() };
    to.counters = from.counters.clone();
    to.counters.records_in += own.len() as u64;
    to.counters.delivered += own.len() as u64;
    written(writer.write(&StagedBatch { rows, sources, from, to }).await);
}

fn ids(lines: &str) -> Vec<i64> {
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

fn ranges() -> Vec<SlotRange> {
    SlotMap::even(1, &NAMES).parts.into_iter().map(|part| part.slots).collect()
}

fn owners(rows: &arrow_array::RecordBatch) -> Vec<usize> {
    let map = SlotMap::even(1, &NAMES);
    let hashes = key_hashes(rows, &[0]).unwrap();
    hashes.into_iter().map(|hash| map.part_of(slot_of(hash))).collect()
}

#[tokio::test]
async fn each_row_is_where_its_slot_is_and_the_counters_add_up() {
    let (files, mut destination, start) = Files::new().await;
    let cursor = written(destination.write(&batch(&start, &rows(0..300))).await);
    let cursor = written(destination.write(&batch(&cursor, &rows(300..500))).await);
    assert_eq!(files.applied().await, (0..500).collect::<Vec<_>>());

    let (pipeline, shards) = files.cursors().await;
    assert_eq!(pipeline.counters, cursor.counters);
    assert_eq!(shards.iter().map(|shard| shard.counters.delivered).sum::<u64>(), 500);
    assert!(shards.iter().all(|shard| shard.counters.balanced()));
    assert!(shards.iter().all(|shard| (shard.next, shard.slot_map_epoch) == (LogOffset(2), 1)));
    assert_eq!(shards.iter().map(|shard| shard.key.slots).collect::<Vec<_>>(), ranges());
}

#[tokio::test]
async fn a_write_that_is_cut_off_anywhere_is_finished_once() {
    let (files, mut destination, mut cursor) = Files::new().await;
    let (mut apart, mut next) = (0, 0);
    for polls in 0..60 {
        let offered = rows(next..next + 20);
        let done = cancelled_after(polls, destination.write(&batch(&cursor, &offered))).await;
        drop(done);
        drop(destination);
        let (_, shards) = files.cursors().await;
        (destination, cursor) = files.next_owner().await;
        apart += usize::from(shards.iter().any(|shard| shard.next != cursor.next));
        let there = LogOffset(u64::try_from(next / 20).unwrap() + 1);
        if cursor.next != there {
            cursor = written(destination.write(&batch(&cursor, &offered)).await);
        }
        assert_eq!(cursor.next, there);
        next += 20;
    }
    println!("{apart} of 60 writes were cut off between two commits");
    assert_eq!(files.applied().await, (0..next).collect::<Vec<_>>());
    let (pipeline, shards) = files.cursors().await;
    assert_eq!(pipeline.counters.delivered, u64::try_from(next).unwrap());
    assert_eq!(
        shards.iter().map(|shard| shard.counters.delivered).sum::<u64>(),
        pipeline.counters.delivered
    );
}

#[tokio::test]
async fn a_shard_that_is_ahead_takes_only_what_it_lacks_however_batches_are_cut_then() {
    for ahead in [vec![1], vec![2], vec![1, 2]] {
        let (files, destination, start) = Files::new().await;
        drop(destination);
        // Three entries in one batch when the core ended.
        let parts = [rows(0..40), rows(40..80), rows(80..120)];
        let whole = joined(&start, &parts);
        for &number in &ahead {
            files.commit_alone(number, &whole).await;
        }
        let (mut destination, mut cursor) = files.next_owner().await;
        assert_eq!(cursor.next, LogOffset(0));
        for part in &parts {
            cursor = written(destination.write(&batch(&cursor, part)).await);
        }
        assert_eq!(files.applied().await, (0..120).collect::<Vec<_>>(), "{ahead:?}");

        // And the other way round: small entries when it ended, one batch that reaches beyond them after.
        let small = batch(&cursor, &rows(120..160));
        drop(destination);
        for &number in &ahead {
            files.commit_alone(number, &small).await;
        }
        let (mut destination, cursor) = files.next_owner().await;
        let large = joined(&cursor, &[rows(120..160), rows(160..200)]);
        let cursor = written(destination.write(&large).await);
        assert_eq!(files.applied().await, (0..200).collect::<Vec<_>>(), "{ahead:?}");
        let (pipeline, shards) = files.cursors().await;
        assert_eq!(pipeline.counters, cursor.counters);
        assert_eq!(pipeline.counters.delivered, 200);
        assert_eq!(shards.iter().map(|shard| shard.counters.delivered).sum::<u64>(), 200);
    }
}

/// Several entries as one batch.
pub(crate) fn joined(from: &Cursor, parts: &[Vec<Row>]) -> StagedBatch {
    let all: Vec<Row> = parts.concat();
    let (mut sources, mut at) = (Vec::new(), from.clone());
    for part in parts {
        let one = batch(&at, part);
        sources.extend(one.sources);
        at = one.to;
    }
    StagedBatch { rows: record_batch(&all), sources, from: from.clone(), to: at }
}

#[tokio::test]
async fn what_a_crash_left_half_done_is_not_finished_by_another_plan() {
    let (files, destination, start) = Files::new().await;
    drop(destination);
    let offered = batch(&start, &rows(0..60));
    files.commit_alone(2, &offered).await;
    let before = files.applied().await;

    let (mut destination, cursor) = files.next_owner().await;
    let mut other = batch(&cursor, &rows(0..60));
    // Asked before the other plan puts anything aside, and again with the rows.
    let unasked = destination.admits(&cursor, PlanId(0xABC)).unwrap_err();
    destination.admits(&cursor, other.to.plan).unwrap();
    other.to.plan = PlanId(0xABC);
    let failure = destination.write(&other).await.unwrap_err();
    assert_eq!((failure.kind, failure.to_string()), (unasked.kind, unasked.to_string()));
    assert_eq!(failure.kind, FailureKind::Cursor);
    assert_eq!(
        failure.to_string(),
        "the batch from offset 0 on was cut short when the core ended: up to 1 its rows are in shard c already, made by plan \
         f000000000000001, and the plan is 0000000000000abc now; nothing was changed: put the old definition back until the \
         pipeline has passed offset 1, or deliver it again by the new plan, from an offset below 0, with `garam replay PIPELINE \
         --from OFFSET --force`"
    );
    assert_eq!(files.applied().await, before);

    let cursor = written(destination.write(&batch(&cursor, &rows(0..60))).await);
    let mut next = batch(&cursor, &rows(60..90));
    next.to.plan = PlanId(0xABC);
    written(destination.write(&next).await);
    assert_eq!(files.applied().await, (0..90).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_that_some_shards_refuse_are_all_named_and_no_shard_commits() {
    let (files, mut destination, start) = Files::new().await;
    for place in &files.places {
        place
            .execute(
                "create trigger rule before insert on orders when new.id % 10 = 3 \
                 begin select raise(abort, 'no threes'); end",
            )
            .await;
    }
    let offered = rows(0..100);
    let found = refused(destination.write(&batch(&start, &offered)).await);
    let named: Vec<usize> = found.iter().map(|(row, _)| *row).collect();
    assert_eq!(named, (0..100).filter(|row| row % 10 == 3).collect::<Vec<_>>());
    let places: std::collections::BTreeSet<_> =
        named.iter().map(|&row| owners(&record_batch(&offered))[row]).collect();
    assert_eq!(places.len(), 3, "every shard refuses some");
    assert_eq!(files.applied().await, [] as [i64; 0]);
    assert_eq!(files.cursors().await.0.next, LogOffset(0));

    let kept: Vec<Row> = offered.into_iter().filter(|row| row.id % 10 != 3).collect();
    written(destination.write(&batch(&start, &kept)).await);
    assert_eq!(files.applied().await.len(), 90);
}

#[tokio::test]
async fn an_older_owner_writes_nowhere_once_one_shard_has_a_newer_one() {
    let (files, mut old, start) = Files::new().await;
    // A new owner that came only as far as the main shard.
    let mut newer = files.places[0].destination(WriteMode::Upsert);
    newer.take_over(&start.key, 0).await.unwrap();
    let failure = old.write(&batch(&start, &rows(0..100))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    assert_eq!(files.applied().await, [] as [i64; 0]);

    let (mut new, cursor) = files.next_owner().await;
    let failure = old.write(&batch(&start, &rows(0..100))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    written(new.write(&batch(&cursor, &rows(0..100))).await);
    assert_eq!(files.applied().await, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn going_back_takes_every_shard_along_and_a_crash_in_between_is_made_good() {
    let (files, mut destination, start) = Files::new().await;
    let cursor = written(destination.write(&batch(&start, &rows(0..30))).await);
    let cursor = written(destination.write(&batch(&cursor, &rows(30..60))).await);

    // One shard went back alone: it may not go on, since what lies between would be counted twice.
    let mut back = batch(&cursor, &[]);
    back.to = Cursor { next: LogOffset(0), fingerprint: 0, ..cursor.clone() };
    drop(destination);
    let mut alone = files.places[1].destination(WriteMode::Upsert);
    let mut key = start.key.clone();
    key.slots = ranges()[1];
    let from = alone.take_over(&key, 0).await.unwrap().unwrap();
    let to = Cursor { next: LogOffset(0), ..from.clone() };
    written(alone.write(&StagedBatch { from, to, ..back.clone() }).await);
    let (mut destination, cursor) = files.next_owner().await;
    assert_eq!(cursor.next, LogOffset(2));
    let failure = destination.write(&batch(&cursor, &rows(60..90))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Cursor);
    assert!(failure.to_string().starts_with("shard b stands at offset 0 and the pipeline at 2"));

    back.to = Cursor { next: LogOffset(0), fingerprint: 0, ..cursor.clone() };
    back.from = cursor;
    let cursor = written(destination.write(&back).await);
    let (_, shards) = files.cursors().await;
    assert!(shards.iter().all(|shard| shard.next == LogOffset(0)));
    written(destination.write(&batch(&cursor, &rows(0..30))).await);
    assert_eq!(files.applied().await.len(), 90, "the first thirty were written again");
}

#[tokio::test]
async fn another_slot_map_is_told_before_anything_is_written() {
    let (files, destination, start) = Files::new().await;
    drop(destination);
    let map = SlotMap::even(2, &["main", "c", "b"]);
    let stats = std::sync::Arc::default();
    let mut other = files.config().build_counted(&schema(), stats, &map).unwrap();
    other.prepare().await.unwrap();
    let failure = other.take_over(&start.key, 0).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fenced);
    let stats = std::sync::Arc::default();
    let unknown = SlotMap::even(1, &["main", "b", "gone"]);
    let failure = files.config().build_counted(&schema(), stats, &unknown).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Config);
}

#[test]
fn shards_need_a_key_names_and_places_of_their_own() {
    let place = Place::new();
    let shard = |name: &str, file: &str| SqliteShard {
        name: name.into(),
        path: place.folder.path().join(file),
    };
    let of = |mode, shard: Vec<SqliteShard>| {
        let config = SinkConfig::Sqlite(SqliteConfig { shard, ..place.config(mode) });
        config.check(&schema()).err().map(|failure| failure.to_string()).unwrap_or_default()
    };
    let upsert = WriteMode::Upsert;
    assert_eq!(of(upsert, vec![shard("b", "b.db")]), "");
    let cases = [
        (of(WriteMode::Append, vec![shard("b", "b.db")]), "mode \"append\" has none"),
        (of(upsert, vec![shard("main", "b.db")]), "two shards are called main"),
        (of(upsert, vec![shard("b", "b.db"), shard("b", "c.db")]), "two shards are called b"),
        (of(upsert, vec![shard("b", "out.db")]), "main and b are the same place"),
        (of(upsert, vec![shard("b c", "b.db")]), "shard name \"b c\" cannot be used"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found}");
    }
}
