//! Whatever breaks wherever: rows and cursor are both in or both not, and what the failure is called decides what happens next.

use std::time::Duration;

use garam_sink::mysql::Mode::{self, Append, Upsert};
use garam_sink::mysql::{MySqlConfig, Url};
use garam_stage::{Cursor, Destination, FailureKind};

use super::server::{Base, Kind, Server, run};
use crate::fixture::{
    Row, batch, cancelled_after, first_cursor, refused, row, rows, schema, written,
};
use crate::proxy::{Proxy, Rule};

/// A destination that reaches the server through a proxy.
async fn through(base: &Base, proxy: &Proxy, mode: Mode) -> (Box<dyn Destination>, Cursor) {
    let url = Some(Url(base.url(proxy.port)));
    base.ready_with(MySqlConfig { url, ..base.config(mode) }).await
}

/// Waits until another session waits for a lock.
async fn somebody_waits(base: &Base) {
    let database = &base.database;
    let sql = format!(
        "select count(*) from information_schema.innodb_trx t join information_schema.processlist p \
         on p.id = t.trx_mysql_thread_id where t.trx_state = 'LOCK WAIT' and p.db = '{database}'"
    );
    while base.lines(&sql).await == "0" {
        // The server shows a state that is up to 100 ms old, and keeps it as long as somebody asks more often.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn a_connection_cut_at_any_step_leaves_all_or_nothing() {
    let offered: Vec<Row> = rows(0..300);
    for (kind, rule) in Kind::ALL.into_iter().flat_map(|kind| {
        [(kind, Rule::CutBefore as fn(usize) -> Rule), (kind, Rule::CutAfter as fn(usize) -> Rule)]
    }) {
        let mut unknown = Vec::new();
        for step in 0.. {
            let base = Base::on(super::server::shared(kind)).await;
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
    for base in Base::each().await {
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
}

#[tokio::test]
async fn a_writer_that_is_paused_loses_its_locks_and_writes_nothing_when_it_wakes() {
    for base in Base::each().await {
        let proxy = Proxy::before(base.port).await;
        let url = Some(Url(base.url(proxy.port)));
        let statement_timeout = Duration::from_secs(1);
        let config = MySqlConfig { url, statement_timeout, ..base.config(Append) };
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
        assert_eq!(
            base.lines("select count(*), count(distinct id) from orders").await,
            "300 | 300"
        );
        assert_eq!(base.cursors().await[0].epoch, 2);
    }
}

#[tokio::test]
async fn a_write_that_is_cancelled_anywhere_is_whole_or_absent() {
    for base in Base::each().await {
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
}

#[tokio::test]
async fn a_killed_server_goes_on_where_it_stood() {
    for kind in Kind::ALL {
        let server = Server::start(kind);
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
}

#[tokio::test]
async fn writers_of_the_same_rows_in_opposite_order_do_not_deadlock() {
    for base in Base::each().await {
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
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_says_no_is_told_apart() {
    for base in Base::each().await {
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = base.url(base.port).replace("DISABLED", "PREFERRED");
        let cases = [
            (base.url(nobody), FailureKind::Unreachable, "Connection refused"),
            (url.replace("garam:garam", "garam:wrong"), FailureKind::Refused, "Access denied"),
            (
                url.replace(&format!("/{}?", base.database), "/nothing?"),
                FailureKind::Refused,
                "nothing",
            ),
            (url.replace("garam:garam", "nobody:garam"), FailureKind::Refused, "Access denied"),
        ];
        for (url, kind, expect) in cases {
            let config = MySqlConfig { url: Some(Url(url)), ..base.config(Append) };
            let failure = config.connect(&schema()).await.unwrap_err();
            let text = failure.to_string();
            assert_eq!(failure.kind, kind, "{text}");
            assert!(text.contains(expect), "{text}");
            assert!(!text.contains(":garam@"), "{text}");
        }
    }
}

#[tokio::test]
async fn address_and_password_come_from_files_that_may_change() {
    for base in Base::each().await {
        let folder = tempfile::tempdir().unwrap();
        let (address, password) = (folder.path().join("db.url"), folder.path().join("password"));
        let config = MySqlConfig {
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

        let url = base.url(base.port).replace("DISABLED", "PREFERRED");
        std::fs::write(&address, url + "\n").unwrap();
        let failure = config.connect(&schema()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");

        std::fs::write(&password, "garam\n").unwrap();
        config.connect(&schema()).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    for base in Base::each().await {
        let (mut destination, start) = base.ready(Append).await;
        let sql = format!(
            "select id from information_schema.processlist where db = '{}' and user = 'garam'",
            base.database
        );
        for id in base.lines(&sql).await.lines() {
            base.execute_as_owner(&format!("kill {id}")).await;
        }
        written(destination.write(&batch(&start, &rows(0..5))).await);
        assert_eq!(base.count().await, 5);
    }
}

#[tokio::test]
async fn a_deadlock_is_contention_and_blames_no_row() {
    for base in Base::each().await {
        let (mut destination, start) = base.ready(Upsert).await;
        let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
        // Both servers give up the transaction that changed less: the other one has changed more.
        base.execute("create table weight (id int primary key) engine=InnoDB").await;
        let mut other = base.connection().await;
        let many: Vec<String> = (0..500).map(|i| format!("({i})")).collect();
        run(&mut other, "begin").await;
        run(&mut other, &format!("insert into weight values {}", many.join(","))).await;
        run(&mut other, "update orders set name = 'x' where id = 2").await;
        let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
        let writing = tokio::spawn(async move { (destination.write(&offered).await, destination) });
        // It has the first row: it wants the other's, or will.
        while !base
            .lines("select id from orders where id = 0 for update skip locked")
            .await
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run(&mut other, "update orders set name = 'x' where id = 0").await;
        let (outcome, mut destination) = writing.await.unwrap();
        let failure = outcome.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
        run(&mut other, "rollback").await;
        let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
        let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
        written(destination.write(&offered).await);
        let found = base.lines("select id, name from orders order by id").await;
        assert_eq!(found, "0 | y\n1 | name 1\n2 | y");
    }
}

#[tokio::test]
async fn a_lock_is_waited_for_a_while() {
    for base in Base::each().await {
        let statement_timeout = Duration::from_secs(2);
        let config = MySqlConfig { statement_timeout, ..base.config(Upsert) };
        let (mut destination, start) = base.ready_with(config).await;
        let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
        let mut other = base.connection().await;
        run(&mut other, "begin").await;
        run(&mut other, "update orders set name = 'x' where id = 2").await;
        let offered = batch(&cursor, &rows(1..5));
        let failure = destination.write(&offered).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
        // Nothing of the transaction is left open: the statement alone was undone by the server.
        run(&mut other, "rollback").await;
        let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
        assert_eq!(cursor.next.0, 1);
        written(destination.write(&batch(&cursor, &rows(1..5))).await);
        assert_eq!(base.count().await, 5);
    }
}

#[tokio::test]
async fn the_servers_numbers_decide_what_happens_next() {
    for base in Base::each().await {
        let (mut destination, start) = base.ready(Append).await;
        let says = async |number: u16, state: &str| {
            base.execute_as_owner("drop trigger if exists said").await;
            base.execute_as_owner(&format!(
                "create trigger said before insert on orders for each row \
                 signal sqlstate '{state}' set message_text = 'said so', mysql_errno = {number}"
            ))
            .await;
        };
        let cases = [
            (1213, "40001", FailureKind::Contention),
            (1205, "HY000", FailureKind::Contention),
            (1114, "HY000", FailureKind::Full),
            (1040, "08004", FailureKind::Unreachable),
            (1053, "08S01", FailureKind::Unreachable),
            (1836, "HY000", FailureKind::Unreachable),
            (1142, "42000", FailureKind::Refused),
            (1054, "42S22", FailureKind::Schema),
            (1364, "HY000", FailureKind::Schema),
            (1194, "HY000", FailureKind::Corrupt),
            (1105, "HY000", FailureKind::Internal),
        ];
        for (number, state, kind) in cases {
            says(number, state).await;
            let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
            assert_eq!(failure.kind, kind, "{number}: {failure}");
            assert_eq!(base.cursors().await, [first_cursor()]);
        }
        let of_rows = [
            (1406, "22001"),
            (1264, "22003"),
            (1366, "HY000"),
            (1062, "23000"),
            (3819, "HY000"),
            (1644, "45000"),
        ];
        for (number, state) in of_rows {
            says(number, state).await;
            let found = refused(destination.write(&batch(&start, &rows(0..3))).await);
            assert_eq!(found.len(), 3, "{number}");
        }
        base.execute_as_owner("drop trigger said").await;
        written(destination.write(&batch(&start, &rows(0..3))).await);
    }
}
