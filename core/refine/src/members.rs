//! Splits a JSON object into its members without touching the values.
//!
//! In: the text of one record. Out: for each column of the contract the raw text of its value, borrowed from the record,
//! and what the contract does not know, by its policy. Promise: one pass, no allocation for the usual record (names
//! without escapes); the whole text is checked for JSON syntax; nesting costs no stack. The usual record is read by [`scan`];
//! what that gives up on is serde_json's, whose word on JSON is final, and its errors are what the operator reads.
//! A member that occurs twice is refused: which of two values was meant cannot be known.
//! Values inside of nested objects: [`nested`].
//! Not here: what a value means ([`crate::value`]).

mod nested;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use garam_stage::{QuarantineReason, UnknownColumns};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::names::{Branch, Names};
use crate::reject::{Reject, shown};

/// The members of one record. Reused from record to record.
#[derive(Debug, Default)]
pub(crate) struct Members<'a> {
    /// By column; `None` when absent.
    values: Vec<Option<&'a str>>,
    /// Members that are no column, where they are kept.
    rest: Vec<(Cow<'a, str>, &'a str)>,
    /// The first member that occurred twice.
    twice: Option<Cow<'a, str>>,
    /// The first member that is no column, where that is an error.
    unknown: Option<Cow<'a, str>>,
    /// The first nested value that is not of the shape in which columns lie.
    shape: Option<String>,
}

impl<'a> Members<'a> {
    /// Splits a record. After an error the content is undefined; the next call clears it.
    pub(crate) fn split(&mut self, names: &Names, text: &'a str) -> Result<(), Reject> {
        self.clear(names);
        if self.usual(names, text).is_none() {
            self.clear(names);
            self.by_serde(names, text)?;
        }
        if self.twice.is_none() {
            self.twice = self.repeated_rest();
        }
        if let Some(name) = &self.twice {
            let detail = format!("member {:?} occurs twice", shown(name));
            return Err(Reject::new(QuarantineReason::Shape, detail));
        }
        if let Some(detail) = self.shape.take() {
            return Err(Reject::new(QuarantineReason::Shape, detail));
        }
        if let Some(name) = &self.unknown {
            let detail = format!("member {:?} is no column of the contract", shown(name));
            return Err(Reject::new(QuarantineReason::UnknownColumn, detail));
        }
        Ok(())
    }

    fn clear(&mut self, names: &Names) {
        self.values.clear();
        self.values.resize(names.columns.len(), None);
        self.rest.clear();
        self.twice = None;
        self.unknown = None;
        self.shape = None;
    }

    /// The members of a record with which nothing is wrong. `None`: it is not certain that this is one, and the content is
    /// undefined.
    fn usual(&mut self, names: &Names, text: &'a str) -> Option<()> {
        let mut hint = 0;
        scan::members(text, |name, value| match names.find(hint, name) {
            Some(column) => {
                hint = column + 1;
                let slot = self.values.get_mut(column)?;
                slot.replace(value).is_none().then_some(())
            }
            None => match (names.branch(name), names.unknown) {
                (Some(branch), _) => nested::enter(self, names, branch, value).ok(),
                (None, UnknownColumns::Keep) => {
                    self.rest.push((Cow::Borrowed(name), value));
                    Some(())
                }
                (None, UnknownColumns::Drop) => Some(()),
                (None, UnknownColumns::Quarantine) => None,
            },
        })
    }

    /// The members of any record, or what is wrong with it.
    fn by_serde(&mut self, names: &Names, text: &'a str) -> Result<(), Reject> {
        let mut json = serde_json::Deserializer::from_str(text);
        let object = Object { members: self, names };
        json.deserialize_map(object)
            .and_then(|()| json.end())
            .map_err(|error| why_no_object(text, &error))
    }

