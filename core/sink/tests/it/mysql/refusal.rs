//! Rows the server will not take: all are named, nothing is committed, and without them the rest goes in.

use garam_sink::mysql::Mode::{Append, Upsert};
use garam_stage::FailureKind;

use super::server::MySqlBase;
use crate::fixture::{batch, refused, row, rows, written};
use crate::servers::Base as _;

#[tokio::test]
async fn what_is_too_long_for_the_table_is_refused() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Upsert).await;
        base.execute("alter table orders modify name varchar(4)").await;
        let offered = [row(1, "four", 1), row(2, "fiver", 2), row(3, "", 3)];
        let found = refused(destination.write(&batch(&start, &offered)).await);
        assert_eq!(found, [(1, "Data too long for column 'name'".to_owned())]);
    }
}

#[tokio::test]
async fn an_upsert_never_touches_the_row_of_another_key() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Upsert).await;
        let cursor = written(destination.write(&batch(&start, &[row(1, "a", 1)])).await);
        base.execute("create unique index other on orders (name(20))").await;
        // Rows 0 and 2 would rewrite row 1 of the table; row 3 would make two rows of one name.
        let offered = [row(44, "a", 2), row(2, "b", 3), row(45, "a", 4), row(46, "b", 5)];
        let found = refused(destination.write(&batch(&cursor, &offered)).await);
        let detail = "it meets the row of another key in another unique index";
        assert_eq!(found, [0, 2, 3].map(|row| (row, detail.to_owned())));
        assert_eq!(base.lines("select id, name from orders").await, "1 | a");
        // The key's own row may change, but not to what another one has.
        let cursor = written(destination.write(&batch(&cursor, &offered[1..2])).await);
        let found = refused(destination.write(&batch(&cursor, &[row(2, "a", 6)])).await);
        assert!(found[0].1.starts_with("Duplicate entry for key"), "{found:?}");
        written(destination.write(&batch(&cursor, &[row(2, "c", 7)])).await);
        assert_eq!(base.lines("select id, name from orders order by id").await, "1 | a\n2 | c");
    }
}

#[tokio::test]
async fn an_append_that_meets_another_unique_index_is_refused() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Append).await;
        base.execute("create unique index other on orders (name(20))").await;
        let offered = [row(1, "a", 1), row(2, "b", 2), row(3, "a", 3)];
        let found = refused(destination.write(&batch(&start, &offered)).await);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 2);
    }
}

#[tokio::test]
async fn a_foreign_key_and_a_triggers_own_no_are_a_rows_fault() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Append).await;
        base.execute(
            "create table users (id bigint primary key); insert into users values (8), (9); \
             alter table orders add foreign key (id) references users (id)",
        )
        .await;
        let found = refused(destination.write(&batch(&start, &rows(8..12))).await);
        assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3]);
        base.execute_as_owner(
            "create trigger picky before insert on orders for each row \
             if new.id = 9 then signal sqlstate '45000' set message_text = 'not nine'; end if",
        )
        .await;
        let found = refused(destination.write(&batch(&start, &rows(8..10))).await);
        assert_eq!(found, [(1, "not nine".to_owned())]);
        written(destination.write(&batch(&start, &rows(8..9))).await);
        assert_eq!(base.count().await, 1);
    }
}

#[tokio::test]
async fn what_does_not_fit_into_a_packet_is_refused_and_the_largest_that_does_goes_in() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Append).await;
        let most = base.lines("select @@max_allowed_packet").await.parse::<usize>().unwrap();
        let mut offered = rows(0..3);
        offered[0].name = Some("x".repeat(most));
        offered[1].name = Some("가".repeat(most / 3 - 32 * 1024));
        let found = refused(destination.write(&batch(&start, &offered)).await);
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("max_allowed_packet"), "{}", found[0].1);
        written(destination.write(&batch(&start, &offered[1..])).await);
        let expect = format!("1 | {}\n2 | 6", (most / 3 - 32 * 1024) * 3);
        assert_eq!(base.lines("select id, length(name) from orders order by id").await, expect);
    }
}

#[tokio::test]
async fn a_table_that_is_gone_blames_no_row() {
    for base in MySqlBase::each().await {
        let (mut destination, start) = base.ready(Append).await;
        base.execute("drop table orders").await;
        let failure = destination.write(&batch(&start, &rows(0..3))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Schema, "{failure}");
        assert_eq!(base.cursors().await, [start]);
    }
}
