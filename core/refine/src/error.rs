//! Why a contract cannot be refined by, found before anything is read.

/// What a contract asks for and this room cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("time_format {format:?} is not understood: {source}")]
    TimeFormat { format: String, source: jiff::Error },
    #[error(
        "time_format {format:?} does not say which day is meant: a time that it wrote, {written:?}, cannot be read back"
    )]
    NoDay { format: String, written: String },
    #[error("the pattern cannot be read: {0}")]
    Pattern(#[from] regex::Error),
    #[error("the pattern cannot be put together: {0}")]
    Grok(String),
    #[error("the pattern has no named group: write (?<name>...)")]
    NoGroup,
    #[error("column {column} is not null, but the pattern has no group of that name")]
    NoGroupFor { column: String },
    #[error("column {column}: its pattern cannot be read: {source}")]
    ColumnPattern { column: String, source: Box<regex::Error> },
    #[error("column {column}: its {key} does not fit: {detail}")]
    Literal { column: String, key: &'static str, detail: String },
}
