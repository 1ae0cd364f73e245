//! Row changes in tables that follow their source: random stories against a plain map, by key and value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use garam_sink::{SinkConfig, Truncate};
use garam_stage::contract::OneOrMany;
use garam_stage::{
    ContractConfig, Cursor, Destination, Format, Op, RecordRef, StagedBatch, UnknownColumns,
    WriteMode,
};

use crate::fixture::{Place, first_cursor, refused, written};

/// id, name, and the system columns with `_op`.
pub(crate) fn schema() -> SchemaRef {
    let columns = [("id", "bigint not null"), ("name", "text not null")];
    let columns = columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec();
    let config = ContractConfig {
        key: Some(OneOrMany::One("id".into())),
        unknown: UnknownColumns::Drop,
        ..ContractConfig::new(Format::Changes, columns)
    };
    config.check().unwrap().schema()
}

/// A row as refining hands it over.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) op: Op,
    pub(crate) id: Option<i64>,
    pub(crate) name: Option<String>,
    /// Among the rows of its record.
    pub(crate) ordinal: i32,
}

pub(crate) fn put(id: i64, name: &str) -> Change {
    Change { op: Op::Update, id: Some(id), name: Some(name.into()), ordinal: 0 }
}

pub(crate) fn gone(id: i64) -> Change {
    Change { op: Op::Delete, id: Some(id), name: None, ordinal: 0 }
}

fn emptied() -> Change {
    Change { op: Op::Truncate, id: None, name: None, ordinal: 0 }
}

/// One log entry of these changes.
pub(crate) fn batch(from: &Cursor, changes: &[Change]) -> StagedBatch {
    let count = changes.len();
    let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
    let (mut event, mut ingest) = (time(), time());
    let mut origin = FixedSizeBinaryBuilder::new(32);
    let mut position = FixedSizeBinaryBuilder::new(16);
    let mut version = FixedSizeBinaryBuilder::new(20);
    let (mut index, mut sources) = (0_u32, Vec::new());
    for change in changes {
        index += u32::from(change.ordinal == 0);
        sources.push(RecordRef { offset: from.next, index });
        event.append_null();
        ingest.append_value(1_795_476_245_000_000);
        origin.append_value([0xAB; 32]).unwrap();
        let at = (u128::from(from.next.0) << 32) + u128::from(index);
        position.append_value(at.to_be_bytes()).unwrap();
        version.append_value([0; 20]).unwrap();
    }
    let text = |value: &str| Arc::new(StringArray::from(vec![value; count]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(changes.iter().map(|change| change.id).collect::<Int64Array>()),
        Arc::new(changes.iter().map(|change| change.name.clone()).collect::<StringArray>()),
        text("db-1"),
        text("shop.orders"),
        Arc::new(origin.finish()),
        Arc::new(position.finish()),
        Arc::new(changes.iter().map(|change| change.ordinal).collect::<Int32Array>()),
        Arc::new(version.finish()),
        Arc::new(event.finish()),
        Arc::new(ingest.finish()),
        Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.op.name()))),
    ];
    let mut to = from.clone();
    to.next = from.next.next();
    to.fingerprint = to.next.0;
    to.counters.records_in += u64::from(index);
    to.counters.delivered += u64::from(index);
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    StagedBatch { rows, sources, from: from.clone(), to }
}

/// What the table must hold.
pub(crate) type Model = BTreeMap<i64, String>;

pub(crate) fn shown(model: &Model) -> String {
    model.iter().map(|(id, name)| format!("{id} | {name}")).collect::<Vec<_>>().join("\n")
}

pub(crate) const SHOW: &str = "select id, name from orders order by id";

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Some changes, and what they make of the model.
pub(crate) fn story(dice: &mut Dice, model: &mut Model) -> Vec<Change> {
    let mut changes = Vec::new();
    for _ in 0..=dice.below(40) {
        let id = i64::try_from(dice.below(12)).unwrap();
        let name = format!("name {}", dice.below(1_000_000));
        match dice.below(20) {
            0 => {
                model.clear();
                changes.push(emptied());
            }
            1..=6 => {
                model.remove(&id);
                changes.push(gone(id));
            }
            7..=9 => {
                // The key changes: two rows of one record.
                let to = i64::try_from(dice.below(12)).unwrap();
                if to != id {
                    model.remove(&id);
                    changes.push(gone(id));
                    model.insert(to, name.clone());
                    changes.push(Change { ordinal: 1, op: Op::Insert, ..put(to, &name) });
                }
            }
            _ => {
                model.insert(id, name.clone());
                changes.push(put(id, &name));
            }
        }
    }
    changes
}

