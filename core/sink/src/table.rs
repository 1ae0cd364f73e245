//! The table of an SQL server as the configuration and the contract want it, before a server has its say.
//!
//! In: configuration, the rows' schema. Out: a name, columns and how each is stored, what makes a row unique, the guard; or why
//! that cannot work and what to do. Not here: how a server spells a type (its `table`), what it has (its `inspect`).

use arrow_schema::{DataType, SchemaRef, TimeUnit};
use garam_stage::contract::MOST_CHARACTERS;
use garam_stage::system;

use crate::changes::{self, Truncate};
use crate::mode::Mode;
pub use crate::table_error::TableError;

/// How a column's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Real,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    Date,
    Timestamp,
    /// Always so many.
    Bytes(i32),
    /// 128 bits, as a number.
    Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) stored: Stored,
    pub(crate) nullable: bool,
    /// Of a text that the contract limits.
    pub(crate) characters: Option<u32>,
}

/// `NAME` or `SCHEMA.NAME`, checked: letters, digits and `_`, so that no name can become SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// What makes a row what it is.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) columns: Vec<TableColumn>,
    /// What makes a row unique, as indexes into `columns`: the configured key, or the record's name.
    pub(crate) unique: Vec<usize>,
    /// The guard, as an index into `columns`.
    pub(crate) version: Option<usize>,
    /// What it does with row changes, where it obeys them.
    pub(crate) obeys: Option<Truncate>,
}

/// A type of the rows that no destination stores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} has type {found}, which this destination cannot store")]
pub struct ColumnTypeError {
    pub column: String,
    pub found: String,
}

impl TableName {
    pub(crate) fn parse(text: &str) -> Result<Self, TableError> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let wrong = |part: &str| {
            let starts_well =
                part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let lower = part.to_ascii_lowercase();
            let taken = lower.starts_with("pg_") || lower.starts_with("_garam");
            !starts_well || part.len() > 63 || !part.bytes().all(allowed) || taken
        };
        if wrong(name) || schema.is_some_and(wrong) {
            return Err(TableError::Name { table: text.into() });
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.into() })
    }

    /// As people write it.
    pub(crate) fn display(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Shape {
    pub(crate) fn new(
        schema: &SchemaRef,
        mode: Mode,
        key: &[String],
        version: Option<&str>,
        truncate: Option<Truncate>,
    ) -> Result<Result<Self, ColumnTypeError>, TableError> {
        let obeys = changes::obeyed(schema, mode, key, version.is_some(), truncate)?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            if obeys.is_some() && field.name() == system::OP {
                continue;
            }
            let Some(stored) = stored_as(field.name(), field.data_type()) else {
                let (column, found) = (field.name().clone(), field.data_type().to_string());
                return Ok(Err(ColumnTypeError { column, found }));
            };
            let name = field.name().clone();
            let nullable = match obeys {
                Some(_) => changes::is_nullable(field),
                None => field.is_nullable(),
            };
            let characters = field.metadata().get(MOST_CHARACTERS).and_then(|n| n.parse().ok());
            columns.push(TableColumn { name, stored, nullable, characters });
        }
        let unique = unique(&columns, mode, key)?;
        let version = version.map(|version| guard(&columns, mode, version)).transpose()?;
        Ok(Ok(Self { columns, unique, version, obeys }))
    }
}

impl Stored {
    /// As a contract spells it.
    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Double => "double",
            Self::Decimal { .. } | Self::Position => "decimal",
            Self::Text => "text",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Bytes(_) => "bytes",
        }
    }

    /// Whether larger values are newer.
    fn orders(self) -> bool {
        !matches!(self, Self::Boolean | Self::Text | Self::Bytes(_))
    }
}

fn stored_as(name: &str, kind: &DataType) -> Option<Stored> {
    Some(match kind {
        DataType::FixedSizeBinary(16) if name == system::POSITION => Stored::Position,
        DataType::FixedSizeBinary(size) => Stored::Bytes(*size),
        DataType::Boolean => Stored::Boolean,
        DataType::Int16 => Stored::SmallInt,
        DataType::Int32 => Stored::Int,
        DataType::Int64 => Stored::BigInt,
        DataType::Float32 => Stored::Real,
        DataType::Float64 => Stored::Double,
        DataType::Decimal128(precision, scale) => {
            Stored::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        DataType::Utf8 => Stored::Text,
        DataType::Date32 => Stored::Date,
        DataType::Timestamp(TimeUnit::Microsecond, _) => Stored::Timestamp,
        _ => return None,
    })
}

fn unique(columns: &[TableColumn], mode: Mode, key: &[String]) -> Result<Vec<usize>, TableError> {
    let record = [system::ORIGIN, system::POSITION, system::ORDINAL].map(str::to_owned);
    let key = match (mode, key) {
        (Mode::Append, []) => &record,
        (Mode::Append, _) => return Err(TableError::AppendWithKey),
        (_, []) => return Err(TableError::NoKey { mode: mode.name() }),
        (_, key) => key,
    };
    let mut unique = Vec::with_capacity(key.len());
    for name in key {
        let found = columns.iter().enumerate().find(|(_, column)| column.name == *name);
        let Some((i, column)) = found else {
            return Err(TableError::UnknownKey { column: name.clone() });
        };
        if unique.contains(&i) {
            return Err(TableError::KeyTwice { column: name.clone() });
        }
        if column.nullable {
            return Err(TableError::NullableKey { column: name.clone() });
        }
        unique.push(i);
    }
    Ok(unique)
}

fn guard(columns: &[TableColumn], mode: Mode, version: &str) -> Result<usize, TableError> {
    if !matches!(mode, Mode::Upsert | Mode::Update) {
        return Err(TableError::VersionMode { mode: mode.name() });
    }
    if version == system::VERSION {
        return Err(TableError::SystemVersion);
    }
    let found = columns.iter().enumerate().find(|(_, column)| column.name == version);
    let Some((i, column)) = found.filter(|_| !version.starts_with('_')) else {
        return Err(TableError::UnknownVersion { column: version.into() });
    };
    if column.nullable {
        return Err(TableError::NullableVersion { column: version.into() });
    }
    if !column.stored.orders() {
        let found = column.stored.name().to_owned();
        return Err(TableError::VersionType { column: version.into(), found });
    }
    Ok(i)
}
