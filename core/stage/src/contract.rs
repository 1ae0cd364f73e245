//! A stream's contract: format, columns with SQL types, which column is the event time and which the key.
//!
//! In: the `[stream.NAME.contract]` table. Out: [`Contract`], checked once, so that no room re-validates.
//! Not here: parsing records by it (`refine`), how a database spells the types (`sink`).

use std::fmt;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::records::system;

/// `[stream.NAME.contract]` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractConfig {
    /// `line` (one text column) or `json` (an object per record).
    pub format: Format,
    /// The column that says when it happened. Default: none, `_event_time` is null.
    #[serde(default)]
    pub time: Option<String>,
    /// The column or columns that identify an entity. Default: none.
    #[serde(default)]
    pub key: Option<OneOrMany>,
    /// JSON members that are no column: `keep` them as JSON text in `_rest` (default), `drop` them, or `quarantine`
    /// the record.
    #[serde(default)]
    pub unknown: UnknownColumns,
    /// `name = "type"` or `name = "type not null"`, in the order of the table. Types: boolean, smallint, int, bigint,
    /// real, double, decimal(p,s), text, varchar(n), date, timestamp. Default for `line`: `line = "text not null"`.
    #[serde(default, deserialize_with = "in_order")]
    pub columns: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Line,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownColumns {
    #[default]
    Keep,
    Drop,
    Quarantine,
}

/// `"id"` or `["a", "b"]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A contract that is known to make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    pub format: Format,
    pub columns: Vec<Column>,
    pub time: Option<String>,
    pub key: Vec<String>,
    pub unknown: UnknownColumns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub nullable: bool,
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

/// Name of the column that keeps unknown JSON members.
pub const REST: &str = "_rest";

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
    #[error("format json needs [columns]: nothing says which members to keep")]
    NoColumns,
    #[error("format line has exactly one column, of type text, \"not null\"")]
    LineColumns,
}

impl ContractConfig {
    /// Parsed form to checked form.
    pub fn check(self) -> Result<Contract, ContractError> {
        let columns = self
            .columns
            .iter()
            .map(|(name, text)| Column::parse(name, text))
            .collect::<Result<Vec<_>, _>>()?;
        let columns = match (self.format, columns.as_slice()) {
            (Format::Line, []) => {
                vec![Column { name: "line".into(), kind: ColumnType::Text, nullable: false }]
            }
            (Format::Line, [Column { kind: ColumnType::Text, nullable: false, .. }]) => columns,
            (Format::Line, _) => return Err(ContractError::LineColumns),
            (Format::Json, []) => return Err(ContractError::NoColumns),
            (Format::Json, _) => columns,
        };
        for (i, column) in columns.iter().enumerate() {
            let same = |other: &&Column| other.name.eq_ignore_ascii_case(&column.name);
            if let Some(other) = columns.iter().take(i).find(same) {
                let (first, second) = (other.name.clone(), column.name.clone());
                return Err(ContractError::Clash { first, second });
            }
        }
        let find = |role, name: &str| {
            columns
                .iter()
                .find(|column| column.name == name)
                .ok_or_else(|| ContractError::NoSuchColumn { role, column: name.into() })
        };
        if let Some(time) = &self.time
            && find("time", time)?.kind != ColumnType::Timestamp
        {
            return Err(ContractError::TimeType { column: time.clone() });
        }
        let key = self.key.map(OneOrMany::into_vec).unwrap_or_default();
        for name in &key {
            if find("key", name)?.nullable {
                return Err(ContractError::NullableKey { column: name.clone() });
            }
        }
        Ok(Contract { format: self.format, columns, time: self.time, key, unknown: self.unknown })
    }
}

impl Contract {
    /// The contract of a stream whose configuration has none: whole lines as text.
    pub fn lines() -> Self {
        let line = Column { name: "line".into(), kind: ColumnType::Text, nullable: false };
        Self {
            format: Format::Line,
            columns: vec![line],
            time: None,
            key: Vec::new(),
            unknown: UnknownColumns::Keep,
        }
    }

    /// Whether unknown members are kept in [`REST`].
    pub fn keeps_rest(&self) -> bool {
        self.format == Format::Json && self.unknown == UnknownColumns::Keep
    }

    /// Columns of refined rows: the contract's, [`REST`] where kept, then [`system::ALL`].
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.kind.arrow(), column.nullable))
            .collect();
        if self.keeps_rest() {
            fields.push(Field::new(REST, DataType::Utf8, true));
        }
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        fields.extend([
            Field::new(system::HOST, DataType::Utf8, false),
            Field::new(system::PATH, DataType::Utf8, false),
            Field::new(system::ORIGIN, DataType::FixedSizeBinary(32), false),
            Field::new(system::POSITION, DataType::FixedSizeBinary(16), false),
            Field::new(system::ORDINAL, DataType::Int32, false),
            Field::new(system::VERSION, DataType::FixedSizeBinary(20), false),
            Field::new(system::EVENT_TIME, time.clone(), true),
            Field::new(system::INGEST_TIME, time, false),
        ]);
        Schema::new(fields).into()
    }

    /// The text that a plan is identified by.
    pub fn canonical_text(&self) -> String {
        format!("{self:?}")
    }
}

impl Column {
    fn parse(name: &str, text: &str) -> Result<Self, ContractError> {
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
        Ok(Self { name: name.into(), kind: ColumnType::parse(name, kind)?, nullable })
    }
}

impl ColumnType {
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
            ("text", []) => Self::Text,
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

impl OneOrMany {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Reads a table as pairs in the order they are written: the order of the columns.
fn in_order<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of column names and types")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    from.deserialize_map(Pairs)
}
