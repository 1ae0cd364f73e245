//! Every type of a contract goes into the table and comes back as it was, at the ends of its range and as null.

use expect_test::expect;
use garam_sink::postgres::Mode::Append;

use super::server::PgBase;
use crate::servers::Base as _;
use crate::servers::types::{Ends, schema, write_ends};

#[tokio::test]
async fn every_type_comes_back_at_the_ends_of_its_range() {
    let base = PgBase::new().await;
    let ends = Ends {
        real: [f32::MIN, f32::INFINITY, 0.1],
        double: [f64::MIN, f64::NAN, -0.0],
        date: [-2_440_588, 2_145_042_905, -1],
        timestamp: [-210_866_803_200_000_000, i64::MAX, -1],
    };
    write_ends(&base, ends).await;
    let contract = "select b, s, i, l, r, d, n, w, t, v, day, at from orders order by _position";
    expect![[r#"
        f | -32768 | -2147483648 | -9223372036854775808 | -3.4028235e+38 | -1.7976931348623157e+308 | -9999999999999999999.9999999999999999999 | -999999999 |  | ten letter | 4714-11-24 BC | 4714-11-24 00:00:00+00 BC
        t | 32767 | 2147483647 | 9223372036854775807 | Infinity | NaN | 9999999999999999999.9999999999999999999 | 999999999 | 	\N {"가"} | 가람 | 5874897-12-31 | 294247-01-10 04:00:54.775807+00
        t | 0 | 0 | 0 | 0.1 | -0 | 0.0000000000000000001 | 0 | NULL |   | 1969-12-31 | 1969-12-31 23:59:59.999999+00
        NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL | NULL"#]]
    .assert_eq(&base.lines(contract).await);
}

#[tokio::test]
async fn the_table_is_made_from_the_contract() {
    let base = PgBase::new().await;
    base.sink(&base.config(Append)).build(&schema()).unwrap().prepare().await.unwrap();
    expect![[r#"
        b | boolean | f
        s | smallint | f
        i | integer | f
        l | bigint | f
        r | real | f
        d | double precision | f
        n | numeric(38,19) | f
        w | numeric(9,0) | f
        t | text | f
        v | character varying(10) | f
        day | date | f
        at | timestamp with time zone | f
        _host | text | t
        _path | text | t
        _origin | bytea | t
        _position | numeric(39,0) | t
        _ordinal | integer | t
        _version | bytea | t
        _event_time | timestamp with time zone | f
        _ingest_time | timestamp with time zone | t"#]]
    .assert_eq(
        &base
            .lines(
                "select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute \
                 where attrelid = 'orders'::regclass and attnum > 0 order by attnum",
            )
            .await,
    );
}
