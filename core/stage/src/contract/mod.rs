//! A stream's contract: format, columns with SQL types, which column is the event time and which the key.
//!
//! Reading order: here (the whole, and what is refused) → [`reading`] (how a record is taken apart) → [`columns`].
//!
//! In: the `[stream.NAME.contract]` table. Out: [`Contract`], checked once, so that no room re-validates.
//! Not here: parsing records by it (`refine`), how a database spells the types (`sink`).

mod columns;
mod reading;

use std::collections::BTreeMap;
use std::fmt;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::records::system;
pub use columns::{Column, ColumnType};
pub use reading::{Format, Reading};

/// `[stream.NAME.contract]` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractConfig {
    /// `line` (one text column), `json` (an object per record), or a text format whose fields have names: `logfmt`, `csv`,
    /// `tsv`, `common` and `combined` (access logs), `syslog`, `cri`, `regex`.
    pub format: Format,
    /// The column that says when it happened. Default: none, `_event_time` is null.
    #[serde(default)]
    pub time: Option<String>,
    /// The column or columns that identify an entity. Default: none.
    #[serde(default)]
    pub key: Option<OneOrMany>,
    /// Fields that are no column: `keep` them as JSON text in `_rest` (default), `drop` them, or `quarantine` the record.
    #[serde(default)]
    pub unknown: UnknownColumns,
    /// `name = "type"` or `name = "type not null"`, in the order of the table. Types: boolean, smallint, int, bigint,
    /// real, double, decimal(p,s), text, varchar(n), date, timestamp. Default for `line`: `line = "text not null"`; for
    /// `common`, `combined`, `syslog` and `cri`: all that the format has.
    #[serde(default, deserialize_with = "in_order")]
    pub columns: Vec<(String, String)>,
    /// Other names under which a column's field may come: `ts = ["time", "@timestamp"]`. Two of them in one record are an
    /// error of that record.
    #[serde(default)]
    pub aliases: BTreeMap<String, OneOrMany>,
    /// How the text of the `time` column is written, as strftime has it, e.g. `"%d.%m.%Y %H:%M:%S,%f"`. Default: what
    /// the format usually has, else ISO 8601 or epoch numbers.
    #[serde(default)]
    pub time_format: Option<String>,
    /// The offset of times that name none: `"UTC"` or one like `"+09:00"`. Default: UTC, and `2026-11-23T23:24:04` without
    /// an offset is refused.
    #[serde(default)]
    pub zone: Option<String>,
    /// `csv`, `tsv`: the names of the cells, in order. Default: the columns.
    #[serde(default)]
    pub fields: Vec<String>,
    /// `csv`: one ASCII character between cells. Default: `,`.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// `csv`, `tsv`: a record that says the names of the fields is dropped as `header`. Default: false.
    #[serde(default)]
    pub header: bool,
    /// `regex`: an expression whose named groups are the fields.
    #[serde(default)]
    pub pattern: Option<String>,
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
    pub reading: Reading,
}

/// Name of the column that keeps fields that are no column, as the text of a JSON object.
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
    #[error("delimiter {found:?} is no single ASCII character that can stand between cells")]
    Delimiter { found: char },
    #[error("{role} {name:?} is there twice: which one is meant cannot be known")]
    Twice { role: &'static str, name: String },
    #[error("zone {text:?} is not known: use \"UTC\" or an offset like \"+09:00\"")]
    Zone { text: String },
    #[error("time_format needs a time column: say time = \"COLUMN\"")]
    TimeFormatAlone,
}

impl ContractConfig {
    /// With these columns, and the default of everything else.
    pub fn new(format: Format, columns: Vec<(String, String)>) -> Self {
        Self {
            format,
            columns,
            time: None,
            key: None,
            unknown: UnknownColumns::default(),
            aliases: BTreeMap::new(),
            time_format: None,
            zone: None,
            fields: Vec::new(),
            delimiter: None,
            header: false,
            pattern: None,
        }
    }

    /// Parsed form to checked form.
    pub fn check(mut self) -> Result<Contract, ContractError> {
        if let (Some((columns, time)), true) = (self.format.usual(), self.columns.is_empty()) {
            self.columns =
                columns.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
            self.time.get_or_insert_with(|| time.to_owned());
        }
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
            (format, []) => return Err(ContractError::NoColumns { format }),
            _ => columns,
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
        let key = self.key.take().map(OneOrMany::into_vec).unwrap_or_default();
        for name in &key {
            if find("key", name)?.nullable {
                return Err(ContractError::NullableKey { column: name.clone() });
            }
        }
        let reading = Reading::check(&mut self, &columns)?;
        let Self { format, time, unknown, .. } = self;
        Ok(Contract { format, columns, time, key, unknown, reading })
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
            reading: Reading::default(),
        }
    }

    /// Whether fields that are no column are kept in [`REST`].
    pub fn keeps_rest(&self) -> bool {
        self.format != Format::Line && self.unknown == UnknownColumns::Keep
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
