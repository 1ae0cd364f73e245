//! Rows and cursor go in together, once, and come back as they were.

use expect_test::expect;
use garam_sink::sqlite::read_cursors;
use garam_stage::WriteMode::{Append, Upsert};
use garam_stage::{FailureKind, Outcome};

use crate::fixture::{Place, batch, cancelled_after, first_cursor, row, rows, schema, written};

#[tokio::test]
async fn values_come_back_as_they_were() {
    let place = Place::new();
    let (mut destination, cursor) = place.ready(Append).await;
    let mut second = row(-2, "O'Brien; drop table", 12);
    second.name = None;
    written(destination.write(&batch(&cursor, &[row(1, "가람", 3), second])).await);
    expect![[r#"
        1 | 가람 | 1.05 | 0.5 | 2026-11-23T23:24:04.123456Z | web-1 | /var/log/app.log | abababababababababababababababababababababababababababababababab | 3 | 0 | 0000000000000000000000000000000000000003 | 2026-11-23T23:24:04.123456Z | 2026-11-23T23:24:05.000000Z
        -2 | NULL | -1.95 | 0.5 | 2026-11-23T23:24:04.123456Z | web-1 | /var/log/app.log | abababababababababababababababababababababababababababababababab | 12 | 0 | 000000000000000000000000000000000000000c | 2026-11-23T23:24:04.123456Z | 2026-11-23T23:24:05.000000Z"#]]
    .assert_eq(&place.lines("select * from orders").await);
}

#[tokio::test]
async fn the_table_is_made_from_the_contract() {
    let place = Place::new();
    place.ready(Append).await;
    expect![[r#"
        CREATE TABLE "orders" (
          "id" INTEGER NOT NULL,
          "name" TEXT,
          "amount" TEXT,
          "score" REAL,
          "at" TEXT,
          "_host" TEXT NOT NULL,
          "_path" TEXT NOT NULL,
          "_origin" BLOB NOT NULL,
          "_position" ANY NOT NULL,
          "_ordinal" INTEGER NOT NULL,
          "_version" BLOB NOT NULL,
          "_event_time" TEXT,
          "_ingest_time" TEXT NOT NULL,
          UNIQUE ("_origin","_position","_ordinal")
        ) STRICT"#]]
    .assert_eq(&place.lines("select sql from sqlite_schema where name = 'orders'").await);
    assert_eq!(place.lines("pragma journal_mode").await, "wal");

    // Preparing again finds it as it should be.
    place.destination(Append).prepare().await.unwrap();

    let place = Place::new();
    place.ready(Upsert).await;
    let sql = place.lines("select sql from sqlite_schema where name = 'orders'").await;
    assert!(sql.contains("PRIMARY KEY (\"id\")"), "{sql}");
    place.destination(Upsert).prepare().await.unwrap();
}

#[tokio::test]
async fn every_number_of_rows_goes_in_once_and_in_order() {
    for count in [0, 1, 15, 16, 17, 127, 128, 129, 300] {
        let place = Place::new();
        let (mut destination, cursor) = place.ready(Append).await;
        let stored = written(destination.write(&batch(&cursor, &rows(0..count))).await);
        assert_eq!(i64::try_from(place.count().await).unwrap(), count);
        assert_eq!(i64::try_from(stored.counters.delivered).unwrap(), count);
        let order = "select count(*) from orders where rowid <> id + 1";
        assert_eq!(place.lines(order).await, "0", "{count} rows");
    }
}

#[tokio::test]
async fn a_rewound_cursor_repeats_nothing_and_counts_it() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    written(destination.write(&batch(&start, &rows(0..200))).await);
    place.execute("update _garam_cursors set next = 0").await;

    let again = written(destination.write(&batch(&start, &rows(0..200))).await);
    assert_eq!(place.count().await, 200);
    assert_eq!(again.counters.delivered, 0);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&200));
    assert!(again.counters.balanced());
    assert_eq!(read_cursors(&place.path()).await.unwrap(), [again]);

    // Some of them new, in the middle of a statement.
    place.execute("update _garam_cursors set next = 0; delete from orders where id % 7 = 3").await;
    let again = written(destination.write(&batch(&start, &rows(0..205))).await);
    assert_eq!(place.count().await, 205);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&171));
    assert_eq!(again.counters.delivered, 34);
}

#[tokio::test]
async fn records_of_several_rows_are_counted_as_records() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    let mut several = rows(0..3);
    for (id, ordinal) in [(10, 1), (11, 2)] {
        several.push(crate::fixture::Row { ordinal, ..row(id, "more", 20) });
    }
    let stored = written(destination.write(&batch(&start, &several)).await);
    assert_eq!(stored.counters.delivered, 3);
    assert_eq!(place.count().await, 5);

    // One row of the third record is missing: that record is delivered, the other two are repeated.
    place.execute("update _garam_cursors set next = 0; delete from orders where id = 10").await;
    let again = written(destination.write(&batch(&start, &several)).await);
    assert_eq!(again.counters.delivered, 1);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&2));
    assert_eq!(place.count().await, 5);
}

