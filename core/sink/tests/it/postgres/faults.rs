//! What a failure is called: it decides what happens next.

use std::time::Duration;

use garam_sink::ServerConfig;
use garam_sink::postgres::Mode::{Append, Upsert};
use garam_sink::postgres::Url;
use garam_stage::FailureKind;

use super::server::PgBase;
use crate::fixture::{batch, first_cursor, refused, row, rows, schema, written};
use crate::servers::Base as _;

#[tokio::test]
async fn a_deadlock_is_contention_and_blames_no_row() {
    let base = PgBase::new().await;
    let (mut destination, start) = base.ready(Upsert).await;
    let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
    let mut other = base.connection_as("postgres").await;
    PgBase::run(
        &mut other,
        "set deadlock_timeout = '30s'; begin; update orders set name = 'x' where id = 2",
    )
    .await;
    let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
    let writing = tokio::spawn(async move { (destination.write(&offered).await, destination) });
    base.somebody_waits().await;
    PgBase::run(&mut other, "update orders set name = 'x' where id = 0").await;
    let (outcome, mut destination) = writing.await.unwrap();
    let failure = outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
    PgBase::run(&mut other, "rollback").await;
    let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
    let offered = batch(&cursor, &[row(0, "y", 100), row(2, "y", 101)]);
    written(destination.write(&offered).await);
    assert_eq!(
        base.lines("select id, name from orders order by id").await,
        "0 | y\n1 | name 1\n2 | y"
    );
}

#[tokio::test]
async fn a_lock_is_waited_for_a_while() {
    let base = PgBase::new().await;
    let statement_timeout = Duration::from_secs(1);
    let config = ServerConfig { statement_timeout, ..base.config(Append) };
    let (mut destination, start) = base.ready_with(&config).await;
    let mut other = base.connection().await;
    PgBase::run(&mut other, "begin; lock table orders in access exclusive mode").await;
    let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Contention, "{failure}");
    PgBase::run(&mut other, "rollback").await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
}

#[tokio::test]
async fn the_servers_codes_decide_what_happens_next() {
    let base = PgBase::new().await;
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
    let base = PgBase::new().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = base.url(base.port());
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
        let config = ServerConfig { url: Some(Url(url)), ..base.config(Append) };
        let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
        let text = failure.to_string();
        assert_eq!(failure.kind, kind, "{text}");
        assert!(text.contains(expect), "{text}");
        assert!(!text.contains(":garam@"), "{text}");
    }
}
