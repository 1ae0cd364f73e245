//! Row-locality: a batch gives what its records give one by one, and says of each row which record it is.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_select::concat::concat_batches;
use garam_stage::{Refined, Refiner as _};
use proptest::prelude::*;

use crate::world::{block, plan};

/// SQL that filters, computes and fails; the id of the record is always the first column.
const QUERIES: [&str; 7] = [
    "select id, cast(name as int) as v from input where n <> 0",
    "select id, id / n as v, amount * amount as w from input",
    "select id, amount * 1000000.00 * amount * amount as v from input where not (n = 3)",
    "select id, case when n > 1 then 100 / (n - 2) else cast(name as bigint) end as v from input where name is not null or n > 0",
    "select id, upper(name) as v, regexp_replace(name, '[0-9]', '#') as w, mask(name, 1) as m from input where name like '%1%' or n / n = 1",
    "select t.id as id, t.v + 1 as v from (select id, n * 1000000000 as v, name from input where n is not null) t where cast(t.name as int) > 1",
    "select id, get_json_object(_rest, '$.x') as x, cast(get_json_object(_rest, '$.x') as smallint) as s from input",
];

fn record() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("null".to_owned()), "\"[0-9a]{0,3}\"".prop_map(|text| text)];
    let n = prop_oneof![Just("null".to_owned()), (-1..5).prop_map(|n: i32| n.to_string())];
    let amount = prop_oneof![
        Just("null".to_owned()),
        (0..=9_999_999_999_u64).prop_map(|n| format!("\"{}.{:02}\"", n / 100, n % 100))
    ];
    let x = prop_oneof![Just("\"a\"".to_owned()), (0..70_000).prop_map(|n: i32| n.to_string())];
    (name, n, amount, x).prop_map(|(name, n, amount, x)| {
        format!("\"name\":{name},\"n\":{n},\"amount\":{amount},\"x\":{x}")
    })
}

fn ids(refined: &Refined) -> Vec<i64> {
    refined.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_batch_is_its_records_one_by_one(records in prop::collection::vec(record(), 0..40), query in 0..QUERIES.len()) {
        let refiner = plan(QUERIES[query]).unwrap();
        let records: Vec<String> =
            records.iter().enumerate().map(|(id, rest)| format!("{{\"id\":{id},{rest}}}")).collect();
        let texts: Vec<&str> = records.iter().map(String::as_str).collect();
        let whole = block(&texts);
        let together = refiner.refine(std::slice::from_ref(&whole)).unwrap();

        // Every record has exactly one fate, and each row names its own record.
        let named = together.sources.iter().chain(together.bad.iter().map(|bad| &bad.at)).chain(together.dropped.iter().map(|(at, _)| at));
        let named: Vec<u32> = named.map(|at| at.index).collect();
        prop_assert_eq!(named.len(), records.len());
        prop_assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), records.len());
        let by_source: Vec<i64> = together.sources.iter().map(|at| i64::from(at.index)).collect();
        prop_assert_eq!(ids(&together), by_source);

        let alone: Vec<Refined> = whole.records.iter().map(|record| {
            let mut one = whole.clone();
            one.records = vec![record.clone()];
            refiner.refine(&[one]).unwrap()
        }).collect();
        let rows = concat_batches(&refiner.schema(), alone.iter().map(|refined| &refined.rows)).unwrap();
        prop_assert_eq!(&rows, &together.rows);
        let bad: Vec<_> = alone.iter().flat_map(|refined| refined.bad.clone()).collect();
        prop_assert_eq!(&bad, &together.bad);
        let dropped: Vec<_> = alone.iter().flat_map(|refined| refined.dropped.clone()).collect();
        prop_assert_eq!(&dropped, &together.dropped);
        // And again: a replay is the same.
        let again = refiner.refine(std::slice::from_ref(&whole)).unwrap();
        prop_assert_eq!(again.rows, together.rows);
    }
}
