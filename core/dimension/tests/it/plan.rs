//! Dimensions of tests, from the text that an operator writes.

use std::path::Path;

use garam_dimension::{DimensionConfig, DimensionPlan};
use garam_stage::{DimensionSource, Failure, Told, Wanted};

use arrow_array::RecordBatch;

pub(crate) const COLUMNS: &str =
    "[columns]\nuser_id = \"bigint not null\"\ntier = \"varchar\"\ncredit = \"decimal(18,2)\"\n";

pub(crate) fn parse(text: &str) -> Result<DimensionPlan, String> {
    let config: DimensionConfig = toml::from_str(text).map_err(|error| error.to_string())?;
    config.check("dim_users").map_err(|error| format!("{}: {error}", error.key))
}

/// With more lines at the top.
pub(crate) fn of_file(path: &Path, format: &str, more: &str) -> DimensionPlan {
    let text = format!(
        "key = [\"user_id\"]\n{more}\n{COLUMNS}[from.file]\npath = {path:?}\nformat = \"{format}\"\n"
    );
    parse(&text).unwrap()
}

/// What a source tells once it rests.
pub(crate) async fn told(source: &mut dyn DimensionSource) -> Result<RecordBatch, Failure> {
    loop {
        match source.read(Wanted::Anyway).await? {
            Told::Rows { rows, .. } => return Ok(rows),
            Told::Unsettled(rest) => tokio::time::sleep(rest).await,
            Told::Unchanged => panic!("it was to be read anyway"),
        }
    }
}

/// Rows as lines of text.
pub(crate) fn lines(rows: &RecordBatch) -> Vec<String> {
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Decimal128Type, Int64Type};
    let (ids, tiers) =
        (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_string::<i32>());
    let credits = rows.column(2).as_primitive::<Decimal128Type>();
    let line = |row| {
        let tier = if tiers.is_null(row) { "null" } else { tiers.value(row) };
        let credit =
            if credits.is_null(row) { "null".into() } else { credits.value_as_string(row) };
        format!("{} {tier} {credit}", ids.value(row))
    };
    (0..rows.num_rows()).map(line).collect()
}
