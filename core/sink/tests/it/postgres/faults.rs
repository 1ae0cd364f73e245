//! Whatever breaks wherever: rows and cursor are both in or both not, and what the failure is called decides what happens next.

use std::time::Duration;

use garam_sink::postgres::Mode::{self, Append, Upsert};
use garam_sink::postgres::{PostgresConfig, Url};
use garam_stage::{Cursor, Destination, FailureKind};

use super::server::{Base, Server, run};
use crate::fixture::{
    Row, batch, cancelled_after, first_cursor, refused, row, rows, schema, written,
};
use crate::proxy::{Proxy, Rule};

/// A destination that reaches the server through a proxy.
async fn through(base: &Base, proxy: &Proxy, mode: Mode) -> (Box<dyn Destination>, Cursor) {
    let url = Some(Url(base.url(proxy.port)));
    base.ready_with(PostgresConfig { url, ..base.config(mode) }).await
}

/// Waits until another session waits for a lock.
async fn somebody_waits(base: &Base) {
    let schema = &base.schema;
    let sql = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = '{schema}'"
    );
    while base.lines(&sql).await == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connection_cut_at_any_step_leaves_all_or_nothing() {
    let offered: Vec<Row> = rows(0..300);
    for rule in [Rule::CutBefore as fn(usize) -> Rule, Rule::CutAfter as fn(usize) -> Rule] {
        let mut unknown = Vec::new();
        for step in 0.. {
            let base = Base::new().await;
            let proxy = Proxy::before(base.port).await;
            let (mut destination, start) = through(&base, &proxy, Append).await;
            proxy.rule(rule(step));
            let outcome = destination.write(&batch(&start, &offered)).await;
            proxy.rule(Rule::Pass);
            if step == 0 {
                // The first step asks for nothing yet: a connection that died while it was idle is replaced.
                written(outcome);
                assert_eq!(base.count().await, 300);
                continue;
            }
            let cursor = destination.take_over(&start.key, 0).await.unwrap().unwrap();
            match (base.count().await, cursor.next.0) {
                (0, 0) => {}
                (300, 1) => {}
                other => panic!("{:?}: rows and cursor {other:?}", rule(step)),
            }
            let failure = match outcome {
                // Nothing was left to cut.
                Ok(_) => {
                    assert_eq!(cursor.next.0, 1);
                    break;
                }
                Err(failure) => failure,
            };
            match failure.kind {
                FailureKind::Unknown => unknown.push(cursor.next.0),
                FailureKind::Unreachable => assert_eq!(cursor.next.0, 0, "{failure}"),
                other => panic!("{:?}: {other:?}: {failure}", rule(step)),
            }
            if cursor.next.0 == 0 {
                written(destination.write(&batch(&cursor, &offered)).await);
            }
            assert_eq!(
                base.lines("select count(*), count(distinct id) from orders").await,
                "300 | 300"
            );
        }
        // Exactly one step is the COMMIT: it did not arrive, or its reply did not.
        let expect = if rule(0) == Rule::CutBefore(0) { [0] } else { [1] };
        assert_eq!(unknown, expect);
    }
}

#[tokio::test]
async fn a_commit_that_arrives_late_is_waited_for() {
    let base = Base::new().await;
    let proxy = Proxy::before(base.port).await;
    let (mut old, start) = through(&base, &proxy, Append).await;
    let offered = batch(&start, &rows(0..300));
    proxy.rule(Rule::HoldCommit);
    let writing = tokio::spawn(async move { old.write(&offered).await });
    proxy.holds().await;
    let mut new = base.destination(Append);
    let key = start.key.clone();
    let taking = tokio::spawn(async move { new.take_over(&key, 0).await });
    somebody_waits(&base).await;
    proxy.release();
    written(writing.await.unwrap());
    let cursor = taking.await.unwrap().unwrap().unwrap();
    assert_eq!((cursor.next.0, cursor.epoch), (1, 2));
    assert_eq!(base.count().await, 300);
}

