//! A stream's contract: format, columns with SQL types, which column is the event time and which the key.
//!
//! Reading order: here (the whole) → [`reading`] (how a record is taken apart) → [`columns`] (types) → [`rules`] (what a
//! column has beyond its type) → [`error`] (what is refused).
//!
//! In: the `[stream.NAME.contract]` table. Out: [`Contract`], checked once, so that no room re-validates.
//! Not here: parsing records by it (`refine`), how a database spells the types (`sink`).

mod columns;
mod error;
mod reading;
mod rules;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::records::system;
pub use columns::{Column, ColumnType, KEY_COLUMNS, MOST_CHARACTERS, NOT_NULL};
pub use error::ContractError;
pub use reading::{Format, Reading};
use rules::Written;
pub use rules::{Cast, ColumnConfig, OnBreach, Rules, Scalar};

/// `[stream.NAME.contract]` as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractConfig {
    /// Raised by whoever changes the contract so that rows of before and after differ: a column removed, its type or the key
    /// changed. Without it `garam check` and a reload refuse such a change. Default 1; 1 and more.
    #[serde(default)]
    pub version: Option<NonZeroU32>,
    /// `line` (one text column), `json` (an object per record), or a text format whose fields have names: `logfmt`, `csv`,
    /// `tsv`, `common` and `combined` (access logs), `syslog`, `cri`, `regex`, `grok`; or `changes`, the row changes of a
    /// database, which needs `key`.
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
    /// `name = "type"` or `name = "type not null"`, or a table of [`ColumnConfig`], in the order of the table. Types: boolean,
    /// smallint, int, bigint, real, double, decimal(p,s), text, varchar(n), date, timestamp. Default for `line`:
    /// `line = "text not null"`; for `common`, `combined`, `syslog` and `cri`: all that the format has.
    #[serde(default, deserialize_with = "in_order", serialize_with = "as_table")]
    pub columns: Vec<(String, ColumnConfig)>,
    /// Other names under which a column's field may come: `ts = ["time", "@timestamp"]`; for `json` also pointers into nested
    /// objects: `"/meta/time"`. Two of them in one record are an error of that record.
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
    /// What `_event_time` is, and the time column with it, where the record says none, or one that cannot be read or is out of
    /// bounds: `ingest`, when the gateway took it in. Default: such a record is put aside.
    #[serde(default)]
    pub time_fallback: Option<TimeFallback>,
    /// How far the event time may lie after the arrival at the gateway. Default: no bound.
    #[serde(default, with = "humantime_serde")]
    pub max_ahead: Option<Duration>,
    /// How far the event time may lie before the arrival at the gateway. Default: no bound.
    #[serde(default, with = "humantime_serde")]
    pub max_behind: Option<Duration>,
    /// `csv`, `tsv`: the names of the cells, in order. Default: the columns.
    #[serde(default)]
    pub fields: Vec<String>,
    /// `csv`: one ASCII character between cells. Default: `,`.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// `csv`, `tsv`: a record that says the names of the fields is dropped as `header`. Default: false.
    #[serde(default)]
    pub header: bool,
    /// `regex`: an expression whose named groups are the fields. `grok`: one in which `%{NAME:field}` stands for a named pattern.
    #[serde(default)]
    pub pattern: Option<String>,
    /// `grok`: patterns of your own by name, which may refer to others. They count before the known ones.
    #[serde(default)]
    pub patterns: BTreeMap<String, String>,
    /// `changes`: the tables whose changes are taken, each `TABLE`, `SCHEMA.TABLE`, `DATABASE.TABLE` or `DATABASE.SCHEMA.TABLE`; others are dropped as
    /// `filtered`. Default: all.
    #[serde(default)]
    pub tables: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownColumns {
    #[default]
    Keep,
    Drop,
    Quarantine,
}

/// What stands in for an event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeFallback {
    Ingest,
}

/// `"id"` or `["a", "b"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A contract that is known to make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    pub version: u32,
    pub format: Format,
    pub columns: Vec<Column>,
    pub time: Option<String>,
    pub key: Vec<String>,
    pub unknown: UnknownColumns,
    pub reading: Reading,
    pub time_bounds: TimeBounds,
}

/// What the event time may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeBounds {
    pub fallback: Option<TimeFallback>,
    pub max_ahead: Option<Duration>,
    pub max_behind: Option<Duration>,
}

/// The version of a contract that says none.
const FIRST_VERSION: u32 = 1;

/// Name of the column that keeps fields that are no column, as the text of a JSON object.
pub const REST: &str = "_rest";

impl ContractConfig {
    /// With these columns, and the default of everything else.
    pub fn new(format: Format, columns: Vec<(String, String)>) -> Self {
        let typed = |(name, kind): (String, String)| (name, ColumnConfig::of_type(kind));
        Self {
            version: None,
            format,
            columns: columns.into_iter().map(typed).collect(),
            time: None,
            key: None,
            unknown: UnknownColumns::default(),
            aliases: BTreeMap::new(),
            time_format: None,
            zone: None,
            time_fallback: None,
            max_ahead: None,
            max_behind: None,
            fields: Vec::new(),
            delimiter: None,
            header: false,
            pattern: None,
            patterns: BTreeMap::new(),
            tables: Vec::new(),
        }
    }

