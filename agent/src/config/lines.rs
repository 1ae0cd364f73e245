//! What a `[[file]]` table may ask for beyond plain lines, as written.
//!
//! In: the keys `container`, `multiline`, `mask`, `encoding`, `skip_nul`. Out: [`Rules`], or which key is wrong and why.
//! Promise: a table that asks for none of them has no rules, and its lines travel in blocks nobody looks into.

use std::time::Duration;

use serde::Deserialize;

use crate::lines::{Container, Encoding, Mask, Multiline, Rules};

/// A part of `[[file]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultilineTable {
    /// A ready rule: `java`, `python` or `go`.
    pub rule: Option<String>,
    /// A line that matches begins a record.
    pub start: Option<String>,
    /// A line that matches belongs to the record before it.
    #[serde(rename = "continue")]
    pub continued: Option<String>,
    /// After how long a quiet the last record is shipped although more lines could belong to it, 50 ms to 5 min.
    /// Default 1 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
}

/// One entry of `mask`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskTable {
    /// What is replaced, as a regular expression.
    pub pattern: String,
    /// What stands in its place. Default `***`.
    #[serde(default = "stars")]
    pub replace: String,
}

fn stars() -> String {
    "***".into()
}

/// Which key is wrong, why, and what to do.
pub(super) struct Wrong {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) action: &'static str,
}

/// Builds the rules; `None` when plain lines are all that is asked for.
pub(super) fn rules(
    container: Option<Container>,
    multiline: Option<MultilineTable>,
    masks: &[MaskTable],
    encoding: Encoding,
    skip_nul: bool,
) -> Result<Option<Rules>, Wrong> {
    let timeout = multiline.as_ref().and_then(|table| table.timeout);
    let timeout = timeout.unwrap_or(Duration::from_secs(1));
    if !(Duration::from_millis(50)..=Duration::from_secs(300)).contains(&timeout) {
        let problem = format!("{timeout:?} is out of bounds");
        return Err(Wrong { key: "multiline.timeout", problem, action: "choose 50ms to 5m" });
    }
    let masks = masks.iter().map(|mask| Mask::new(&mask.pattern, &mask.replace));
    let rules = Rules {
        container,
        multiline: multiline.map(group).transpose()?,
        timeout,
        masks: masks.collect::<Result<_, _>>().map_err(|error| Wrong {
            key: "mask",
            problem: error.to_string(),
            action: "correct the pattern",
        })?,
        encoding,
        skip_nul,
    };
    if skip_nul && encoding.unit() > 1 {
        let problem = "NUL bytes are parts of characters in this encoding".into();
        return Err(Wrong { key: "skip_nul", problem, action: "leave one of them out" });
    }
    Ok((!rules.is_plain()).then_some(rules))
}

fn group(table: MultilineTable) -> Result<Multiline, Wrong> {
    let rule = match (&table.rule, &table.start, &table.continued) {
        (Some(rule), None, None) => Multiline::ready(rule),
        (None, Some(start), None) => Multiline::start(start),
        (None, None, Some(more)) => Multiline::continued(more),
        _ => {
            let problem = "names none or several of rule, start and continue".into();
            return Err(Wrong { key: "multiline", problem, action: "name exactly one" });
        }
    };
    rule.map_err(|error| Wrong {
        key: "multiline",
        problem: error.to_string(),
        action: "correct the rule",
    })
}
