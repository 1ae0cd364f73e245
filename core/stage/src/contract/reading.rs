//! How a record is taken apart into named fields, before its values are looked at.
//!
//! In: the keys of `[stream.NAME.contract]` that belong to a format. Out: [`Reading`], in which every key means something.
//! Not here: whether a pattern or a time format can be read at all (`refine`, which has the libraries for it).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rules::pointer;
use super::{Column, ColumnConfig, ContractConfig, ContractError, OneOrMany};

/// What a record looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The whole line is one text.
    Line,
    /// A JSON object.
    Json,
    /// `key=value key="quoted value"`.
    Logfmt,
    /// RFC 4180, one record a line.
    Csv,
    /// Cells between tabs, with `\t \n \r \\` and `\N` for null.
    Tsv,
    /// The access log of Apache and nginx, NCSA common log format.
    Common,
    /// The same with referer and user agent, and whatever a site appends.
    Combined,
    /// RFC 5424, RFC 3164, and what rsyslog writes into files.
    Syslog,
    /// What container runtimes write: time, stream, tag, text.
    Cri,
    /// A regular expression with named groups.
    Regex,
    /// An expression put together from named patterns: `%{IP:client} %{NUMBER:took}`.
    Grok,
    /// A row change of a database: a JSON object with `op`, `before` and `after`.
    Changes,
}

/// The settings of a format.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Another name of a field, and the column it stands for.
    pub aliases: Vec<(String, String)>,
    /// The members on the way to a nested value, at least two, and the column it stands for.
    pub paths: Vec<(Vec<String>, String)>,
    pub time_format: Option<String>,
    /// Seconds east of UTC of times that name no offset, where the contract says so.
    pub zone_seconds: Option<i32>,
    /// Names of the cells, in order.
    pub fields: Vec<String>,
    pub delimiter: Option<u8>,
    pub header: bool,
    pub pattern: Option<String>,
    /// Patterns that the pattern may refer to, beside the known ones: name and text.
    pub patterns: Vec<(String, String)>,
    /// The tables whose changes are taken; none: all.
    pub tables: Vec<String>,
}

impl Format {
    /// Whether a record holds JSON objects, whose values may be nested.
    pub(super) fn has_objects(self) -> bool {
        matches!(self, Self::Json | Self::Changes)
    }

    /// The columns, and the time column, of a format whose fields are always the same.
    pub(super) fn usual(self) -> Option<(&'static [(&'static str, &'static str)], &'static str)> {
        match self {
            Self::Common => Some((ACCESS.get(..COMMON)?, "time_local")),
            Self::Combined => Some((ACCESS, "time_local")),
            Self::Syslog => Some((SYSLOG, "timestamp")),
            Self::Cri => Some((CRI, "time")),
            _ => None,
        }
    }
}

const ACCESS: &[(&str, &str)] = &[
    ("remote_addr", "text not null"),
    ("remote_user", "text"),
    ("time_local", "timestamp not null"),
    ("request", "text"),
    ("method", "text"),
    ("path", "text"),
    ("protocol", "text"),
    ("status", "smallint not null"),
    ("body_bytes_sent", "bigint"),
    ("http_referer", "text"),
    ("http_user_agent", "text"),
];
/// How many of them the common format has.
const COMMON: usize = 9;

const SYSLOG: &[(&str, &str)] = &[
    ("facility", "text"),
    ("severity", "text"),
    ("timestamp", "timestamp"),
    ("hostname", "text"),
    ("app_name", "text"),
    ("proc_id", "text"),
    ("msg_id", "text"),
    ("structured_data", "text"),
    ("message", "text"),
];

const CRI: &[(&str, &str)] = &[
    ("time", "timestamp not null"),
    ("stream", "text not null"),
    ("logtag", "text not null"),
    ("message", "text not null"),
];

impl Reading {
    /// Takes what belongs to the format out of the configuration.
    pub(super) fn check(
        config: &mut ContractConfig,
        given: &[(String, ColumnConfig)],
        columns: &[Column],
    ) -> Result<Self, ContractError> {
        let format = config.format;
        let only = |key, given: bool, formats: &[Format]| {
            if given && !formats.contains(&format) {
                return Err(ContractError::NotForFormat { key, format });
            }
            Ok(())
        };
        only("fields", !config.fields.is_empty(), &[Format::Csv, Format::Tsv])?;
        only("header", config.header, &[Format::Csv, Format::Tsv])?;
        only("delimiter", config.delimiter.is_some(), &[Format::Csv])?;
        only("pattern", config.pattern.is_some(), &[Format::Regex, Format::Grok])?;
        only("patterns", !config.patterns.is_empty(), &[Format::Grok])?;
        only("tables", !config.tables.is_empty(), &[Format::Changes])?;
        if format == Format::Line && !config.aliases.is_empty() {
            return Err(ContractError::NotForFormat { key: "aliases", format });
        }
        match (format, &config.pattern) {
            (Format::Regex, None) => return Err(ContractError::NoPattern),
            (Format::Grok, None) => return Err(ContractError::NoGrok),
            _ => {}
        }
        let fields = match std::mem::take(&mut config.fields) {
            none if none.is_empty() => first_names(given, columns),
            fields => fields,
        };
        unique("field", fields.iter())?;
        let others = aliases(std::mem::take(&mut config.aliases), given, columns)?;
        let (aliases, paths) = told_apart(others, format)?;
        let named = columns.iter().filter(|column| column.is_named).map(|column| &column.name);
        unique("name", named.chain(aliases.iter().map(|(alias, _)| alias)))?;
        apart(&paths, &aliases, columns)?;
        Ok(Self {
            aliases,
            paths,
            time_format: config.time_format.take(),
            zone_seconds: config.zone.as_deref().map(zone).transpose()?,
            fields: if matches!(format, Format::Csv | Format::Tsv) { fields } else { Vec::new() },
            delimiter: config.delimiter.map(delimiter).transpose()?,
            header: config.header,
            pattern: config.pattern.take(),
            patterns: std::mem::take(&mut config.patterns).into_iter().collect(),
            tables: std::mem::take(&mut config.tables),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "line",
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Common => "common",
            Self::Combined => "combined",
            Self::Syslog => "syslog",
            Self::Cri => "cri",
            Self::Regex => "regex",
            Self::Grok => "grok",
            Self::Changes => "changes",
        })
    }
}

