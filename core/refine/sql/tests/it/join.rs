//! Joins on a dimension's unique key: matched, missing, null; one state for a batch; what is refused.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use garam_refine_sql::{Dimensions, SqlRefiner, Unplannable};
use garam_stage::{
    Dimension, FailureKind, Missing, QuarantineReason, Refiner as _, Snapshot, SnapshotId,
    Snapshots,
};

use crate::world::{block, contract, texts};

fn schema() -> SchemaRef {
    let fields = [("user_id", DataType::Int64, false), ("city", DataType::Utf8, true)];
    let fields = fields.map(|(name, kind, nullable)| Field::new(name, kind, nullable));
    Arc::new(Schema::new(fields.to_vec()))
}

fn users(id: u128, rows: &[(i64, Option<&str>)]) -> Arc<Snapshot> {
    let keys: Int64Array = rows.iter().map(|(key, _)| Some(*key)).collect();
    let cities: StringArray = rows.iter().map(|(_, city)| *city).collect();
    let columns: Vec<arrow_array::ArrayRef> = vec![Arc::new(keys), Arc::new(cities)];
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    let key = vec!["user_id".into()];
    Arc::new(Snapshot { id: SnapshotId(id), rows, key, loaded_us: 0, source_us: None })
}

/// The row that stands in for a missing one.
fn nowhere() -> RecordBatch {
    let schema = schema();
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let fields: Vec<Field> = fields.collect();
    let columns: Vec<arrow_array::ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![None])), Arc::new(StringArray::from(vec!["nowhere"]))];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The place where the newest snapshots are; none was read yet.
struct Place(Snapshots);

impl Place {
    fn put(&self, snapshot: &Arc<Snapshot>) {
        for name in ["dim_users", "pairs"] {
            self.0.put(name, Arc::clone(snapshot));
        }
    }
}

fn world_where(missing: Missing) -> (Place, Dimensions) {
    let table = |name: &str, key: &[&str]| Dimension {
        name: name.into(),
        schema: schema(),
        key: key.iter().map(|key| (*key).to_owned()).collect(),
        missing,
        default_row: nowhere(),
    };
    let tables = vec![table("dim_users", &["user_id"]), table("pairs", &["user_id", "city"])];
    let snapshots = Snapshots::default();
    (Place(snapshots.clone()), Dimensions { tables, snapshots })
}

fn world() -> (Place, Dimensions) {
    world_where(Missing::Null)
}

fn plan(sql: &str) -> Result<(Place, SqlRefiner), Unplannable> {
    let (place, dimensions) = world();
    Ok((place, SqlRefiner::joining(contract(), sql, &dimensions)?))
}

const RECORDS: [&str; 4] = [
    r#"{"id":7,"n":1,"name":"Ada"}"#,
    r#"{"id":8,"n":2,"name":"Bo"}"#,
    r#"{"id":9,"n":3,"name":"Cy"}"#,
    r#"{"id":6,"name":"Di"}"#,
];

#[track_caller]
fn check(sql: &str, expected: &[&str], filtered: usize) {
    let (place, refiner) = plan(sql).unwrap();
    place.put(&users(1, &[(7, Some("Seoul")), (9, None), (3, Some("Busan"))]));
    let refined = refiner.refine(&[block(&RECORDS)]).unwrap();
    assert!(refined.bad.is_empty(), "{:?}", refined.bad);
    assert_eq!(texts(&refined.rows), expected, "{sql}");
    assert_eq!(refined.dropped.len(), filtered);
    let ids: Vec<usize> = refined.sources.iter().map(|at| at.index as usize).collect();
    for (row, index) in texts(&refined.rows).iter().zip(ids) {
        let id = &RECORDS[index][6..7];
        assert!(row.starts_with(id), "{row} is not of record {index}");
    }
}

