//! A regular expression whose named groups are the fields.
//!
//! The expression is tried once per record and must match; anchor it with `^` and `$` to have it match the whole. A group
//! that takes no part in the match is null. Matching takes time linear in the record, whatever the expression.

use std::borrow::Cow;

use garam_stage::{Column, Contract, QuarantineReason};
use regex::{Regex, RegexBuilder};

use crate::error::Unusable;
use crate::names::Names;
use crate::reject::Reject;

/// What a compiled expression may take, in bytes.
const LIMIT: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// Number and name of each group that has one.
    groups: Vec<(usize, String)>,
}

impl Pattern {
    pub(super) fn of(contract: &Contract, names: &Names) -> Result<Self, Unusable> {
        let reading = &contract.reading;
        let text = reading.pattern.as_deref().unwrap_or_default();
        let regex = RegexBuilder::new(text).size_limit(LIMIT).build()?;
        let groups = regex.capture_names().enumerate();
        let groups: Vec<_> =
            groups.filter_map(|(number, name)| Some((number, name?.to_owned()))).collect();
        if groups.is_empty() {
            return Err(Unusable::NoGroup);
        }
        let has_group = |column: usize| {
            groups.iter().any(|(_, group)| names.find(column, group) == Some(column))
        };
        let can_miss = |column: &Column| {
            let rules = &column.rules;
            column.nullable || rules.default.is_some() || rules.constant.is_some()
        };
        let mut needed = contract.columns.iter().enumerate().filter(|(_, c)| !can_miss(c));
        match needed.find(|(at, _)| !has_group(*at)) {
            Some((_, column)) => Err(Unusable::NoGroupFor { column: column.name.clone() }),
            None => Ok(Self { regex, groups }),
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
        for (number, name) in &self.groups {
            put(name, captures.get(*number).map(|found| Cow::Borrowed(found.as_str())))?;
        }
        Ok(())
    }
}
