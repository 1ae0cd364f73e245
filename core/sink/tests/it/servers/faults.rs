//! Whatever breaks wherever: rows and cursor are both in or both not, and what the failure is called decides what happens next.

use std::time::Duration;

use garam_sink::ServerConfig;
use garam_sink::mysql::Mode::{self, Append, Upsert};
use garam_sink::mysql::Url;
use garam_stage::{Cursor, Destination, FailureKind};

use super::Base;
use crate::fixture::{Row, batch, cancelled_after, rows, schema, written};
use crate::proxy::{Proxy, Rule};
use crate::testbed::Server;

at_every_server!(
    a_connection_cut_at_any_step_leaves_all_or_nothing,
    a_commit_that_arrives_late_is_waited_for,
    a_writer_that_is_paused_loses_its_locks_and_writes_nothing_when_it_wakes,
    a_write_that_is_cancelled_anywhere_is_whole_or_absent,
    a_killed_server_goes_on_where_it_stood,
    a_connection_that_was_closed_while_idle_is_replaced,
    writers_of_the_same_rows_in_opposite_order_do_not_deadlock,
    address_and_password_come_from_files_that_may_change,
);

/// A destination that reaches the server through a proxy.
pub(super) async fn through(
    base: &impl Base,
    proxy: &Proxy,
    mode: Mode,
) -> (Box<dyn Destination>, Cursor) {
    let url = Some(Url(base.url(proxy.port)));
    base.ready_with(&ServerConfig { url, ..base.config(mode) }).await
}

async fn a_connection_cut_at_any_step_leaves_all_or_nothing(place: impl Base) {
    let offered: Vec<Row> = rows(0..300);
    for rule in [Rule::CutBefore as fn(usize) -> Rule, Rule::CutAfter as fn(usize) -> Rule] {
        let mut unknown = Vec::new();
        for step in 0.. {
            let base = place.another().await;
            let proxy = Proxy::before(base.port()).await;
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

async fn a_commit_that_arrives_late_is_waited_for(base: impl Base) {
    let proxy = Proxy::before(base.port()).await;
    let (mut old, start) = through(&base, &proxy, Append).await;
    let offered = batch(&start, &rows(0..300));
    proxy.rule(Rule::HoldCommit);
    let writing = tokio::spawn(async move { old.write(&offered).await });
    proxy.holds().await;
    let mut new = base.destination(Append);
    let key = start.key.clone();
    let taking = tokio::spawn(async move { new.take_over(&key, 0).await });
    base.somebody_waits().await;
    proxy.release();
    written(writing.await.unwrap());
    let cursor = taking.await.unwrap().unwrap().unwrap();
    assert_eq!((cursor.next.0, cursor.epoch), (1, 2));
    assert_eq!(base.count().await, 300);
}

async fn a_writer_that_is_paused_loses_its_locks_and_writes_nothing_when_it_wakes(base: impl Base) {
    let proxy = Proxy::before(base.port()).await;
    let url = Some(Url(base.url(proxy.port)));
    let statement_timeout = Duration::from_secs(1);
    let config = ServerConfig { url, statement_timeout, ..base.config(Append) };
    let (mut zombie, start) = base.ready_with(&config).await;
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

async fn a_write_that_is_cancelled_anywhere_is_whole_or_absent(base: impl Base) {
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

async fn a_killed_server_goes_on_where_it_stood<B: Base>(place: B) {
    let server = Server::start(place.kind());
    let base = B::on(&server).await;
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
        // MySQL shows a password only under TLS; then it remembers.
        base.connection().await;
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

async fn a_connection_that_was_closed_while_idle_is_replaced(base: impl Base) {
    let (mut destination, start) = base.ready(Append).await;
    base.close_idle().await;
    written(destination.write(&batch(&start, &rows(0..5))).await);
    assert_eq!(base.count().await, 5);
}

async fn writers_of_the_same_rows_in_opposite_order_do_not_deadlock(base: impl Base) {
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

async fn address_and_password_come_from_files_that_may_change(base: impl Base) {
    let folder = tempfile::tempdir().unwrap();
    let (address, password) = (folder.path().join("db.url"), folder.path().join("password"));
    let config = ServerConfig {
        url: None,
        url_file: Some(address.clone()),
        password_file: Some(password.clone()),
        ..base.config(Append)
    };
    let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.to_string().starts_with(&format!("cannot read {}", address.display())));

    std::fs::write(&address, "not an address").unwrap();
    std::fs::write(&password, "wrong\n").unwrap();
    let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Config, "{failure}");

    // MySQL does not see a password that is shown without TLS.
    let url = base.url(base.port()).replace("DISABLED", "PREFERRED");
    std::fs::write(&address, url + "\n").unwrap();
    let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");

    std::fs::write(&password, "garam\n").unwrap();
    base.sink(&config).connect(&schema()).await.unwrap();
}
