//! Row changes: the table is its source's, by key and value, and only what the configuration allows takes rows away.

use garam_sink::mysql::Mode::{Ignore, Insert, Update, Upsert};
use garam_sink::{ServerConfig, Truncate};

use super::Base;
use crate::changes::{SHOW, batch, follow, gone, put, schema};
use crate::fixture::{refused, written};

at_every_server!(
    a_table_is_its_source_whatever_happened,
    update_takes_rows_away_and_makes_none,
    a_delete_that_stands_in_the_way_is_named,
    modes_that_take_no_row_away_are_refused,
);

async fn a_table_is_its_source_whatever_happened(base: impl Base) {
    for seed in 1..=3 {
        let base = base.another().await;
        let config = ServerConfig { truncate: Some(Truncate::Apply), ..base.config(Upsert) };
        follow(&base.sink(&config), async || base.lines(SHOW).await, seed).await;
    }
}

async fn update_takes_rows_away_and_makes_none(base: impl Base) {
    let (mut destination, start) = base.ready_for(&base.config(Upsert), schema()).await;
    let cursor = written(destination.write(&batch(&start, &[put(1, "a"), put(2, "b")])).await);
    let mut destination = base.sink(&base.config(Update)).build(&schema()).unwrap();
    destination.prepare().await.unwrap();
    // 1 is gone when it is changed again, 9 was never there.
    let changes = [put(2, "c"), gone(1), put(1, "d"), put(9, "e"), gone(8)];
    let cursor = written(destination.write(&batch(&cursor, &changes)).await);
    assert_eq!(base.lines(SHOW).await, "2 | c");
    assert_eq!(cursor.counters.dropped.get("missing"), Some(&2));
    assert_eq!(cursor.counters.delivered, 5);
    assert!(cursor.counters.balanced());
}

async fn a_delete_that_stands_in_the_way_is_named(base: impl Base) {
    let (mut destination, start) = base.ready_for(&base.config(Upsert), schema()).await;
    let first: Vec<_> = (1..=6).map(|id| put(id, "a")).collect();
    let cursor = written(destination.write(&batch(&start, &first)).await);
    base.execute("create table parts (id bigint, foreign key (id) references orders (id))").await;
    base.execute("insert into parts values (4)").await;
    let changes = [gone(2), gone(4), put(5, "b"), gone(6)];
    let found = refused(destination.write(&batch(&cursor, &changes)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
    assert_eq!(base.count().await, 6, "nothing was committed");
    let masked = [gone(2), put(5, "b"), gone(6)];
    written(destination.write(&batch(&cursor, &masked)).await);
    assert_eq!(base.lines(SHOW).await, "1 | a\n3 | a\n4 | a\n5 | b");
}

async fn modes_that_take_no_row_away_are_refused(base: impl Base) {
    let refused = |config: &ServerConfig| {
        let failure = base.sink(config).check(&schema()).unwrap_err();
        failure.to_string()
    };
    for mode in [Insert, Ignore] {
        assert!(refused(&base.config(mode)).contains("never takes a row away"));
    }
    let guarded = ServerConfig { version: Some("id".into()), ..base.config(Upsert) };
    assert!(refused(&guarded).contains("version cannot be had for row changes"));
}
