//! A contract's columns: names that every database can spell, and SQL types.
//!
//! In: `name = "type"` or `name = "type not null"`. Out: [`Column`] and its Arrow type. Not here: how a database spells a type
//! (`sink`), how text becomes a value (`refine`), what a column has beyond its type (`rules`).

use std::fmt;

use arrow_schema::{DataType, TimeUnit};

use super::{ContractError, Rules};

/// Under this name a field of the rows' schema says how many characters a `varchar(n)` has.
pub const MOST_CHARACTERS: &str = "garam.most_characters";
/// Under this name a field of row changes says that a row that is there has a value.
pub const NOT_NULL: &str = "garam.not_null";
/// Under this name a field of row changes says which column of the key it is, of how many: `1/2`.
pub const KEY_COLUMNS: &str = "garam.key_columns";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub nullable: bool,
    /// Whether its value is looked for under its own name.
    pub is_named: bool,
    pub rules: Rules,
}

/// SQL types a contract can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Real,
    Double,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Text,
    /// At most this many characters.
    Varchar(u32),
    Date,
    /// Microseconds, UTC.
    Timestamp,
}

impl Column {
    /// A column that takes whatever its type takes.
    pub fn new(name: impl Into<String>, kind: ColumnType, nullable: bool) -> Self {
        Self { name: name.into(), kind, nullable, is_named: true, rules: Rules::default() }
    }
}

impl ColumnType {
    /// `"type"` or `"type not null"`: the type, and whether null is allowed.
    pub(super) fn parse_column(name: &str, text: &str) -> Result<(Self, bool), ContractError> {
        let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !starts_well || name.len() > 63 || !name.bytes().all(allowed) {
            return Err(ContractError::Name { column: name.into() });
        }
        let lower = text.trim().to_ascii_lowercase();
        let (kind, nullable) = match lower.strip_suffix("not null") {
            Some(kind) => (kind.trim(), false),
            None => (lower.as_str(), true),
        };
        Ok((Self::parse(name, kind)?, nullable))
    }

    fn parse(column: &str, text: &str) -> Result<Self, ContractError> {
        let unknown = || ContractError::UnknownType { column: column.into(), text: text.into() };
        let (head, arguments) = match text.split_once('(') {
            Some((head, rest)) => {
                let inner = rest.strip_suffix(')').ok_or_else(unknown)?;
                let numbers = inner.split(',').map(|n| n.trim().parse::<u32>());
                (head.trim(), numbers.collect::<Result<Vec<_>, _>>().map_err(|_| unknown())?)
            }
            None => (text, Vec::new()),
        };
        Ok(match (head, arguments.as_slice()) {
            ("boolean" | "bool", []) => Self::Boolean,
            ("smallint", []) => Self::SmallInt,
            ("int" | "integer", []) => Self::Int,
            ("bigint", []) => Self::BigInt,
            ("real", []) => Self::Real,
            ("double" | "double precision", []) => Self::Double,
            ("decimal" | "numeric", [precision]) => Self::decimal(column, *precision, 0)?,
            ("decimal" | "numeric", [precision, scale]) => {
                Self::decimal(column, *precision, *scale)?
            }
            ("text" | "varchar", []) => Self::Text,
            ("varchar", [length]) if *length > 0 => Self::Varchar(*length),
            ("date", []) => Self::Date,
            ("timestamp", []) => Self::Timestamp,
            _ => return Err(unknown()),
        })
    }

    fn decimal(column: &str, precision: u32, scale: u32) -> Result<Self, ContractError> {
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(p @ 1..=38), Ok(s)) if scale <= precision => {
                Ok(Self::Decimal { precision: p, scale: s })
            }
            _ => Err(ContractError::Decimal { column: column.into(), precision, scale }),
        }
    }

    /// The Arrow type rows carry.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Text | Self::Varchar(_) => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// As the contract spells it.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Real => f.write_str("real"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Text => f.write_str("text"),
            Self::Varchar(limit) => write!(f, "varchar({limit})"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
        }
    }
}
