//! How values look in the table.

use expect_test::expect;
use garam_sink::postgres::Mode::Append;

use super::server::PgBase;
use crate::fixture::{batch, row, written};
use crate::servers::Base as _;

#[tokio::test]
async fn values_come_back_as_they_were() {
    let base = PgBase::new().await;
    let (mut destination, cursor) = base.ready(Append).await;
    let mut second = row(-2, "O'Brien; drop table", u128::MAX);
    second.name = None;
    written(destination.write(&batch(&cursor, &[row(1, "가람", 3), second])).await);
    expect![[r#"
        1 | 가람 | 1.05 | 0.5 | 2026-11-23 23:24:04.123456+00 | web-1 | /var/log/app.log | \xabababababababababababababababababababababababababababababababab | 3 | 0 | \x0000000000000000000000000000000000000003 | 2026-11-23 23:24:04.123456+00 | 2026-11-23 23:24:05+00
        -2 | NULL | -1.95 | 0.5 | 2026-11-23 23:24:04.123456+00 | web-1 | /var/log/app.log | \xabababababababababababababababababababababababababababababababab | 340282366920938463463374607431768211455 | 0 | \x00000000ffffffffffffffffffffffffffffffff | 2026-11-23 23:24:04.123456+00 | 2026-11-23 23:24:05+00"#]]
    .assert_eq(&base.lines("select * from orders").await);
}