/// Tells stories to a destination; now and then the writer is replaced, and an old one or an old batch comes back.
pub(crate) async fn follow<T: AsyncFn() -> String>(config: &SinkConfig, look: T, seed: u64) {
    let fresh = || config.build(&schema()).unwrap();
    let (mut destination, mut cursor) = (fresh(), first_cursor());
    destination.prepare().await.unwrap();
    destination.begin(&cursor).await.unwrap();
    let (mut dice, mut model) = (Dice::new(seed), Model::new());
    for round in 0..25 {
        let offered = batch(&cursor, &story(&mut dice, &mut model));
        let (records, before) = (offered.to.counters.clone(), cursor.clone());
        cursor = written(destination.write(&offered).await);
        assert_eq!(
            cursor.counters, records,
            "every change is delivered, seed {seed} round {round}"
        );
        assert_eq!(look().await, shown(&model), "seed {seed} round {round}");
        if dice.below(3) == 0 {
            // The outcome was unknown: who takes over finds the cursor behind the batch, and the batch cannot come twice.
            destination = fresh();
            destination.prepare().await.unwrap();
            cursor = destination.take_over(&cursor.key, cursor.epoch).await.unwrap().unwrap();
            let again = StagedBatch { from: before, ..offered };
            destination.write(&again).await.unwrap_err();
            assert_eq!(look().await, shown(&model), "seed {seed} round {round}, offered twice");
        }
    }
}

fn config(place: &Place, truncate: Option<Truncate>) -> SinkConfig {
    let mut config = place.config(WriteMode::Upsert);
    config.truncate = truncate;
    SinkConfig::Sqlite(config)
}

async fn ready(config: &SinkConfig) -> (Box<dyn Destination>, Cursor) {
    let mut destination = config.build(&schema()).unwrap();
    destination.prepare().await.unwrap();
    let cursor = first_cursor();
    destination.begin(&cursor).await.unwrap();
    (destination, cursor)
}

#[tokio::test]
async fn a_table_is_its_source_whatever_happened() {
    for seed in 1..=8 {
        let place = Place::new();
        let config = config(&place, Some(Truncate::Apply));
        follow(&config, async || place.lines(SHOW).await, seed).await;
    }
}

#[tokio::test]
async fn a_refused_row_lets_the_one_before_it_stand_but_not_behind_a_delete() {
    let place = Place::new();
    let (mut destination, start) = ready(&config(&place, None)).await;
    place
        .execute("create trigger t before insert on orders when new.name = 'bad' begin select raise(abort, 'no'); end")
        .await;
    let offered = [put(1, "a"), put(1, "bad"), put(2, "b"), gone(2), put(2, "bad"), put(3, "c")];
    let found = refused(destination.write(&batch(&start, &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 4]);
    let masked = [put(1, "a"), put(2, "b"), gone(2), put(3, "c")];
    written(destination.write(&batch(&start, &masked)).await);
    assert_eq!(place.lines(SHOW).await, "1 | a\n3 | c");
}

#[tokio::test]
async fn an_emptied_source_waits_for_a_person_unless_told() {
    let changes = [put(1, "a"), emptied(), put(2, "b")];
    let place = Place::new();
    let (mut destination, start) = ready(&config(&place, None)).await;
    let failure = destination.write(&batch(&start, &changes)).await.unwrap_err();
    assert_eq!(failure.kind, garam_stage::FailureKind::Refused);
    assert!(failure.to_string().contains("truncate = \"apply\""), "{failure}");
    assert_eq!(place.lines(SHOW).await, "");

    let place = Place::new();
    let (mut destination, start) = ready(&config(&place, Some(Truncate::Ignore))).await;
    let cursor = written(destination.write(&batch(&start, &changes)).await);
    assert_eq!(cursor.counters.dropped.get("ignored"), Some(&1));
    assert!(cursor.counters.balanced());
    assert_eq!(place.lines(SHOW).await, "1 | a\n2 | b");
}
