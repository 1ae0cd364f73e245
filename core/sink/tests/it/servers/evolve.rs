//! Tables that grow with the contract, and texts that their columns do not hold.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use garam_sink::ServerConfig;
use garam_sink::mysql::Mode::{Append, Upsert};
use garam_sink::sqlite::{Create, Readiness};
use garam_stage::FailureKind;
use garam_stage::contract::MOST_CHARACTERS;

use super::Base;
use crate::fixture::{batch, first_cursor, refused, row, rows, schema, written};

at_every_server!(
    a_table_gets_the_columns_that_it_lacks_and_keeps_what_it_has,
    a_key_is_never_added_to_rows_that_are_there,
    a_column_of_another_spelling_is_refused,
    a_text_that_a_column_does_not_hold_is_put_aside_by_its_name_and_no_blank_is_cut_off,
    a_limited_text_is_stored_in_a_column_of_its_length,
);

fn evolving(base: &impl Base) -> ServerConfig {
    ServerConfig { create: Create::Evolve, ..base.config(Upsert) }
}

async fn a_table_gets_the_columns_that_it_lacks_and_keeps_what_it_has(base: impl Base) {
    let (mut destination, start) = base.ready_with(&evolving(&base)).await;
    let cursor = written(destination.write(&batch(&start, &rows(0..3))).await);
    drop(destination);
    base.execute("alter table orders drop column score; alter table orders drop column name").await;
    base.execute("alter table orders add column own int").await;

    let fixed = base.sink(&base.config(Upsert)).connect(&schema()).await.unwrap_err();
    assert!(fixed.to_string().starts_with("table orders lacks columns name, score"), "{fixed}");
    let sink = base.sink(&evolving(&base));
    assert_eq!(sink.connect(&schema()).await.unwrap(), Readiness::ColumnsWillBeAdded);
    let mut destination = sink.build(&schema()).unwrap();
    destination.prepare().await.unwrap();
    assert_eq!(sink.connect(&schema()).await.unwrap(), Readiness::Ready);
    let cursor = destination.take_over(&cursor.key, 0).await.unwrap().unwrap();
    written(destination.write(&batch(&cursor, &rows(2..5))).await);
    let found = base.lines("select id, name, own from orders order by id").await;
    assert_eq!(
        found,
        "0 | NULL | NULL\n1 | NULL | NULL\n2 | name 2 | NULL\n3 | name 3 | NULL\n4 | name 4 | NULL"
    );
}

async fn a_key_is_never_added_to_rows_that_are_there(base: impl Base) {
    base.execute("create table orders (other bigint primary key)").await;
    let failure =
        base.sink(&evolving(&base)).build(&schema()).unwrap().prepare().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Schema);
    let text = failure.to_string();
    assert!(text.starts_with("table orders lacks column id, which identifies a row"), "{text}");
}

async fn a_column_of_another_spelling_is_refused(base: impl Base) {
    base.ready_with(&evolving(&base)).await;
    base.execute("alter table orders drop column score").await;
    base.execute(
        "alter table orders add column \"Score\" double precision".replace('"', "").as_str(),
    )
    .await;
    let fields = schema();
    let upper = fields.fields().iter().map(|field| match field.name().as_str() {
        "score" => field.as_ref().clone().with_name("SCORE"),
        _ => field.as_ref().clone(),
    });
    let upper: SchemaRef = Schema::new(upper.collect::<Vec<_>>()).into();
    for config in [evolving(&base), base.config(Upsert)] {
        let mut destination = base.sink(&config).build(&upper).unwrap();
        let text = destination.prepare().await.unwrap_err().to_string();
        assert!(text.contains("where the contract has SCORE"), "{text}");
    }
}

async fn a_text_that_a_column_does_not_hold_is_put_aside_by_its_name_and_no_blank_is_cut_off(
    base: impl Base,
) {
    for mode in [Append, Upsert] {
        base.execute("drop table if exists orders; drop table if exists _garam_cursors").await;
        base.destination(mode).prepare().await.unwrap();
        base.execute(&base.retype("name", "varchar(4)")).await;
        let (mut destination, start) = base.ready(mode).await;
        let offered =
            [row(1, "four", 1), row(2, "four ", 2), row(3, "가람가람", 3), row(4, "fiver", 4)];
        let found = refused(destination.write(&batch(&start, &offered)).await);
        let why = "column name: it is longer than the 4 characters of the table's column";
        assert_eq!(found, [(1, why.to_owned()), (3, why.to_owned())]);
        let kept = [offered[0].clone(), offered[2].clone()];
        written(destination.write(&batch(&start, &kept)).await);
        assert_eq!(base.count().await, 2);
    }
}

async fn a_limited_text_is_stored_in_a_column_of_its_length(base: impl Base) {
    let fields = schema();
    let limited = fields.fields().iter().map(|field| match field.name().as_str() {
        "name" => {
            let most = HashMap::from([(MOST_CHARACTERS.to_owned(), "12".to_owned())]);
            Arc::new(field.as_ref().clone().with_metadata(most))
        }
        _ => Arc::<Field>::clone(field),
    });
    let limited: SchemaRef = Schema::new(limited.collect::<Vec<_>>()).into();
    let mut destination = base.sink(&base.config(Append)).build(&limited).unwrap();
    destination.prepare().await.unwrap();
    destination.begin(&first_cursor()).await.unwrap();
    let found = base
        .lines(
            "select character_maximum_length from information_schema.columns \
             where column_name = 'name' and table_name = 'orders' and table_schema = 'SCHEMA'"
                .replace("SCHEMA", base.name())
                .as_str(),
        )
        .await;
    assert_eq!(found, "12");
    written(destination.write(&batch(&first_cursor(), &rows(0..3))).await);
}