#[tokio::test]
async fn a_writer_that_is_paused_loses_its_locks_and_writes_nothing_when_it_wakes() {
    let base = Base::new().await;
    let proxy = Proxy::before(base.port).await;
    let url = Some(Url(base.url(proxy.port)));
    let statement_timeout = Duration::from_secs(1);
    let config = PostgresConfig { url, statement_timeout, ..base.config(Append) };
    let (mut zombie, start) = base.ready_with(config).await;
    let offered = batch(&start, &rows(0..300));
    proxy.rule(Rule::HoldCommit);
    let writing = tokio::spawn(async move { zombie.write(&offered).await });
    proxy.holds().await;
    let mut new = base.destination(Append);
    let cursor = new.take_over(&start.key, 0).await.unwrap().unwrap();
    assert_eq!((cursor.next.0, cursor.epoch), (0, 2));
    written(new.write(&batch(&cursor, &rows(0..300))).await);
    proxy.release();
    let failure = writing.await.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unknown, "{failure}");
    assert_eq!(base.lines("select count(*), count(distinct id) from orders").await, "300 | 300");
    assert_eq!(base.cursors().await[0].epoch, 2);
}

#[tokio::test]
async fn a_write_that_is_cancelled_anywhere_is_whole_or_absent() {
    let base = Base::new().await;
    let (mut destination, start) = base.ready(Append).await;
    let offered = rows(0..300);
    let (mut cancelled, mut polls) = (0, 0);
    // How often it waits depends on how soon the server answers: a write that came through begins anew.
    while cancelled < 20 {
        let done = cancelled_after(polls, destination.write(&batch(&start, &offered))).await;
        // The destination goes on with a connection of its own and waits for the old transaction to end.
        let cursor = destination.take_over(&start.key, 0).await.unwrap().unwrap();
        let count = base.count().await;
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
        base.execute("delete from orders; update _garam_cursors set next = 0, epoch = 1").await;
    }
}

#[tokio::test]
async fn a_killed_server_goes_on_where_it_stood() {
    let server = Server::start();
    let base = Base::on(&server).await;
    let (mut destination, start) = base.ready(Append).await;
    let mut cursor = written(destination.write(&batch(&start, &rows(0..100))).await);
    let mut expected = 100;
    for round in 1..4 {
        // A batch is on its way while the server dies.
        let ids = round * 100..round * 100 + 100;
        let offered = batch(&cursor, &rows(ids.clone()));
        let (outcome, ()) = tokio::join!(destination.write(&offered), async {
            tokio::task::yield_now().await;
            server.kill();
        });
        if let Err(failure) = outcome {
            let kinds = [FailureKind::Unreachable, FailureKind::Unknown];
            assert!(kinds.contains(&failure.kind), "{:?} {failure}", failure.kind);
        }
        let failure = destination.take_over(&start.key, 0).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable, "{failure}");
        server.start_again();
        cursor = destination.take_over(&start.key, 0).await.unwrap().unwrap();
        if cursor.next.0 == u64::try_from(round).unwrap() {
            cursor = written(destination.write(&batch(&cursor, &rows(ids))).await);
        }
        expected += 100;
        let found = base.lines("select count(*), count(distinct id) from orders").await;
        assert_eq!(found, format!("{expected} | {expected}"));
    }
    assert_eq!(cursor.counters.delivered, 400);
    server.kill();
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let base = Base::new().await;
    let (mut destination, start) = base.ready(Append).await;
    base.execute_as_owner(&format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '{}' and query = 'COMMIT'",
        base.schema
    ))
    .await;
    written(destination.write(&batch(&start, &rows(0..5))).await);
    assert_eq!(base.count().await, 5);
}

#[tokio::test]
async fn a_deadlock_is_contention_and_blames_no_row() {
    let base = Base::new().await;
    let (mut destination, start) = base.ready(Upsert).await;
    let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
    let mut other = base.connection_as("postgres").await;
    run(
        &mut other,
        "set deadlock_timeout = '30s'; begin; update orders set name = 'x' where id = 2",
    )
    .await;
    let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
    let writing = tokio::spawn(async move { (destination.write(&offered).await, destination) });
    somebody_waits(&base).await;
    run(&mut other, "update orders set name = 'x' where id = 0").await;
    let (outcome, mut destination) = writing.await.unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
    run(&mut other, "rollback").await;
    let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
    let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
    written(destination.write(&offered).await);
    assert_eq!(
        base.lines("select id, name from orders order by id").await,
        "0 | y\n1 | name 1\n2 | y"
    );
}