/// Under which name each column's field comes first: the names of cells.
fn first_names(given: &[(String, ColumnConfig)], columns: &[Column]) -> Vec<String> {
    let from = |name: &String| {
        let column = given.iter().find(|(other, _)| other == name);
        column.and_then(|(_, column)| column.from.clone()?.into_vec().into_iter().next())
    };
    let read = columns.iter().filter(|column| column.rules.constant.is_none());
    read.map(|column| from(&column.name).unwrap_or_else(|| column.name.clone())).collect()
}

/// All other names and pointers, each with its column.
fn aliases(
    also: std::collections::BTreeMap<String, OneOrMany>,
    given: &[(String, ColumnConfig)],
    columns: &[Column],
) -> Result<Vec<(String, String)>, ContractError> {
    let instead = given.iter().filter_map(|(name, column)| Some((name, column.from.clone()?)));
    let mut pairs = Vec::new();
    for (column, names) in instead {
        pairs.extend(names.into_vec().into_iter().map(|name| (name, column.clone())));
    }
    for (column, names) in also {
        match columns.iter().find(|known| known.name == column) {
            None => return Err(ContractError::NoSuchColumn { role: "aliases", column }),
            Some(known) if known.rules.constant.is_some() => {
                let why = "stands alone: nothing is read, so it has no alias";
                return Err(ContractError::Rule { column, rule: "constant", why });
            }
            Some(_) => {}
        }
        pairs.extend(names.into_vec().into_iter().map(|name| (name, column.clone())));
    }
    Ok(pairs)
}

type Named = Vec<(String, String)>;
type Paths = Vec<(Vec<String>, String)>;

/// Names of fields, and ways into nested objects. A pointer of one segment is a name.
fn told_apart(others: Named, format: Format) -> Result<(Named, Paths), ContractError> {
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for (text, column) in others {
        match pointer(&column, &text)?.filter(|_| format.has_objects()) {
            None => names.push((text, column)),
            Some(mut way) if way.len() == 1 => names.push((way.remove(0), column)),
            Some(way) => paths.push((way, column)),
        }
    }
    Ok((names, paths))
}

/// No two columns read one value, or one a part of another's.
fn apart(paths: &Paths, aliases: &Named, columns: &[Column]) -> Result<(), ContractError> {
    let whole = |name: &String| {
        let alias = || aliases.iter().find(|(alias, _)| alias == name).map(|(_, column)| column);
        let own = columns.iter().find(|column| column.is_named && column.name == *name);
        own.map(|column| &column.name).or_else(alias)
    };
    for (i, (way, inner)) in paths.iter().enumerate() {
        let others = paths.iter().enumerate().filter(|(j, _)| *j != i);
        let outer = others.map(|(_, other)| other).find(|(other, _)| way.starts_with(other));
        let outer = outer.map(|(_, column)| column).or_else(|| way.first().and_then(whole));
        if let Some(outer) = outer {
            let (inner, outer) = (inner.clone(), outer.clone());
            return Err(ContractError::Inside { inner, outer });
        }
    }
    Ok(())
}

fn unique<'a>(
    role: &'static str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), ContractError> {
    let mut names: Vec<&String> = names.collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair.first() == pair.last());
    match twice.and_then(|pair| pair.first()) {
        Some(name) => Err(ContractError::Twice { role, name: (*name).clone() }),
        None => Ok(()),
    }
}

fn delimiter(found: char) -> Result<u8, ContractError> {
    u8::try_from(found)
        .ok()
        .filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0))
        .ok_or(ContractError::Delimiter { found })
}

/// Seconds east of UTC.
fn zone(text: &str) -> Result<i32, ContractError> {
    let refused = || ContractError::Zone { text: text.to_owned() };
    if matches!(text, "UTC" | "Z") {
        return Ok(0);
    }
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(refused()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(refused)?;
    let number = |text: &str, below: i32| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| digits && *number < below).ok_or_else(refused)
    };
    Ok(sign * (number(hours, 24)? * 3600 + number(minutes, 60)? * 60))
}
