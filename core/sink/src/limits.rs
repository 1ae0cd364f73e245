//! What a text column of an existing table holds, asked of each value before the server is.
//!
//! In: the limits that the server's catalog names, a batch. Out: rows with a text that is longer, by column.
//! Why here: both kinds of server cut blanks off the end of a text that is too long, without an error, and so would change it;
//! and a refusal by the server costs the whole batch another attempt.

use arrow_array::Array as _;

use crate::columns::{Columns, Values};

/// The most that a text column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Characters(usize),
    Bytes(usize),
}

impl Limit {
    fn keeps(self, text: &str) -> bool {
        match self {
            Self::Characters(most) => text.len() <= most || text.chars().count() <= most,
            Self::Bytes(most) => text.len() <= most,
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Characters(most) | Self::Bytes(most) => most,
        }
    }
}

/// Rows that have a longer text, with the reason; `limits` are those of the columns, in their order.
pub(crate) fn too_long(columns: &Columns<'_>, limits: &[Option<Limit>]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for ((name, values), limit) in columns.named().zip(limits) {
        let (Values::Text(array), Some(limit)) = (values, limit) else { continue };
        if array.value_data().len() <= limit.most() {
            continue;
        }
        let rows =
            (0..array.len()).filter(|&row| array.is_valid(row) && !limit.keeps(array.value(row)));
        let (most, unit) = match limit {
            Limit::Characters(most) => (most, "characters"),
            Limit::Bytes(most) => (most, "bytes"),
        };
        found.extend(rows.map(|row| {
            (
                row,
                format!("column {name}: it is longer than the {most} {unit} of the table's column"),
            )
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn a_length_is_counted_as_the_column_counts_it() {
        assert!(Limit::Characters(2).keeps("가람"));
        assert!(!Limit::Characters(2).keeps("가람 "));
        assert!(Limit::Bytes(6).keeps("가람"));
        assert!(!Limit::Bytes(5).keeps("가람"));
    }
}
