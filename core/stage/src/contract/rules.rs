//! What a column has beyond its type: where its value comes from, what stands in for it, what it may be.
//!
//! In: `name = { type = "...", from = ..., default = ..., min = ... }`. Out: [`Rules`], in which every rule means something
//! for its column. Not here: whether a literal fits the column's type, whether a pattern can be read (`refine`, which has
//! the libraries for it).

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, de};

use super::{Column, ColumnType, ContractError, Format, OneOrMany};

/// A column as written: its type alone, or a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnConfig {
    /// `"type"` or `"type not null"`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the value stands instead of under the column's name: a field's name, or for `json` the JSON pointer of a nested
    /// one (`"/order/price"`, `"/items/0/id"`), or several of these. Two of them in one record are an error of that record.
    #[serde(default)]
    pub from: Option<OneOrMany>,
    /// How much a value may differ in kind. Default `strict`.
    #[serde(default)]
    pub cast: Cast,
    /// The value of every row; nothing is read. Default: none.
    #[serde(default)]
    pub constant: Option<Scalar>,
    /// Stands in for an absent or null value. Default: none.
    #[serde(default)]
    pub default: Option<Scalar>,
    /// Smallest and largest allowed value of a number, date or timestamp.
    #[serde(default)]
    pub min: Option<Scalar>,
    #[serde(default)]
    pub max: Option<Scalar>,
    /// A regular expression that the text must match; `^` and `$` make it match the whole.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The only values allowed.
    #[serde(default)]
    pub one_of: Vec<Scalar>,
    /// What happens to a value that breaks type or rule. Default `quarantine`.
    #[serde(default)]
    pub on_breach: OnBreach,
}

/// How much a value may differ in kind from its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cast {
    /// Not at all.
    #[default]
    Strict,
    /// Where the meaning is exact: numbers and times in strings, whole numbers written `1.0`, yes and no, blanks around.
    Lenient,
    /// A text column takes any JSON value as the text it was written as.
    Json,
}

/// What happens to a value that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBreach {
    /// The record is put aside.
    #[default]
    Quarantine,
    /// The value becomes null.
    Null,
    /// The column's default stands in for it.
    Default,
}

/// A literal of the configuration, as text. Dates and times stand in quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scalar(pub String);

/// The rules of a column, as far as they can be checked without reading values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    pub cast: Cast,
    pub constant: Option<String>,
    pub default: Option<String>,
    pub min: Option<String>,
    pub max: Option<String>,
    pub pattern: Option<String>,
    pub one_of: Vec<String>,
    pub on_breach: OnBreach,
}

/// How deep a JSON pointer may go.
const DEEPEST: usize = 16;

impl ColumnConfig {
    /// Of this type, without rules.
    pub fn of_type(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            from: None,
            cast: Cast::Strict,
            constant: None,
            default: None,
            min: None,
            max: None,
            pattern: None,
            one_of: Vec::new(),
            on_breach: OnBreach::Quarantine,
        }
    }

    pub(super) fn check(self, name: &str, format: Format) -> Result<Column, ContractError> {
        let (kind, nullable) = ColumnType::parse_column(name, &self.kind)?;
        let refuse = |rule, why| Err(ContractError::Rule { column: name.into(), rule, why });
        let text = |scalar: Option<Scalar>| scalar.map(|Scalar(text)| text);
        let is_text = matches!(kind, ColumnType::Text | ColumnType::Varchar(_));
        let has_range = self.min.is_some() || self.max.is_some();
        let has_rule = has_range || self.pattern.is_some() || !self.one_of.is_empty();
        if self.constant.is_some() && (self.from.is_some() || self.default.is_some() || has_rule) {
            return refuse("constant", "stands alone: nothing is read, so nothing is checked");
        }
        if has_range && (is_text || kind == ColumnType::Boolean) {
            return refuse("min or max", "is for numbers, dates and timestamps");
        }
        if self.pattern.is_some() && !is_text {
            return refuse("pattern", "is for text and varchar");
        }
        if self.cast == Cast::Json && (kind != ColumnType::Text || !format.has_objects()) {
            return refuse("cast = \"json\"", "is for a text column of format json");
        }
        match self.on_breach {
            OnBreach::Null if !nullable => {
                return refuse("on_breach = \"null\"", "contradicts \"not null\"");
            }
            OnBreach::Default if self.default.is_none() => {
                return refuse("on_breach = \"default\"", "needs a default");
            }
            _ => {}
        }
        let is_named = self.from.is_none() && self.constant.is_none();
        let rules = Rules {
            cast: self.cast,
            constant: text(self.constant),
            default: text(self.default),
            min: text(self.min),
            max: text(self.max),
            pattern: self.pattern,
            one_of: self.one_of.into_iter().map(|Scalar(text)| text).collect(),
            on_breach: self.on_breach,
        };
        Ok(Column { name: name.into(), kind, nullable, is_named, rules })
    }
}

/// The segments of a JSON pointer (RFC 6901); `None` for the name of a field.
pub(super) fn pointer(column: &str, text: &str) -> Result<Option<Vec<String>>, ContractError> {
    let Some(inside) = text.strip_prefix('/') else { return Ok(None) };
    let segments: Vec<String> =
        inside.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    if segments.len() > DEEPEST {
        return Err(ContractError::Deep { column: column.into(), deepest: DEEPEST });
    }
    Ok(Some(segments))
}

/// A column as it stands in the table: a text or a table.
pub(super) struct Written(pub(super) ColumnConfig);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type like \"bigint not null\", or a table like { type = \"bigint\", min = 0 }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written(ColumnConfig::of_type(text)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                ColumnConfig::deserialize(MapAccessDeserializer::new(map)).map(Written)
            }
        }
        from.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Literal;
        impl Visitor<'_> for Literal {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false; dates and times stand in quotes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }
        }
        from.deserialize_any(Literal)
    }
}