    /// Parsed form to checked form.
    pub fn check(mut self) -> Result<Contract, ContractError> {
        if let (Some((columns, time)), true) = (self.format.usual(), self.columns.is_empty()) {
            let typed =
                |(name, kind): &(&str, &str)| ((*name).to_owned(), ColumnConfig::of_type(*kind));
            self.columns = columns.iter().map(typed).collect();
            self.time.get_or_insert_with(|| time.to_owned());
        }
        let given = std::mem::take(&mut self.columns);
        let columns = check_columns(&given, self.format)?;
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
        if self.format == Format::Changes && key.is_empty() {
            return Err(ContractError::ChangesWithoutKey);
        }
        let time_bounds = self.time_bounds()?;
        let reading = Reading::check(&mut self, &given, &columns)?;
        let Self { version, format, time, unknown, .. } = self;
        let version = version.map_or(FIRST_VERSION, NonZeroU32::get);
        Ok(Contract { version, format, columns, time, key, unknown, reading, time_bounds })
    }

    fn time_bounds(&self) -> Result<TimeBounds, ContractError> {
        let given = [
            ("time_format", self.time_format.is_some()),
            ("time_fallback", self.time_fallback.is_some()),
            ("max_ahead", self.max_ahead.is_some()),
            ("max_behind", self.max_behind.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((key, _)) if self.time.is_none() => Err(ContractError::TimeAlone { key }),
            _ => Ok(TimeBounds {
                fallback: self.time_fallback,
                max_ahead: self.max_ahead,
                max_behind: self.max_behind,
            }),
        }
    }
}

fn check_columns(
    given: &[(String, ColumnConfig)],
    format: Format,
) -> Result<Vec<Column>, ContractError> {
    let columns = given
        .iter()
        .map(|(name, column)| column.clone().check(name, format))
        .collect::<Result<Vec<_>, _>>()?;
    let columns = match (format, columns.as_slice()) {
        (Format::Line, []) => vec![Column::new("line", ColumnType::Text, false)],
        (
            Format::Line,
            [Column { kind: ColumnType::Text, nullable: false, is_named, rules, .. }],
        ) if *is_named && *rules == Rules::default() => columns,
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
    Ok(columns)
}

impl Contract {
    /// The contract of a stream whose configuration has none: whole lines as text.
    pub fn lines() -> Self {
        Self {
            version: FIRST_VERSION,
            format: Format::Line,
            columns: vec![Column::new("line", ColumnType::Text, false)],
            time: None,
            key: Vec::new(),
            unknown: UnknownColumns::Keep,
            reading: Reading::default(),
            time_bounds: TimeBounds::default(),
        }
    }

    /// Whether fields that are no column are kept in [`REST`].
    pub fn keeps_rest(&self) -> bool {
        self.format != Format::Line && self.unknown == UnknownColumns::Keep
    }

    /// Whether a row says what happened to it, in [`system::OP`].
    pub fn has_changes(&self) -> bool {
        self.format == Format::Changes
    }

    /// Columns of refined rows: the contract's, [`REST`] where kept, then [`system::ALL`], and [`system::OP`] where rows change.
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> =
            self.columns.iter().map(|column| self.field_of(column)).collect();
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
        if self.has_changes() {
            fields.push(Field::new(system::OP, DataType::Utf8, false));
        }
        Schema::new(fields).into()
    }

    /// Rows of deletes hold what is known of what is gone, so no column of changes is always there: what the contract says of
    /// it stands beside.
    fn field_of(&self, column: &Column) -> Field {
        let mut notes = HashMap::new();
        if let ColumnType::Varchar(most) = column.kind {
            notes.insert(MOST_CHARACTERS.to_owned(), most.to_string());
        }
        if self.has_changes() && !column.nullable {
            notes.insert(NOT_NULL.to_owned(), "true".to_owned());
        }
        let place = self.key.iter().position(|name| *name == column.name);
        if let Some(place) = place.filter(|_| self.has_changes()) {
            notes.insert(KEY_COLUMNS.to_owned(), format!("{}/{}", place + 1, self.key.len()));
        }
        let nullable = column.nullable || self.has_changes();
        Field::new(&column.name, column.kind.arrow(), nullable).with_metadata(notes)
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
pub fn in_order<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<(String, ColumnConfig)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, ColumnConfig)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of column names and types")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((name, Written(column))) = map.next_entry()? {
                pairs.push((name, column));
            }
            Ok(pairs)
        }
    }
    from.deserialize_map(Pairs)
}

/// Writes pairs as the table that [`in_order`] reads.
fn as_table<S: Serializer>(columns: &[(String, ColumnConfig)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(columns.iter().map(|(name, column)| (name, column)))
}