    /// The raw value of a column, if the member is there.
    pub(crate) fn value(&self, column: usize) -> Option<&'a str> {
        self.values.get(column).copied().flatten()
    }

    /// Keeps the value of a column that something else stands in for, where a member of that name is not kept already.
    pub(crate) fn keep(&mut self, names: &Names, column: usize) {
        let (name, value) = (names.columns.get(column), self.value(column));
        if let (UnknownColumns::Keep, Some(name), Some(value)) = (names.unknown, name, value)
            && !self.rest.iter().any(|(known, _)| known == name)
        {
            self.rest.push((Cow::Owned(name.clone()), value));
        }
    }

    /// The members that are no column, as the text of an object; `None` when there are none. Values stay byte for byte.
    pub(crate) fn rest(&self) -> Option<String> {
        if self.rest.is_empty() {
            return None;
        }
        let mut out = String::from("{");
        for (i, (name, value)) in self.rest.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            match name {
                // It had no escape, so it stands between quotes as it came.
                Cow::Borrowed(name) => {
                    out.push('"');
                    out.push_str(name);
                    out.push('"');
                }
                Cow::Owned(name) => {
                    out.push_str(&serde_json::Value::from(name.as_str()).to_string())
                }
            }
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        Some(out)
    }

    /// A name that occurs twice among the kept members. Sorting bounds the work for hostile records.
    fn repeated_rest(&self) -> Option<Cow<'a, str>> {
        if self.rest.len() < 2 {
            return None;
        }
        let mut names: Vec<&Cow<'a, str>> = self.rest.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some((*a).clone()),
            _ => None,
        })
    }
}

/// Tells bad JSON from good JSON of another shape. serde_json stops at the first wrong type, so the text is walked
/// again to its end.
pub(crate) fn why_no_object(text: &str, error: &serde_json::Error) -> Reject {
    if text.trim_ascii().is_empty() {
        return Reject::new(QuarantineReason::Syntax, "empty record, expected a JSON object");
    }
    if text.bytes().any(|b| b == 0) {
        return Reject::new(QuarantineReason::Syntax, "NUL byte");
    }
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => {
            let detail = format!("record is {}, expected an object", kind_of(value.get()));
            Reject::new(QuarantineReason::Shape, detail)
        }
        Err(syntax) => {
            let error = if error.is_data() { &syntax } else { error };
            Reject::new(QuarantineReason::Syntax, format!("invalid JSON: {error}"))
        }
    }
}

/// What a raw value is, for people.
pub(crate) fn kind_of(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

struct Object<'m, 'a, 'n> {
    members: &'m mut Members<'a>,
    names: &'n Names,
}

impl<'a> Visitor<'a> for Object<'_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { members, names } = self;
        let mut hint = 0;
        while let Some(name) = map.next_key_seed(NameSeed { names, hint })? {
            match (name, names.unknown) {
                (Name::Column(column), _) => {
                    hint = column + 1;
                    let value: &'a RawValue = map.next_value()?;
                    if let Some(slot) = members.values.get_mut(column)
                        && slot.replace(value.get()).is_some()
                    {
                        members.twice = names.columns.get(column).cloned().map(Cow::Owned);
                    }
                }
                (Name::Branch(branch), _) => {
                    let value: &'a RawValue = map.next_value()?;
                    nested::enter(members, names, branch, value.get()).map_err(A::Error::custom)?;
                }
                (Name::Unknown(name), UnknownColumns::Keep) => {
                    let value: &'a RawValue = map.next_value()?;
                    members.rest.push((name, value.get()));
                }
                (Name::Unknown(_), UnknownColumns::Drop) => {
                    map.next_value::<IgnoredAny>()?;
                }
                (Name::Unknown(name), UnknownColumns::Quarantine) => {
                    map.next_value::<IgnoredAny>()?;
                    members.unknown.get_or_insert(name);
                }
            }
        }
        Ok(())
    }
}

enum Name<'a, 'n> {
    Column(usize),
    Branch(&'n Branch),
    Unknown(Cow<'a, str>),
}

struct NameSeed<'n> {
    names: &'n Names,
    hint: usize,
}

impl<'n> NameSeed<'n> {
    fn find<'a>(&self, name: &str, unknown: impl FnOnce() -> Cow<'a, str>) -> Name<'a, 'n> {
        match self.names.find(self.hint, name) {
            Some(column) => Name::Column(column),
            None => {
                let branch = self.names.branch(name);
                branch.map_or_else(|| Name::Unknown(unknown()), Name::Branch)
            }
        }
    }
}

impl<'a, 'n> DeserializeSeed<'a> for NameSeed<'n> {
    type Value = Name<'a, 'n>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Name<'a, 'n>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a, 'n> Visitor<'a> for NameSeed<'n> {
    type Value = Name<'a, 'n>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Name<'a, 'n>, E> {
        Ok(self.find(name, || Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'a, 'n>, E> {
        Ok(self.find(name, || Cow::Owned(name.to_owned())))
    }
}
