//! What every report says of the records, in one form: the errors by id, and the table for people.
//!
//! In: the oracle's judgements. Out: fields of the one object, lines of the table. Not here: what else a scenario counts, and
//! whether it is good.

use std::fmt;

use serde::Serialize;

use crate::oracle::Judgement;

/// Records that are not as they should be, summed over all destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Errors {
    pub(crate) lost: u64,
    duplicated: u64,
    reordered: u64,
    altered: u64,
    misjudged: u64,
}

impl Errors {
    /// What the oracle found in one destination.
    pub(crate) fn add(&mut self, found: &Judgement) {
        self.lost += found.lost;
        self.duplicated += found.duplicated;
        self.reordered += found.reordered;
        self.altered += found.altered;
        self.misjudged += found.misjudged;
    }

    pub(crate) fn total(&self) -> u64 {
        self.rows().iter().map(|(_, count)| count).sum()
    }

    /// As lines of a table.
    pub(crate) fn rows(&self) -> [(&'static str, u64); 5] {
        let Self { lost, duplicated, reordered, altered, misjudged } = *self;
        [
            ("lost", lost),
            ("duplicated", duplicated),
            ("reordered", reordered),
            ("altered", altered),
            ("misjudged", misjudged),
        ]
    }
}

/// The counts of a run, and what speaks against it.
pub(crate) fn table(
    f: &mut fmt::Formatter<'_>,
    rows: &[(&str, u64)],
    why: &[String],
) -> fmt::Result {
    for (name, value) in rows {
        writeln!(f, "  {name:<16} {value:>10}")?;
    }
    why.iter().try_for_each(|why| writeln!(f, "  ! {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_keeps_its_name_and_is_summed() {
        let found = Judgement {
            lost: 1,
            duplicated: 2,
            reordered: 3,
            altered: 4,
            misjudged: 5,
            ..Judgement::default()
        };
        let mut errors = Errors::default();
        errors.add(&found);
        errors.add(&found);
        let object = serde_json::to_value(errors).unwrap();
        for (name, value) in errors.rows() {
            assert_eq!(object[name], value, "{name}");
        }
        assert_eq!(errors.total(), 30);
        assert_eq!(errors.rows().map(|(_, value)| value), [2, 4, 6, 8, 10]);
    }
}