#[tokio::test]
async fn the_last_row_of_a_key_wins_inside_a_batch_and_across_batches() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Upsert).await;
    let first = [row(1, "a", 1), row(2, "b", 2), row(1, "c", 3), row(1, "d", 4), row(3, "e", 5)];
    let cursor = written(destination.write(&batch(&start, &first)).await);
    assert_eq!(place.lines("select id, name from orders order by id").await, "1 | d\n2 | b\n3 | e");
    assert_eq!(cursor.counters.delivered, 5);

    let cursor =
        written(destination.write(&batch(&cursor, &[row(2, "f", 6), row(4, "g", 7)])).await);
    let expect = "1 | d | 4\n2 | f | 6\n3 | e | 5\n4 | g | 7";
    assert_eq!(place.lines("select id, name, _position from orders order by id").await, expect);
    assert_eq!(cursor.next.0, 2);
}

#[tokio::test]
async fn an_empty_batch_moves_the_cursor_alone() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    let cursor = written(destination.write(&batch(&start, &[])).await);
    assert_eq!(cursor.next.0, 1);
    assert_eq!(read_cursors(&place.path()).await.unwrap(), [cursor]);
    assert_eq!(place.count().await, 0);
}

#[tokio::test]
async fn positions_beyond_63_bits_keep_their_order() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    let positions =
        [0, 9, 10, i64::MAX as u128, i64::MAX as u128 + 1, u128::from(u64::MAX), u128::MAX];
    let mut shuffled: Vec<_> =
        positions.iter().enumerate().map(|(i, &p)| row(i as i64, "x", p)).collect();
    shuffled.rotate_left(3);
    written(destination.write(&batch(&start, &shuffled)).await);
    expect![[r#"
        0 | integer | 0
        1 | integer | 9
        2 | integer | 10
        3 | integer | 9223372036854775807
        4 | text | 000000000000000000009223372036854775808
        5 | text | 000000000000000000018446744073709551615
        6 | text | 340282366920938463463374607431768211455"#]]
    .assert_eq(
        &place
            .lines("select id, typeof(_position), _position from orders order by _position")
            .await,
    );
    // The unique key holds for both forms.
    place.execute("update _garam_cursors set next = 0").await;
    written(destination.write(&batch(&start, &shuffled)).await);
    assert_eq!(place.count().await, 7);
}

#[tokio::test]
async fn a_rehearsal_leaves_nothing() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    let offered = batch(&start, &rows(0..20));
    let outcome = destination.rehearse(&offered).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }));
    assert_eq!(place.count().await, 0);
    assert_eq!(read_cursors(&place.path()).await.unwrap(), [first_cursor()]);
    written(destination.write(&offered).await);
}

#[tokio::test]
async fn a_write_that_is_cancelled_anywhere_is_whole_or_absent() {
    let place = Place::new();
    let (mut destination, start) = place.ready(Append).await;
    let offered = rows(0..300);
    let (mut cancelled, mut polls) = (0, 0);
    // How often it waits depends on how soon the database answers: a write that came through begins anew.
    while cancelled < 20 {
        let done = cancelled_after(polls, destination.write(&batch(&start, &offered))).await;
        // The destination goes on with a connection of its own and waits for the old transaction to end.
        let cursor = destination.take_over(&start.key, 0).await.unwrap().unwrap();
        let count = place.count().await;
        match cursor.next.0 {
            0 => assert_eq!(count, 0),
            1 => assert_eq!(count, 300),
            other => panic!("cursor at {other}"),
        }
        if done.is_some() {
            polls = 0;
        } else {
            (cancelled, polls) = (cancelled + 1, polls + 1);
        }
        place.execute("delete from orders; update _garam_cursors set next = 0, epoch = 1").await;
    }
}

#[tokio::test]
async fn several_pipelines_share_a_file_from_its_first_moment_on() {
    let place = Place::new();
    let prepared = (0..4u8).map(|i| {
        let mut config = place.config(Append);
        config.table = format!("orders_{i}");
        let mut destination = config.build(&schema()).unwrap();
        tokio::spawn(async move {
            destination.prepare().await.unwrap();
            let mut cursor = first_cursor();
            cursor.key.pipeline.0[0] = i;
            destination.begin(&cursor).await.unwrap();
            for part in 0..5 {
                let ids = part * 50..(part + 1) * 50;
                cursor = written(destination.write(&batch(&cursor, &rows(ids))).await);
            }
        })
    });
    for task in prepared.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    for i in 0..4 {
        assert_eq!(place.lines(&format!("select count(*) from orders_{i}")).await, "250");
    }
    assert_eq!(read_cursors(&place.path()).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_copy_of_the_file_alone_can_be_read() {
    let place = Place::new();
    let (mut destination, cursor) = place.ready(Append).await;
    written(destination.write(&batch(&cursor, &rows(0..5))).await);
    place.execute("pragma wal_checkpoint(truncate)").await;
    let elsewhere = Place::new();
    std::fs::copy(place.path(), elsewhere.path()).unwrap();
    assert_eq!(elsewhere.count().await, 5);
    assert_eq!(read_cursors(&elsewhere.path()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let place = Place::new();
    std::fs::write(place.path(), vec![b'x'; 8192]).unwrap();
    let failure = place.destination(Append).prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Corrupt, "{failure}");
    assert_eq!(std::fs::read(place.path()).unwrap(), vec![b'x'; 8192]);
}
