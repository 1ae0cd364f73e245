//! The table as it should be: column types, DDL and the statements that fill it.
//!
//! In: a `TableSpec`. Out: SQL text, made once per writer. Names are quoted always and checked first, so that no name can
//! become SQL. Not here: what the database has (`inspect`), values (`encode`).

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use garam_stage::{TableSpec, WriteMode, system};

use super::error::{SqliteError, TableError};
use crate::changes::{self, Truncate};
use crate::mode::Mode;

/// SQLite binds at most 32 766 values per statement.
const MAX_BINDS: usize = 32_766;
/// Rows per statement. Few sizes, so that each is prepared once; a row that is refused is found by going down the list.
pub(crate) const SIZES: [usize; 3] = [128, 16, 1];

/// How a column's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Real,
    Double,
    Decimal,
    Text,
    Date,
    Timestamp,
    Blob,
    /// 128 bits: INTEGER while it fits, else TEXT.
    Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) stored: Stored,
    pub(crate) nullable: bool,
}

/// A checked table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) mode: WriteMode,
    /// What makes a row unique: the configured key, or the record's name.
    pub(crate) unique: Vec<String>,
    /// Rows per statement and its text, largest first.
    pub(crate) inserts: Vec<(usize, Arc<str>)>,
    /// What it does with row changes, where it obeys them.
    pub(crate) obeys: Option<Truncate>,
    spec: TableSpec,
}

impl Table {
    pub(crate) fn new(spec: TableSpec, truncate: Option<Truncate>) -> Result<Self, SqliteError> {
        check_name(&spec.table)?;
        let mode = match spec.mode {
            WriteMode::Append => Mode::Append,
            WriteMode::Upsert => Mode::Upsert,
        };
        check_key_is_there(&spec)?;
        let obeys = changes::obeyed(&spec.schema, mode, &spec.key, false, truncate);
        let obeys = obeys.map_err(TableError::from)?;
        check_key(&spec, obeys.is_some())?;
        let columns = spec
            .schema
            .fields()
            .iter()
            .filter(|field| obeys.is_none() || field.name() != system::OP)
            .map(|field| {
                let stored = stored_as(field.name(), field.data_type()).ok_or_else(|| {
                    let found = field.data_type().to_string();
                    SqliteError::ColumnType { column: field.name().clone(), found }
                })?;
                Ok(TableColumn {
                    name: field.name().clone(),
                    stored,
                    nullable: may_be_null(field, obeys.is_some()),
                })
            })
            .collect::<Result<Vec<_>, SqliteError>>()?;
        let unique = match spec.mode {
            WriteMode::Upsert => spec.key.clone(),
            WriteMode::Append => {
                [system::ORIGIN, system::POSITION, system::ORDINAL].map(str::to_owned).to_vec()
            }
        };
        let name = spec.table.clone();
        let (mode, inserts) = (spec.mode, Vec::new());
        let mut table = Self { name, columns, mode, unique, inserts, obeys, spec };
        table.inserts = SIZES
            .into_iter()
            .filter(|rows| rows * table.columns.len() <= MAX_BINDS)
            .map(|rows| (rows, table.insert(rows).into()))
            .collect();
        Ok(table)
    }

    pub(crate) fn into_spec(self) -> TableSpec {
        self.spec
    }

    /// `CREATE TABLE`.
    pub(crate) fn ddl(&self) -> String {
        let mut lines: Vec<String> =
            self.columns.iter().map(|column| format!("  {}", column.definition())).collect();
        let unique = quoted_list(&self.unique);
        lines.push(match self.mode {
            WriteMode::Upsert => format!("  PRIMARY KEY ({unique})"),
            WriteMode::Append => format!("  UNIQUE ({unique})"),
        });
        format!("CREATE TABLE {} (\n{}\n) STRICT", quoted(&self.name), lines.join(",\n"))
    }

    /// Deletes so many keys.
    pub(crate) fn delete(&self, keys: usize) -> String {
        let key = format!("({})", vec!["?"; self.unique.len()].join(","));
        format!(
            "DELETE FROM {} WHERE ({}) IN (VALUES {})",
            quoted(&self.name),
            quoted_list(&self.unique),
            vec![key.as_str(); keys].join(",")
        )
    }

