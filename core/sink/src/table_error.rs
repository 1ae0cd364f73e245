//! How configuration, contract and table of an SQL server do not fit together, with what to do about it.

use std::time::Duration;

use garam_stage::FailureKind;

use crate::changes::ChangesError;

/// How configuration, contract and table do not fit together, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Changes(#[from] ChangesError),
    #[error("say where the database is: exactly one of url_file and url")]
    NoUrl,
    #[error("statement_timeout is {found:?}, out of bounds: 1s to 1h")]
    StatementTimeout { found: Duration },
    #[error(
        "table name {table:?} cannot be used: NAME or SCHEMA.NAME, each 1 to 63 letters, digits and _, not beginning with a digit, \"pg_\" or \"_garam\""
    )]
    Name { table: String },
    #[error("mode \"{mode}\" needs key = [..]: the columns that identify a row")]
    NoKey { mode: &'static str },
    #[error(
        "mode \"append\" keeps every record, so key = [..] has no meaning: leave it out, or use another mode"
    )]
    AppendWithKey,
    #[error("key column {column} is no column of the rows")]
    UnknownKey { column: String },
    #[error("key column {column} is named twice")]
    KeyTwice { column: String },
    #[error("key column {column} may be null: declare it \"not null\" in the contract")]
    NullableKey { column: String },
    #[error("version has no meaning in mode \"{mode}\", which never changes a row: leave it out")]
    VersionMode { mode: &'static str },
    #[error("version column {column} is no column of the contract")]
    UnknownVersion { column: String },
    #[error("version column {column} may be null: declare it \"not null\" in the contract")]
    NullableVersion { column: String },
    #[error(
        "version column {column} has type {found}, which does not say which row is newer: use a number, date or timestamp"
    )]
    VersionType { column: String, found: String },
    #[error(
        "version cannot be _version: files of many hosts have no order of their own; name a column of the contract that grows with every change of a row, or upsert without a guard"
    )]
    SystemVersion,
    #[error("table {table} does not exist and create = \"never\": create it with\n{ddl}")]
    Missing { table: String, ddl: String },
    #[error("{table} is a {kind}, not a table: name another table")]
    NotATable { table: String, kind: &'static str },
    #[error(
        "table {table} is {kind}: a crash of the server would empty it and leave the cursor; alter table {table} set logged"
    )]
    NotLogged { table: String, kind: &'static str },
    #[error("table {table} lacks columns {columns}: add them with\n{ddl}")]
    MissingColumns { table: String, columns: String, ddl: String },
    #[error(
        "table {table} has column {found} where the contract has {column}, and a server may take both for one: spell them alike"
    )]
    CaseClash { table: String, column: String, found: String },
    #[error(
        "table {table} lacks column {column}, which {needs} and so cannot be added to rows that are there: add and fill it, or let the table be made anew"
    )]
    CannotAdd { table: String, column: String, needs: &'static str },
    #[error(
        "table {table} is kept by engine {engine:?}, which cannot take rows and cursor in one transaction: alter table {table} engine = InnoDB"
    )]
    Engine { table: String, engine: String },
    #[error("column {column} of table {table} is generated: rename the contract's column")]
    Generated { table: String, column: String },
    #[error(
        "column {column} of table {table} is declared {declared}, which would change or refuse its values: it must be {needed}"
    )]
    Type { table: String, column: String, declared: String, needed: String },
    #[error(
        "column {column} of table {table} compares different texts as equal (a nondeterministic collation), so it cannot be in a key"
    )]
    Collation { table: String, column: String },
    #[error(
        "column {column} of table {table} has collation {collation}, under which different texts can be equal, so it cannot be in a key: it must be {needed}"
    )]
    KeyCollation { table: String, column: String, collation: String, needed: &'static str },
    #[error(
        "column {column} of table {table} is NOT NULL without a default and no column of the contract: give it a default"
    )]
    Required { table: String, column: String },
    #[error(
        "table {table} has no unique index on exactly ({columns}) that is checked at once: create it with\n{ddl}"
    )]
    NoUniqueIndex { table: String, columns: String, ddl: String },
    #[error("role {role} may not {rights} table {table}: {grant}")]
    Rights { table: String, role: String, rights: String, grant: String },
    #[error("role {role} may not create table {table}: {grant}")]
    Create { table: String, role: String, grant: String },
    #[error(
        "table _garam_cursors was made by another version of Garam (columns {found}): upgrade Garam, nothing was changed"
    )]
    CursorTable { found: String },
}

impl TableError {
    /// The kind the engine and the supervisor decide by.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Changes(error) => error.kind(),
            Self::NoUrl
            | Self::StatementTimeout { .. }
            | Self::Name { .. }
            | Self::NoKey { .. }
            | Self::AppendWithKey
            | Self::UnknownKey { .. }
            | Self::KeyTwice { .. }
            | Self::NullableKey { .. }
            | Self::VersionMode { .. }
            | Self::UnknownVersion { .. }
            | Self::NullableVersion { .. }
            | Self::VersionType { .. }
            | Self::SystemVersion => FailureKind::Config,
            Self::Rights { .. } | Self::Create { .. } => FailureKind::Refused,
            _ => FailureKind::Schema,
        }
    }
}
