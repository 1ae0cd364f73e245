//! COPY is only ever the faster way to the same rows: what it cannot do goes in as before, once.

use garam_sink::ServerConfig;
use garam_sink::postgres::Mode::Append;
use garam_sink::postgres::Url;
use garam_stage::FailureKind;

use super::server::PgBase;
use crate::fixture::{Row, batch, refused, rows, written};
use crate::proxy::Proxy;
use crate::servers::Base as _;

const COLUMNS: &str =
    "id bigint, name text, amount numeric(10,2), score double precision, at timestamptz";
const SYSTEM: &str = "_host text, _path text, _origin bytea, _position numeric(39), _ordinal integer, _version bytea, \
_event_time timestamptz, _ingest_time timestamptz, unique (_origin, _position, _ordinal)";

/// BEGIN, the cursor, COMMIT.
const FRAME: usize = 3;
const COPY: usize = 2;

async fn through(base: &PgBase) -> (Proxy, ServerConfig) {
    let proxy = Proxy::before(base.port()).await;
    let url = Some(Url(base.url(proxy.port)));
    let config = ServerConfig { url, ..base.config(Append) };
    (proxy, config)
}

#[tokio::test]
async fn what_a_rewound_cursor_repeats_is_in_once_and_copy_comes_back_behind_it() {
    let base = PgBase::new().await;
    let (proxy, config) = through(&base).await;
    let (mut destination, start) = base.ready_with(&config).await;
    let parts: Vec<Vec<Row>> = (0..6).map(|i| rows(i * 1_500..(i + 1) * 1_500)).collect();
    let first = written(destination.write(&batch(&start, &parts[0])).await);
    let second = written(destination.write(&batch(&first, &parts[1])).await);
    assert_eq!(second.counters.delivered, 3_000);

    base.execute("update _garam_cursors set next = 0").await;
    let mut mixed = parts[1].clone();
    mixed.extend(parts[2].clone());
    let again = written(destination.write(&batch(&start, &parts[0])).await);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&1_500));
    let again = written(destination.write(&batch(&again, &mixed)).await);
    assert_eq!(again.counters.dropped.get("repeated"), Some(&3_000));
    assert_eq!(again.counters.delivered, 1_500);
    // The first batch that repeats nothing still goes in as the one before it.
    proxy.round_trips();
    let beyond = written(destination.write(&batch(&again, &parts[3])).await);
    assert_eq!(proxy.round_trips(), FRAME + 1);
    let beyond = written(destination.write(&batch(&beyond, &parts[4])).await);
    assert_eq!(proxy.round_trips(), FRAME + COPY);
    assert_eq!(beyond.counters.delivered, 4_500);
    assert!(beyond.counters.balanced());
    let found = base.lines("select count(*), count(distinct id), max(id) from orders").await;
    assert_eq!(found, "7500 | 7500 | 7499");
}

#[tokio::test]
async fn a_refused_row_is_found_behind_a_copy_and_the_next_batch_is_copied() {
    let base = PgBase::new().await;
    let (proxy, config) = through(&base).await;
    let (mut destination, start) = base.ready_with(&config).await;
    base.execute("alter table orders add constraint low check (id <> 777)").await;
    let mut offered = rows(0..2_500);
    let found = refused(destination.write(&batch(&start, &offered)).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [777]);
    offered.remove(777);
    proxy.round_trips();
    written(destination.write(&batch(&start, &offered)).await);
    assert_eq!(proxy.round_trips(), FRAME + COPY);
    assert_eq!(base.count().await, 2_499);
}

#[tokio::test]
async fn a_table_that_copy_does_not_suit_takes_its_rows_by_insert() {
    let tables = [
        // Other types than those that are sent.
        format!("create table orders ({}, {SYSTEM})", COLUMNS.replace("id bigint", "id numeric")),
        // Policies, under which there is no COPY.
        format!(
            "create table orders ({COLUMNS}, {SYSTEM}); alter table orders enable row level security"
        ),
    ];
    for table in tables {
        let base = PgBase::new().await;
        base.execute(&table).await;
        let (proxy, config) = through(&base).await;
        let (mut destination, start) = base.ready_with(&config).await;
        let cursor = written(destination.write(&batch(&start, &rows(0..100))).await);
        proxy.round_trips();
        written(destination.write(&batch(&cursor, &rows(100..200))).await);
        assert_eq!(proxy.round_trips(), FRAME + 1, "{table}");
        assert_eq!(base.lines("select count(*), sum(id) from orders").await, "200 | 19900");
    }
}

#[tokio::test]
async fn copy_does_not_pass_over_a_rule_that_an_insert_would_meet() {
    let base = PgBase::new().await;
    base.execute(&format!(
        "create table orders ({COLUMNS}, {SYSTEM}); create table seen (id bigint); \
         create rule see as on insert to orders do also insert into seen values (new.id)"
    ))
    .await;
    let (mut destination, start) = base.ready(Append).await;
    let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema, "{failure}");
    assert_eq!(base.count().await, 0);
}
