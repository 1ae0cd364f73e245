//! How values look in the table.

use expect_test::expect;
use garam_sink::mysql::Mode::Append;

use super::server::MySqlBase;
use crate::fixture::{batch, row, written};
use crate::servers::Base as _;

#[tokio::test]
async fn values_come_back_as_they_were() {
    for base in MySqlBase::each().await {
        let (mut destination, cursor) = base.ready(Append).await;
        let mut second = row(-2, "O'Brien; drop table", u128::MAX);
        second.name = None;
        written(destination.write(&batch(&cursor, &[row(1, "가람", 3), second])).await);
        expect![[r#"
            1 | 가람 | 1.05 | 0.5 | 2026-11-23 23:24:04.123456 | web-1 | /var/log/app.log | ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB | 3 | 0 | 0000000000000000000000000000000000000003 | 2026-11-23 23:24:04.123456 | 2026-11-23 23:24:05.000000
            -2 | NULL | -1.95 | 0.5 | 2026-11-23 23:24:04.123456 | web-1 | /var/log/app.log | ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB | 340282366920938463463374607431768211455 | 0 | 00000000FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF | 2026-11-23 23:24:04.123456 | 2026-11-23 23:24:05.000000"#]]
        .assert_eq(&base.lines("select id, name, amount, score, at, _host, _path, hex(_origin), _position, _ordinal, hex(_version), _event_time, _ingest_time from orders order by _position").await);
    }
}
