//! A regular expression whose named groups are the fields, as it is or put together from patterns ([`super::grok`]).
//!
//! The expression is tried once per record and must match; anchor it with `^` and `$` to have it match the whole. A field
//! whose groups take no part in the match is null. Matching takes time linear in the record, whatever the expression.

use std::borrow::Cow;

use garam_stage::{Column, Contract, Format, QuarantineReason};
use regex::{Regex, RegexBuilder};

use super::grok::{self, Expanded};
use crate::error::Unusable;
use crate::names::Names;
use crate::reject::Reject;

/// What a compiled expression may take, in bytes.
const LIMIT: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    fields: Vec<Field>,
}

/// A field and the numbers of its groups: one that stands in several branches has several, of which one takes part.
#[derive(Debug)]
struct Field {
    name: String,
    groups: Vec<usize>,
}

impl Pattern {
    pub(super) fn of(contract: &Contract, names: &Names) -> Result<Self, Unusable> {
        let reading = &contract.reading;
        let text = reading.pattern.as_deref().unwrap_or_default();
        let Expanded { regex, named } = match contract.format {
            Format::Grok => grok::expand(text, &reading.patterns)?,
            _ => Expanded { regex: text.to_owned(), named: Vec::new() },
        };
        let regex = RegexBuilder::new(&regex).size_limit(LIMIT).build()?;
        let fields = fields_of(&regex, &named);
        if fields.is_empty() {
            return Err(Unusable::NoGroup);
        }
        let has_group = |column: usize| {
            fields.iter().any(|field| names.find(column, &field.name) == Some(column))
        };
        let can_miss = |column: &Column| {
            let rules = &column.rules;
            column.nullable || rules.default.is_some() || rules.constant.is_some()
        };
        let mut needed = contract.columns.iter().enumerate().filter(|(_, c)| !can_miss(c));
        match needed.find(|(at, _)| !has_group(*at)) {
            Some((_, column)) => Err(Unusable::NoGroupFor { column: column.name.clone() }),
            None => Ok(Self { regex, fields }),
        }
    }

    pub(super) fn split<'a>(
        &self,
        text: &'a str,
        put: &mut impl FnMut(&str, Option<Cow<'a, str>>) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let Some(captures) = self.regex.captures(text) else {
            return Err(Reject::new(QuarantineReason::Shape, "the pattern does not match"));
        };
        for Field { name, groups } in &self.fields {
            let found = groups.iter().find_map(|number| captures.get(*number));
            put(name, found.map(|found| Cow::Borrowed(found.as_str())))?;
        }
        Ok(())
    }
}

/// The named groups, by the names that `named` has for them.
fn fields_of(regex: &Regex, named: &[(String, String)]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for (number, group) in regex.capture_names().enumerate() {
        let Some(group) = group else { continue };
        let known = named.iter().find(|(own, _)| own == group);
        let name = known.map_or(group, |(_, field)| field.as_str());
        match fields.iter_mut().find(|field| field.name == name) {
            Some(field) => field.groups.push(number),
            None => fields.push(Field { name: name.to_owned(), groups: vec![number] }),
        }
    }
    fields
}
