use crate::world::plan;

#[track_caller]
fn check(sql: &str, part: &str) {
    let error = plan(sql).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(part), "{sql}\n  says: {error}\n  not:  {part}");
}

#[test]
fn what_looks_at_other_records_is_refused_with_what_to_do() {
    check(
        "select count(*) as n from input",
        "the aggregate count() is refused: it needs more than one record",
    );
    check("select sum(share) as n from input", "the aggregate sum() is refused");
    check(
        "select name, max(n) as n from input group by name",
        "group by is refused: it looks at other records; let the destination compute it, in a view",
    );
    check(
        "select row_number() over (order by id) as n from input",
        "the window row_number() over (…) is refused",
    );
    check(
        "select distinct name from input",
        "distinct is refused: it looks at other records; use mode = \"upsert\"",
    );
    check("select id from input order by id", "order by is refused");
    check(
        "select id from input limit 3",
        "limit is refused: which records it would take is chance",
    );
    check("select id from input union all select n from input", "union is refused");
    check(
        "select id from input where id in (select id from input)",
        "a subquery in an expression is refused",
    );
    check(
        "select (select max(id) from input) as m from input",
        "a subquery in an expression is refused",
    );
    check(
        "select id from input where exists (select 1 from input)",
        "a subquery in an expression is refused",
    );
    check("select a.id from input a join input b on a.id = b.id", "join");
    check("select a.id from input a, input b", "more than one table in `from` is refused");
    check(
        "select a.id from input a full join input b on a.id = b.id",
        "this kind of join is refused",
    );
    check("select id from (select id from input limit 1) t", "limit is refused");
    check("with t as (select id from input order by id) select id from t", "order by is refused");
    check("select count(distinct id) as n from input", "the aggregate count() is refused");
}

#[test]
fn what_would_not_replay_is_refused_with_what_to_do() {
    let clock = "is refused: it would not give the same again on replay; use _ingest_time";
    for function in
        ["now()", "current_date", "current_date()", "current_timestamp", "current_time()"]
    {
        check(&format!("select {function} as t from input"), clock);
    }
    check("select id from input where random() < 0.1", "take a part of a hash");
    check("select uuid() as u from input", "a record is named by _origin, _position and _ordinal");
}

#[test]
fn what_is_no_single_query_is_refused() {
    check("selec id from input", "the SQL cannot be read");
    check("select id from input; select id from input", "there are 2 statements");
    check("", "there are 0 statements");
    check("delete from input", "delete is no query");
    check("create table x as select id from input", "create is no query");
    check("insert into x select id from input", "insert is no query");
    check("select 1 as one", "there is no `from input`");
    check("values (1)", "there is no `from input`");
    check(
        "select id from orders",
        "there is no table orders: the rows by the contract are called input",
    );
}

#[test]
fn unknown_names_are_told_with_the_nearest() {
    check("select amuont from input", "there is no column amuont: did you mean amount?");
    check("select ID from input", "there is no column ID: did you mean id?");
    check("select zzzzzz from input", "there is no column zzzzzz; there is id, name, amount");
    check("select id from input where nme = 'x'", "there is no column nme: did you mean name?");
    check("select uper(name) as u from input", "there is no function uper: did you mean upper?");
    check(
        "select frobnicate_it(name) as u from input",
        "there is no function frobnicate_it: docs/sql.md lists",
    );
}

#[test]
fn a_result_that_no_destination_takes_is_refused_by_column() {
    check("select id + 1 from input", "has no name that every database can spell");
    check("select id as `größe` from input", "has no name that every database can spell");
    check(
        "select id as _mine from input",
        "column _mine begins with _, which is for Garam's own columns: write `as mine`",
    );
    check("select name as _host from input", "column _host begins with _");
    check("select n as _rest from input", "column _rest begins with _");
    check("select id, n as ID from input", "columns id and ID differ in case alone");
    check(
        "select null as x from input",
        "column x has type Null, which no contract has: write `cast(null as text)`",
    );
    check("select _origin as o from input", "column o has type FixedSizeBinary(32)");
    check("select at - at as d from input", "column d has type Duration");
    check("select _host from input", "the result has no column of its own");
}

#[test]
fn constants_of_functions_are_judged_while_planning() {
    check("select mask(name, n) as m from input", "keep must be written as a number of 0 or more");
    check("select sha2(name, 7) as h from input", "bits must be 256, 384 or 512");
    check(
        "select get_json_object(_rest, name) as j from input",
        "must be written as a text in quotes",
    );
    check("select get_json_object(_rest, 'a.b') as j from input", "is not like $.a.b[0]");
    check("select regexp_extract(name, '(', 1) as r from input", "unclosed group");
    check("select regexp_extract(name, '(a)', 2) as r from input", "the pattern has groups 1 to 1");
    check("select id + name as x from input", "the SQL cannot be planned");
}
