//! The names a contract knows, and what is done with others.
//!
//! In: the name of a field. Out: the column it stands for. Not here: what a value means.

use garam_stage::{Contract, UnknownColumns};

/// The names to look for and what to do with others.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) columns: Vec<String>,
    /// Other names, with the columns they stand for.
    aliases: Vec<(String, usize)>,
    pub(crate) unknown: UnknownColumns,
}

impl Names {
    pub(crate) fn of(contract: &Contract) -> Self {
        let columns: Vec<String> =
            contract.columns.iter().map(|column| column.name.clone()).collect();
        let aliases = contract.reading.aliases.iter().filter_map(|(alias, column)| {
            Some((alias.clone(), columns.iter().position(|known| known == column)?))
        });
        Self { aliases: aliases.collect(), columns, unknown: contract.unknown }
    }

    /// The column of this name. Records of one stream list their fields in one order, so the column after the last one
    /// found is tried first.
    pub(crate) fn find(&self, hint: usize, name: &str) -> Option<usize> {
        if self.columns.get(hint).is_some_and(|column| column == name) {
            return Some(hint);
        }
        let alias = || self.aliases.iter().find(|(alias, _)| alias == name).map(|(_, at)| *at);
        self.columns.iter().position(|column| column == name).or_else(alias)
    }
}
