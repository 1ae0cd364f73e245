//! Rows the server will not take: all are named, nothing is committed, and without them the rest goes in.

use garam_sink::postgres::Mode::{Append, Upsert};
use garam_stage::FailureKind;

use super::server::PgBase;
use crate::fixture::{batch, first_cursor, refused, row, rows, written};
use crate::servers::Base as _;

#[tokio::test]
async fn what_is_too_long_for_the_table_is_refused() {
    let base = PgBase::new().await;
    let (mut destination, start) = base.ready(Upsert).await;
    base.execute("alter table orders alter name type varchar(4)").await;
    let offered = [row(1, "four", 1), row(2, "fiver", 2), row(3, "", 3)];
    let found = refused(destination.write(&batch(&start, &offered)).await);
    assert_eq!(found, [(1, "value too long for type character varying(4)".to_owned())]);
}

#[tokio::test]
async fn a_row_that_meets_another_unique_index_is_refused() {
    let base = PgBase::new().await;
    for mode in [Append, Upsert] {
        base.execute("drop table if exists orders, _garam_cursors").await;
        let (mut destination, start) = base.ready(mode).await;
        base.execute("create unique index other on orders (name)").await;
        let offered = [row(1, "a", 1), row(2, "b", 2), row(3, "a", 3)];
        let found = refused(destination.write(&batch(&start, &offered)).await);
        let detail = "duplicate key value violates unique constraint \"other\"";
        assert_eq!(found, [(2, detail.to_owned())]);
    }
}

#[tokio::test]
async fn a_constraint_that_is_checked_at_commit_names_its_row_too() {
    let base = PgBase::new().await;
    let (mut destination, start) = base.ready(Append).await;
    base.execute(
        "create table users (id bigint primary key); insert into users select generate_series(0, 9); \
         alter table orders add foreign key (id) references users (id) deferrable initially deferred",
    )
    .await;
    let found = refused(destination.write(&batch(&start, &rows(8..12))).await);
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3]);
    written(destination.write(&batch(&start, &rows(8..10))).await);
    assert_eq!(base.count().await, 2);
}

#[tokio::test]
async fn a_triggers_own_no_is_a_rows_fault() {
    let base = PgBase::new().await;
    let (mut destination, start) = base.ready(Append).await;
    base.execute(
        "create function picky() returns trigger language plpgsql as $$ begin \
         if new.id = 3 then raise exception 'not three'; end if; return new; end $$; \
         create trigger picky before insert on orders for each row execute function picky()",
    )
    .await;
    let found = refused(destination.write(&batch(&start, &rows(0..20))).await);
    assert_eq!(found, [(3, "not three".to_owned())]);
}

#[tokio::test]
async fn a_trigger_that_drops_rows_silently_is_noticed() {
    for mode in [Append, Upsert] {
        let base = PgBase::new().await;
        let (mut destination, start) = base.ready(mode).await;
        base.execute(
            "create function quiet() returns trigger language plpgsql as $$ begin \
             if new.id = 3 then return null; end if; return new; end $$; \
             create trigger quiet before insert on orders for each row execute function quiet()",
        )
        .await;
        let failure = destination.write(&batch(&start, &rows(0..20))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Schema);
        assert_eq!(
            failure.to_string(),
            "a trigger, rule or policy of table orders dropped 1 of 20 rows without an error: remove it, rows must not disappear"
        );
        assert_eq!(base.count().await, 0);
        assert_eq!(base.cursors().await, [first_cursor()]);
    }
}

#[tokio::test]
async fn a_table_that_is_gone_blames_no_row() {
    let base = PgBase::new().await;
    let (mut destination, start) = base.ready(Append).await;
    base.execute("drop table orders").await;
    let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema, "{failure}");
    base.execute("revoke all on _garam_cursors from garam").await;
    base.execute_as_owner("alter table _garam_cursors owner to postgres").await;
    let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
}
