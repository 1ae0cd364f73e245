//! Rows the database will not take: all are named, nothing is committed, and without them the rest goes in.

use garam_sink::sqlite::read_cursors;
use garam_stage::Destination;
use garam_stage::WriteMode::{Append, Upsert};

use crate::fixture::{Place, Row, batch, first_cursor, refused, row, rows, written};

/// A destination over a table that refuses some rows by a rule of its own.
async fn with_rule(
    place: &Place,
    mode: garam_stage::WriteMode,
    rule: &str,
) -> Box<dyn Destination> {
    place.ready(mode).await;
    let sql = place.lines("select sql from sqlite_schema where name = 'orders'").await;
    let (head, tail) = sql.rsplit_once("\n) STRICT").unwrap();
    place.execute(&format!("drop table orders; {head}, {rule}\n) STRICT{tail}")).await;
    let mut destination = place.destination(mode);
    destination.prepare().await.unwrap();
    destination
}

#[tokio::test]
async fn every_refused_row_is_named_and_nothing_is_committed() {
    let place = Place::new();
    let mut destination = with_rule(&place, Append, "constraint low check (id % 100 <> 7)").await;
    let start = first_cursor();
    let mut offered = rows(0..310);
    offered[200].score = f64::NAN;
    let found = refused(destination.write(&batch(&start, &offered)).await);
    let detail = "CHECK constraint failed: low";
    let nan = "column score: NaN would be stored as NULL";
    let expect = [(7, detail), (107, detail), (200, nan), (207, detail), (307, detail)];
    assert_eq!(found, expect.map(|(row, detail)| (row, detail.to_owned())));
    assert_eq!(place.count().await, 0);
    assert_eq!(read_cursors(&place.path()).await.unwrap(), std::slice::from_ref(&start));

    let bad: Vec<usize> = found.iter().map(|(row, _)| *row).collect();
    let masked: Vec<Row> = offered
        .into_iter()
        .enumerate()
        .filter(|(row, _)| !bad.contains(row))
        .map(|(_, row)| row)
        .collect();
    written(destination.write(&batch(&start, &masked)).await);
    assert_eq!(place.count().await, 305);
}

#[tokio::test]
async fn rows_hidden_behind_a_refused_row_of_their_key_are_found_too() {
    let place = Place::new();
    let mut destination = with_rule(&place, Upsert, "check (name not like 'bad%')").await;
    let offered = [
        row(1, "bad hidden for ever", 1),
        row(1, "good", 2),
        row(1, "bad last", 3),
        row(2, "bad first", 4),
        row(2, "bad second", 5),
        row(3, "bad superseded", 6),
        row(3, "fine", 7),
    ];
    let start = first_cursor();
    let found = refused(destination.write(&batch(&start, &offered)).await);
    // Row 0 and row 5 are superseded by rows that are accepted, so they stand in nobody's way.
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3, 4]);

    let masked = [0, 1, 5, 6].map(|i: usize| offered[i].clone());
    written(destination.write(&batch(&start, &masked)).await);
    assert_eq!(place.lines("select id, name from orders order by id").await, "1 | good\n3 | fine");
}

#[tokio::test]
async fn rows_that_meet_another_unique_index_are_refused_in_append_mode() {
    let place = Place::new();
    let mut destination = with_rule(&place, Append, "unique (name)").await;
    let start = first_cursor();
    let offered = [row(1, "a", 1), row(2, "b", 2), row(3, "a", 3)];
    let found = refused(destination.write(&batch(&start, &offered)).await);
    assert_eq!(found, [(2, "UNIQUE constraint failed: orders.name".to_owned())]);
}

#[tokio::test]
async fn a_tables_own_conflict_rule_cannot_lose_rows() {
    let place = Place::new();
    let mut destination = with_rule(&place, Append, "unique (name) on conflict ignore").await;
    let offered = [row(1, "a", 1), row(2, "a", 2)];
    let found = refused(destination.write(&batch(&first_cursor(), &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_trigger_that_drops_rows_silently_is_noticed() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Upsert).await;
    place
        .execute(
            "create trigger quiet before insert on orders when new.id = 3 begin select raise(ignore); end",
        )
        .await;
    let failure = destination.write(&batch(&start, &rows(0..20))).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "a trigger or rule of table orders dropped 1 of 16 rows without an error: remove it, rows must not disappear"
    );
    assert_eq!(place.count().await, 0);
}
