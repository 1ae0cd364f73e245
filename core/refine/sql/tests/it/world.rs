//! A contract with every type, its refiner, and rows as people read them.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use garam_refine::{ContractRefiner, sample};
use garam_refine_sql::{SqlRefiner, Unplannable};
use garam_stage::{ContractConfig, RawBlock, Refined, Refiner as _, system};

pub(crate) const CONTRACT: &str = "format = 'json'\n[columns]\nid = 'bigint not null'\nname = 'text'\namount = 'decimal(10,2)'\n\
    share = 'double'\nn = 'int'\ntiny = 'smallint'\nis_new = 'boolean'\nday = 'date'\nat = 'timestamp'\nnote = 'varchar(20)'\n";

pub(crate) fn contract() -> Arc<ContractRefiner> {
    let config: ContractConfig = toml::from_str(CONTRACT).unwrap();
    Arc::new(ContractRefiner::new(config.check().unwrap()).unwrap())
}

pub(crate) fn plan(sql: &str) -> Result<SqlRefiner, Unplannable> {
    SqlRefiner::new(contract(), sql)
}

pub(crate) fn block(records: &[&str]) -> RawBlock {
    sample(records, 1_700_000_000_000_000)
}

pub(crate) fn refine(sql: &str, records: &[&str]) -> Refined {
    plan(sql).unwrap().refine(&[block(records)]).unwrap()
}

/// Each row's own columns, `|` between them.
pub(crate) fn texts(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let schema = rows.schema();
    let own = schema.fields().iter().zip(rows.columns());
    let own = own.filter(|(field, _)| !system::ALL.contains(&field.name().as_str()));
    let columns: Vec<_> =
        own.map(|(_, column)| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..rows.num_rows())
        .map(|row| {
            let cells = columns.iter().map(|column| column.value(row).to_string());
            cells.collect::<Vec<_>>().join("|")
        })
        .collect()
}

/// The result's own columns with their types; `!` where there is always a value.
pub(crate) fn columns(sql: &str) -> Vec<String> {
    let schema = plan(sql).unwrap().schema();
    let own = schema.fields().iter().filter(|f| !system::ALL.contains(&f.name().as_str()));
    own.map(|f| format!("{} {}{}", f.name(), f.data_type(), if f.is_nullable() { "" } else { "!" }))
        .collect()
}
