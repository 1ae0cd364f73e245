//! What a failure is called: it decides what happens next.

use std::time::Duration;

use garam_sink::ServerConfig;
use garam_sink::mysql::Mode::{Append, Upsert};
use garam_sink::mysql::Url;
use garam_stage::FailureKind;

use super::server::MySqlBase;
use crate::fixture::{batch, first_cursor, refused, row, rows, schema, written};
use crate::servers::Base as _;

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_says_no_is_told_apart() {
    for base in MySqlBase::each().await {
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = base.url(base.port()).replace("DISABLED", "PREFERRED");
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
            let config = ServerConfig { url: Some(Url(url)), ..base.config(Append) };
            let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
            let text = failure.to_string();
            assert_eq!(failure.kind, kind, "{text}");
            assert!(text.contains(expect), "{text}");
            assert!(!text.contains(":garam@"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_deadlock_is_contention_and_blames_no_row() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Upsert).await;
        let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
        // Both servers give up the transaction that changed less: the other one has changed more.
        base.execute("create table weight (id int primary key) engine=InnoDB").await;
        let mut other = base.connection().await;
        let many: Vec<String> = (0..500).map(|i| format!("({i})")).collect();
        MySqlBase::run(&mut other, "begin").await;
        MySqlBase::run(&mut other, &format!("insert into weight values {}", many.join(","))).await;
        MySqlBase::run(&mut other, "update orders set name = 'x' where id = 2").await;
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
        MySqlBase::run(&mut other, "update orders set name = 'x' where id = 0").await;
        let (outcome, mut destination) = writing.await.unwrap();
        let failure = outcome.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
        MySqlBase::run(&mut other, "rollback").await;
        let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
        let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
        written(destination.write(&offered).await);
        let found = base.lines("select id, name from orders order by id").await;
        assert_eq!(found, "0 | y\n1 | name 1\n2 | y");
    }
}

#[tokio::test]
async fn a_lock_is_waited_for_a_while() {
    for base in MySqlBase::each().await {
        let statement_timeout = Duration::from_secs(2);
        let config = ServerConfig { statement_timeout, ..base.config(Upsert) };
        let (mut destination, start) = base.ready_with(&config).await;
        let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
        let mut other = base.connection().await;
        MySqlBase::run(&mut other, "begin").await;
        MySqlBase::run(&mut other, "update orders set name = 'x' where id = 2").await;
        let offered = batch(&cursor, &rows(1..5));
        let failure = destination.write(&offered).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
        // Nothing of the transaction is left open: the statement alone was undone by the server.
        MySqlBase::run(&mut other, "rollback").await;
        let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
        assert_eq!(cursor.next.0, 1);
        written(destination.write(&batch(&cursor, &rows(1..5))).await);
        assert_eq!(base.count().await, 5);
    }
}

#[tokio::test]
async fn the_servers_numbers_decide_what_happens_next() {
    for base in MySqlBase::each().await {
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