#[test]
fn a_key_is_looked_up_and_a_missing_one_is_null_or_filtered() {
    check(
        "select id, u.city as city from input left join dim_users u on id = u.user_id",
        &["7|Seoul", "8|null", "9|null", "6|null"],
        0,
    );
    check(
        "select i.id as id, city from input i join dim_users on i.id = dim_users.user_id",
        &["7|Seoul", "9|null"],
        2,
    );
    check(
        "select id, city from input left join dim_users on user_id = n where city is not null",
        &["9|Busan"],
        3,
    );
    check(
        "select id, upper(a.city) as a, b.city as b from input join dim_users a on id = a.user_id left join dim_users b on n = b.user_id where id > 7",
        &["9|null|Busan"],
        3,
    );
    check(
        "select user_id, city from (select id as user_id, n from input where n < 3) t left join dim_users u using (user_id)",
        &["7|Seoul", "8|null"],
        2,
    );
}

#[test]
fn a_batch_sees_the_newest_snapshot() {
    let (place, refiner) =
        plan("select id, city from input join dim_users on id = user_id").unwrap();
    let refused = refiner.refine(&[block(&RECORDS)]).unwrap_err();
    assert_eq!(
        (refused.kind, refused.what.as_str()),
        (FailureKind::Unreachable, "dimension dim_users was never read: see `garam dimension ls`")
    );
    for (id, city) in [(1, "Seoul"), (2, "Daegu")] {
        place.put(&users(id, &[(7, Some(city))]));
        let refined = refiner.refine(&[block(&RECORDS)]).unwrap();
        assert_eq!(texts(&refined.rows), [format!("7|{city}")]);
    }
    place.put(&users(3, &[(7, None), (7, None)]));
    let refused = refiner.refine(&[block(&RECORDS)]).unwrap_err().to_string();
    assert!(
        refused.contains("cannot index dimension dim_users") && refused.contains("twice, in row 1"),
        "{refused}"
    );
    assert_eq!(refiner.dimensions(), ["dim_users"]);
}

#[test]
fn a_missing_row_has_a_stand_in_or_puts_its_record_aside() {
    let seoul = users(1, &[(7, Some("Seoul")), (9, None)]);
    let refined = |missing, join: &str| {
        let (place, dimensions) = world_where(missing);
        place.put(&seoul);
        let sql = format!("select id, city from input {join} dim_users on id = user_id");
        let refiner = SqlRefiner::joining(contract(), &sql, &dimensions).unwrap();
        refiner.refine(&[block(&RECORDS)]).unwrap()
    };
    for join in ["left join", "join"] {
        let stands_in = refined(Missing::Default, join);
        assert_eq!(texts(&stands_in.rows), ["7|Seoul", "8|nowhere", "9|null", "6|nowhere"]);
        assert!(stands_in.dropped.is_empty() && stands_in.bad.is_empty());
        let aside = refined(Missing::Quarantine, join);
        assert_eq!(texts(&aside.rows), ["7|Seoul", "9|null"]);
        let told: Vec<_> =
            aside.bad.iter().map(|bad| (bad.at.index, bad.reason, bad.detail.as_str())).collect();
        let text = "dimension dim_users has no row for the record's key";
        let unmatched = QuarantineReason::Unmatched;
        assert_eq!(told, [(1, unmatched, text), (3, unmatched, text)]);
    }
}

#[test]
fn other_joins_are_refused_with_what_is_missing() {
    let refused = |join: &str, part: &str| {
        let sql = format!("select id, city from input {join}");
        let error = plan(&sql).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{sql}\n  says: {error}\n  not:  {part}");
    };
    refused(
        "join dim_users on name = city",
        "the join with dim_users is refused: city is not part of its unique key; write `using (user_id)`",
    );
    refused("join dim_users on id > user_id", "it compares otherwise than by =");
    refused("join dim_users on id = user_id and n > 3", "it compares otherwise than by =");
    refused(
        "join pairs on id = user_id",
        "a part of its unique key is missing; write `using (user_id, city)`",
    );
    refused("join dim_users on name = user_id", "the types differ");
    refused(
        "join (select * from dim_users where city is null) u on id = user_id",
        "the join with a subquery is refused",
    );
    refused(
        "join dim_user on id = user_id",
        "there is no table dim_user: the rows by the contract are called input; dimensions: dim_users, pairs",
    );
    refused("full join dim_users on id = user_id", "this kind of join is refused");
    refused("right join dim_users on id = user_id", "this kind of join is refused");
    let (_, dimensions) = world();
    let alone = SqlRefiner::joining(contract(), "select city from dim_users", &dimensions);
    assert!(alone.unwrap_err().to_string().contains("there is no `from input`"));
}
