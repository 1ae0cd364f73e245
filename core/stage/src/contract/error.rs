//! What is refused in a contract, in words that say how it is mended.

use super::Format;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    #[error(
        "column {column}: unknown type {text:?}: use boolean, smallint, int, bigint, real, double, decimal(p,s), text, varchar(n), date or timestamp, with \"not null\" behind it where wanted"
    )]
    UnknownType { column: String, text: String },
    #[error(
        "column {column}: decimal({precision},{scale}) is out of bounds: 1 to 38 digits, scale 0 to precision"
    )]
    Decimal { column: String, precision: u32, scale: u32 },
    #[error(
        "column {column:?} is not a usable name: letters, digits and _, not beginning with a digit or _, at most 63 bytes"
    )]
    Name { column: String },
    #[error("columns {first} and {second} differ only in case: databases would mix them up")]
    Clash { first: String, second: String },
    #[error("{role} names column {column}, which the contract does not have")]
    NoSuchColumn { role: &'static str, column: String },
    #[error("time column {column} must be a timestamp")]
    TimeType { column: String },
    #[error("key column {column} must be \"not null\"")]
    NullableKey { column: String },
    #[error("format {format} needs [columns]: nothing says which fields to keep")]
    NoColumns { format: Format },
    #[error("format line has exactly one column, of type text, \"not null\"")]
    LineColumns,
    #[error("{key} means nothing to format {format}: remove it")]
    NotForFormat { key: &'static str, format: Format },
    #[error(
        "format regex needs a pattern with named groups, like \"^(?<level>[A-Z]+) (?<message>.*)$\""
    )]
    NoPattern,
    #[error("format grok needs a pattern, like \"%{{IPORHOST:client}} %{{NUMBER:took}}\"")]
    NoGrok,
    #[error(
        "format changes needs key = [..]: the columns by which a change finds its row, usually the table's primary key"
    )]
    ChangesWithoutKey,
    #[error("delimiter {found:?} is no single ASCII character that can stand between cells")]
    Delimiter { found: char },
    #[error("{role} {name:?} is there twice: which one is meant cannot be known")]
    Twice { role: &'static str, name: String },
    #[error("zone {text:?} is not known: use \"UTC\" or an offset like \"+09:00\"")]
    Zone { text: String },
    #[error("{key} needs a time column: say time = \"COLUMN\"")]
    TimeAlone { key: &'static str },
    #[error("column {column}: {rule} {why}")]
    Rule { column: String, rule: &'static str, why: &'static str },
    #[error("column {column}: a pointer has at most {deepest} segments")]
    Deep { column: String, deepest: usize },
    #[error(
        "column {inner} is read from inside of what column {outer} is read from: let only one of them read it"
    )]
    Inside { inner: String, outer: String },
}