#[tokio::test]
async fn writers_of_the_same_rows_in_opposite_order_do_not_deadlock() {
    let base = Base::new().await;
    let (_, start) = base.ready(Upsert).await;
    let writers = (0..3u32).map(|number| {
        let mut destination = base.destination(Upsert);
        let mut cursor = Cursor { key: start.key.clone(), ..start.clone() };
        cursor.key.partition = number + 1;
        tokio::spawn(async move {
            destination.begin(&cursor).await.unwrap();
            for round in 0..10u128 {
                let mut offered = rows(0..200);
                offered.iter_mut().for_each(|row| row.position += round * 10_000);
                if number % 2 == 1 {
                    offered.reverse();
                }
                cursor = written(destination.write(&batch(&cursor, &offered)).await);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(base.count().await, 200);
}

#[tokio::test]
async fn a_lock_is_waited_for_a_while() {
    let base = Base::new().await;
    let statement_timeout = Duration::from_secs(1);
    let config = PostgresConfig { statement_timeout, ..base.config(Append) };
    let (mut destination, start) = base.ready_with(config).await;
    let mut other = base.connection().await;
    run(&mut other, "begin; lock table orders in access exclusive mode").await;
    let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
    run(&mut other, "rollback").await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
}

#[tokio::test]
async fn the_servers_codes_decide_what_happens_next() {
    let base = Base::new().await;
    let (mut destination, start) = base.ready(Append).await;
    let cases = [
        ("40001", FailureKind::Contention),
        ("40P01", FailureKind::Contention),
        ("55P03", FailureKind::Contention),
        ("53100", FailureKind::Full),
        ("53200", FailureKind::Unreachable),
        ("57P01", FailureKind::Unreachable),
        ("25006", FailureKind::Unreachable),
        ("42501", FailureKind::Refused),
        ("42703", FailureKind::Schema),
        ("XX001", FailureKind::Corrupt),
        ("XX000", FailureKind::Internal),
    ];
    let says = |code: &str| {
        format!(
            "create or replace function said() returns trigger language plpgsql as $$ begin \
             raise exception 'said so' using errcode = '{code}'; end $$; \
             create or replace trigger said before insert on orders for each row execute function said()"
        )
    };
    for (code, kind) in cases {
        base.execute(&says(code)).await;
        let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{code}: {failure}");
        assert_eq!(base.cursors().await, [first_cursor()]);
    }
    for code in ["22001", "22P02", "23514", "P0001", "54000"] {
        base.execute(&says(code)).await;
        assert_eq!(
            refused(destination.write(&batch(&start, &rows(0..3))).await).len(),
            3,
            "{code}"
        );
    }
    base.execute("drop trigger said on orders").await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_says_no_is_told_apart() {
    let base = Base::new().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = base.url(base.port);
    let cases = [
        (base.url(nobody), FailureKind::Unreachable, "Connection refused"),
        (
            url.replace("garam:garam", "garam:wrong"),
            FailureKind::Refused,
            "password authentication failed",
        ),
        (
            url.replace("/garam?", "/nothing?"),
            FailureKind::Refused,
            "database \"nothing\" does not exist",
        ),
        (format!("{url}&sslmode=require"), FailureKind::Refused, "server does not support TLS"),
    ];
    for (url, kind, expect) in cases {
        let config = PostgresConfig { url: Some(Url(url)), ..base.config(Append) };
        let failure = config.connect(&schema()).await.unwrap_err();
        let text = failure.to_string();
        assert_eq!(failure.kind, kind, "{text}");
        assert!(text.contains(expect), "{text}");
        assert!(!text.contains(":garam@"), "{text}");
    }
}

#[tokio::test]
async fn address_and_password_come_from_files_that_may_change() {
    let base = Base::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (address, password) = (folder.path().join("db.url"), folder.path().join("password"));
    let config = PostgresConfig {
        url: None,
        url_file: Some(address.clone()),
        password_file: Some(password.clone()),
        ..base.config(Append)
    };
    let failure = config.connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.to_string().starts_with(&format!("cannot read {}", address.display())));

    std::fs::write(&address, "not an address").unwrap();
    std::fs::write(&password, "wrong\n").unwrap();
    let failure = config.connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Config, "{failure}");

    std::fs::write(&address, base.url(base.port) + "\n").unwrap();
    let failure = config.connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");

    std::fs::write(&password, "garam\n").unwrap();
    config.connect(&schema()).await.unwrap();
}
