//! Every type of a contract goes into the table and comes back as it was, at the ends of its range and as null.

use expect_test::expect;
use garam_sink::mysql::Mode::Append;

use super::server::MySqlBase;
use crate::servers::Base as _;
use crate::servers::types::{Ends, schema, write_ends};

#[tokio::test]
async fn every_type_comes_back_at_the_ends_of_its_range() {
    for base in MySqlBase::each().await {
        let ends = Ends {
            real: [f32::MIN, f32::MAX, 0.1],
            double: [f64::MIN, f64::MAX, 0.25],
            date: [-354_285, 2_932_896, -1],
            timestamp: [-30_610_224_000_000_000, 253_402_300_799_999_999, -1],
        };
        write_ends(&base, ends).await;
        let contract = "select b, s, i, l, r = -3.4028234663852886e38 or r = 3.4028234663852886e38 or r = cast(0.1 as float), d, n, w, t, v, day, at from orders order by _position";
        expect![[r#"
            0 | -32768 | -2147483648 | -9223372036854775808 | 1 | -1.7976931348623157e308 | -9999999999999999999.9999999999999999999 | -999999999 |  | ten letter | 1000-01-01 | 1000-01-01 00:00:00.000000
            1 | 32767 | 2147483647 | 9223372036854775807 | 1 | 1.7976931348623157e308 | 9999999999999999999.9999999999999999999 | 999999999 | 	\N {"가"} | 가람 | 9999-12-31 | 9999-12-31 23:59:59.999999
            1 | 0 | 0 | 0 | 1 | 0.25 | 0.0000000000000000001 | 0 | NULL |   | 1969-12-31 | 1969-12-31 23:59:59.999999
            NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL"#]]
        .assert_eq(&base.lines(contract).await);
    }
}

#[tokio::test]
async fn the_table_is_made_from_the_contract() {
    for base in MySqlBase::each().await {
        base.sink(&base.config(Append)).build(&schema()).unwrap().prepare().await.unwrap();
        expect![[r#"
            b | tinyint(1) | YES
            s | smallint | YES
            i | int | YES
            l | bigint | YES
            r | float | YES
            d | double | YES
            n | decimal(38,19) | YES
            w | decimal(9,0) | YES
            t | longtext | YES
            v | varchar(10) | YES
            day | date | YES
            at | datetime(6) | YES
            _host | longtext | NO
            _path | longtext | NO
            _origin | binary(32) | NO
            _position | decimal(39,0) | NO
            _ordinal | int | NO
            _version | binary(20) | NO
            _event_time | datetime(6) | YES
            _ingest_time | datetime(6) | NO"#]]
        .assert_eq(
            &base
                .lines(
                    "select column_name, if(data_type in ('smallint', 'int', 'bigint'), data_type, column_type), is_nullable from information_schema.columns \
                     where table_schema = database() and table_name = 'orders' order by ordinal_position",
                )
                .await,
        );
    }
}
