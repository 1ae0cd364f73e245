//! `garam query`: reads, and nothing else.

use std::time::Duration;

use garam_sink::sqlite::{QueryLimits, QueryValue, read_only_query};
use garam_stage::{Failure, FailureKind};

use crate::fixture::Place;

async fn place() -> Place {
    let place = Place::new();
    place
        .execute(
            "create table t (a, b); insert into t values (1, 'x'), (null, x'00ff'), (2.5, 'é')",
        )
        .await;
    place
}

async fn fails(place: &Place, sql: &str) -> Failure {
    read_only_query(&place.path(), sql, QueryLimits::default()).await.unwrap_err()
}

#[tokio::test]
async fn columns_and_values_come_as_they_are() {
    let place = place().await;
    let sql = "select a, b as bee from t;";
    let result = read_only_query(&place.path(), sql, QueryLimits::default()).await.unwrap();
    assert_eq!(result.columns, ["a", "bee"]);
    let text = |text: &str| QueryValue::Text(text.into());
    assert_eq!(
        result.rows,
        [
            vec![QueryValue::Integer(1), text("x")],
            vec![QueryValue::Null, QueryValue::Blob(vec![0, 255])],
            vec![QueryValue::Real(2.5), text("é")],
        ]
    );
    assert!(!result.truncated);
    let json = serde_json::to_string(&result.rows).unwrap();
    assert_eq!(json, r#"[[1,"x"],[null,"00ff"],[2.5,"é"]]"#);
}

#[tokio::test]
async fn an_empty_result_still_has_columns() {
    let place = place().await;
    let sql = "select a, b from t where a = 99";
    let result = read_only_query(&place.path(), sql, QueryLimits::default()).await.unwrap();
    assert_eq!(result.columns, ["a", "b"]);
    assert!(result.rows.is_empty());
}

#[tokio::test]
async fn long_results_are_cut_and_said_to_be() {
    let place = place().await;
    let sql = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n";
    let limits = QueryLimits { rows: 3, ..QueryLimits::default() };
    let result = read_only_query(&place.path(), sql, limits).await.unwrap();
    assert_eq!((result.rows.len(), result.truncated), (3, true));
    let limits = QueryLimits { rows: 3, ..QueryLimits::default() };
    let result = read_only_query(&place.path(), "select a from t", limits).await.unwrap();
    assert_eq!((result.rows.len(), result.truncated), (3, false));
    let limits = QueryLimits { bytes: 100, ..QueryLimits::default() };
    let result = read_only_query(&place.path(), sql, limits).await.unwrap();
    assert_eq!((result.rows.len(), result.truncated), (13, true));
}

#[tokio::test]
async fn a_query_without_end_is_stopped() {
    let place = place().await;
    let sql =
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let limits = QueryLimits { time: Duration::from_millis(50), ..QueryLimits::default() };
    let failure = read_only_query(&place.path(), sql, limits).await.unwrap_err();
    assert_eq!(failure.to_string(), "query took longer than 50ms and was stopped");
}

#[tokio::test]
async fn nothing_can_be_written() {
    let place = place().await;
    for sql in [
        "delete from t",
        "insert into t values (9, 9)",
        "create table u (a)",
        "drop table t",
        "update t set a = 1 returning a",
        "pragma user_version = 7",
    ] {
        let failure = fails(&place, sql).await;
        assert_eq!(failure.kind, FailureKind::Refused, "{sql}: {failure}");
    }
    fails(&place, "select 1; delete from t").await;
    assert_eq!(place.lines("select count(*) from t").await, "3");
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let place = place().await;
    let path = place.path().display().to_string();
    let failure = fails(&place, "select nope from t").await;
    assert_eq!(
        failure.to_string().replace(&path, "DB"),
        "cannot run the query in DB: error returned from database: (code: 1) no such column: nope"
    );
    let failure = fails(&place, "select 1; select 2").await;
    assert_eq!(
        failure.to_string(),
        "query is not one statement: leave out what follows the semicolon"
    );
    let absent = place.folder.path().join("absent.db");
    let failure = read_only_query(&absent, "select 1", QueryLimits::default()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(!absent.try_exists().unwrap());
}
