//! Why SQL cannot be planned, told to whoever wrote it: what is wrong, and what to do.

use datafusion_common::DataFusionError;
use datafusion_common::utils::datafusion_strsim::levenshtein;

/// SQL that this room does not run.
#[derive(Debug, thiserror::Error)]
pub enum Unplannable {
    #[error("the SQL cannot be read: {why}")]
    Syntax { why: String },
    #[error("there are {found} statements: write one `select … from input …`")]
    Statements { found: usize },
    #[error("{found} is no query: write `select … from input …`")]
    NotAQuery { found: String },
    #[error("there is no `from input`: that is where the rows by the contract are")]
    NoInput,
    #[error("{what} is refused: {why}; {instead}")]
    NotRowLocal { what: String, why: &'static str, instead: &'static str },
    #[error("there is no table {name}: the rows by the contract are called input{}", or_these(.known))]
    UnknownTable { name: String, known: Vec<String> },
    #[error("there is no column {name}{}", suggestion(.near, .known))]
    UnknownColumn { name: String, near: Option<String>, known: Vec<String> },
    #[error("there is no function {name}{}", mean(.near))]
    UnknownFunction { name: String, near: Option<String> },
    #[error("{name}() is refused: it would not give the same again on replay; {instead}")]
    NotReplayable { name: String, instead: &'static str },
    #[error("the join with {table} is refused: {why}; {instead}")]
    Join { table: String, why: String, instead: String },
    #[error(
        "column {position} of the result, {text}, has no name that every database can spell: write `{text} as NAME`"
    )]
    Unnamed { position: usize, text: String },
    #[error("column {name} begins with _, which is for Garam's own columns: write `as {}`", .name.trim_start_matches('_'))]
    Reserved { name: String },
    #[error("columns {first} and {second} differ in case alone: name one of them otherwise")]
    Clash { first: String, second: String },
    #[error("column {column} has type {found}, which no contract has: {instead}")]
    ColumnType { column: String, found: String, instead: String },
    #[error("the result has no column of its own: select at least one of the contract's")]
    NoColumns,
    #[error("the SQL fails whatever the record: {why}")]
    Fails { why: String },
    #[error("the SQL cannot be planned: {why}")]
    Plan { why: String },
}

impl Unplannable {
    /// What the planner says, in this room's words where it has some.
    pub(crate) fn of(error: &DataFusionError) -> Self {
        use datafusion_common::SchemaError;
        if let DataFusionError::SchemaError(schema, _) = error.find_root() {
            if let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref() {
                let known: Vec<String> =
                    valid_fields.iter().map(|column| column.name.clone()).collect();
                let near = nearest(&field.name, known.iter().map(String::as_str));
                return Self::UnknownColumn { name: field.flat_name(), near, known };
            }
        }
        Self::Plan { why: plain(error) }
    }
}

/// The message alone: no kind of error in front, no trace of the stack behind.
pub(crate) fn plain(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let kinds = [
        "Arrow error: ",
        "Cast error: ",
        "Compute error: ",
        "Execution error: ",
        "Error during planning: ",
        "Invalid argument error: ",
        "Parser error: ",
        "Arithmetic overflow: ",
        "This feature is not implemented: ",
    ];
    let mut text = text.as_str();
    while let Some(rest) = kinds.iter().find_map(|kind| text.strip_prefix(kind)) {
        text = rest;
    }
    text.trim().to_owned()
}

/// The known name that differs least, if it differs little.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let lower = name.to_lowercase();
    let rated = known.map(|known| (levenshtein(&lower, &known.to_lowercase()), known));
    let (distance, known) = rated.min()?;
    (distance <= name.chars().count().div_ceil(3)).then(|| known.to_owned())
}

fn mean(near: &Option<String>) -> String {
    match near {
        Some(near) => format!(": did you mean {near}?"),
        None => ": docs/sql.md lists what there is".to_owned(),
    }
}

fn suggestion(near: &Option<String>, known: &[String]) -> String {
    match near {
        Some(near) => format!(": did you mean {near}? (names are written as in the contract)"),
        None => format!("; there is {}", known.join(", ")),
    }
}

fn or_these(known: &[String]) -> String {
    match known {
        [] => String::new(),
        known => format!("; dimensions: {}", known.join(", ")),
    }
}