    /// Where the columns stand that make a row unique.
    pub(crate) fn unique_columns(&self) -> Vec<usize> {
        let named = |name: &String| self.columns.iter().position(|column| column.name == *name);
        self.unique.iter().filter_map(named).collect()
    }

    /// Fills the table with `rows` rows of bound values. `OR ABORT` overrides what an existing table declares for
    /// conflicts (`ON CONFLICT IGNORE` would lose rows silently).
    fn insert(&self, rows: usize) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let row = format!("({})", vec!["?"; self.columns.len()].join(","));
        let mut sql = format!(
            "INSERT OR ABORT INTO {} ({}) VALUES {} ON CONFLICT ({}) DO ",
            quoted(&self.name),
            quoted_list(&names),
            vec![row.as_str(); rows].join(","),
            quoted_list(&self.unique),
        );
        match self.mode {
            WriteMode::Append => sql.push_str("NOTHING"),
            WriteMode::Upsert => {
                let values = names.iter().filter(|name| !self.unique.contains(name));
                let set: Vec<String> = values
                    .map(|name| format!("{name}=excluded.{name}", name = quoted(name)))
                    .collect();
                sql.push_str("UPDATE SET ");
                sql.push_str(&set.join(","));
            }
        }
        sql
    }
}

impl TableColumn {
    /// Name, type and nullability, as in `CREATE TABLE`.
    pub(crate) fn definition(&self) -> String {
        let not_null = if self.nullable { "" } else { " NOT NULL" };
        format!("{} {}{not_null}", quoted(&self.name), self.stored.declared())
    }
}

impl Stored {
    /// The type in a STRICT table.
    pub(crate) fn declared(self) -> &'static str {
        match self {
            Self::Boolean | Self::SmallInt | Self::Int | Self::BigInt => "INTEGER",
            Self::Real | Self::Double => "REAL",
            Self::Decimal | Self::Text | Self::Date | Self::Timestamp => "TEXT",
            Self::Blob => "BLOB",
            Self::Position => "ANY",
        }
    }
}

fn stored_as(name: &str, kind: &DataType) -> Option<Stored> {
    Some(match kind {
        DataType::FixedSizeBinary(16) if name == system::POSITION => Stored::Position,
        DataType::FixedSizeBinary(_) => Stored::Blob,
        DataType::Boolean => Stored::Boolean,
        DataType::Int16 => Stored::SmallInt,
        DataType::Int32 => Stored::Int,
        DataType::Int64 => Stored::BigInt,
        DataType::Float32 => Stored::Real,
        DataType::Float64 => Stored::Double,
        DataType::Decimal128(..) => Stored::Decimal,
        DataType::Utf8 => Stored::Text,
        DataType::Date32 => Stored::Date,
        DataType::Timestamp(TimeUnit::Microsecond, _) => Stored::Timestamp,
        _ => return None,
    })
}

fn check_name(table: &str) -> Result<(), TableError> {
    let starts_well = table.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let lower = table.to_ascii_lowercase();
    let taken = lower.starts_with("sqlite_") || lower.starts_with("_garam");
    if !starts_well || table.len() > 63 || !table.bytes().all(allowed) || taken {
        return Err(TableError::Name { table: table.into() });
    }
    Ok(())
}

fn may_be_null(field: &Field, obeys: bool) -> bool {
    if obeys { changes::is_nullable(field) } else { field.is_nullable() }
}

fn check_key_is_there(spec: &TableSpec) -> Result<(), TableError> {
    match (spec.mode, spec.key.is_empty()) {
        (WriteMode::Upsert, true) => Err(TableError::UpsertWithoutKey),
        (WriteMode::Append, false) => Err(TableError::AppendWithKey),
        _ => Ok(()),
    }
}

fn check_key(spec: &TableSpec, obeys: bool) -> Result<(), TableError> {
    for (i, column) in spec.key.iter().enumerate() {
        let field = spec
            .schema
            .field_with_name(column)
            .map_err(|_| TableError::UnknownKey { column: column.clone() })?;
        if spec.key.iter().take(i).any(|other| other == column) {
            return Err(TableError::KeyTwice { column: column.clone() });
        }
        if may_be_null(field, obeys) {
            return Err(TableError::NullableKey { column: column.clone() });
        }
    }
    Ok(())
}

/// An identifier in quotes, so that it is nothing but a name.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn quoted_list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",")
}
