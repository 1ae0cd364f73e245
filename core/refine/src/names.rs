//! The names a contract knows, and what is done with others.
//!
//! In: the name of a field. Out: the column it stands for, or for JSON the nested values that columns are read from. Not here:
//! what a value means.

use garam_stage::{Contract, UnknownColumns};

/// The names to look for and what to do with others.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) columns: Vec<String>,
    /// By column: its own name, where it is looked for under it.
    own: Vec<Option<String>>,
    /// Other names, with the columns they stand for.
    aliases: Vec<(String, usize)>,
    /// Members inside of which columns lie.
    pub(crate) branches: Vec<Branch>,
    pub(crate) unknown: UnknownColumns,
}

/// A member on the way to nested values.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) name: String,
    /// Where it is a value that a column is read from.
    pub(crate) column: Option<usize>,
    pub(crate) inside: Vec<Branch>,
}

impl Names {
    pub(crate) fn of(contract: &Contract) -> Self {
        let columns: Vec<String> =
            contract.columns.iter().map(|column| column.name.clone()).collect();
        let own = contract.columns.iter().map(|c| c.is_named.then(|| c.name.clone())).collect();
        let at = |column: &String| columns.iter().position(|known| known == column);
        let aliases = contract.reading.aliases.iter();
        let aliases = aliases.filter_map(|(alias, column)| Some((alias.clone(), at(column)?)));
        let mut branches = Vec::new();
        for (way, column) in &contract.reading.paths {
            grow(&mut branches, way, at(column));
        }
        Self { aliases: aliases.collect(), own, branches, unknown: contract.unknown, columns }
    }

    /// The column of this name. Records of one stream list their fields in one order, so the column after the last one
    /// found is tried first.
    pub(crate) fn find(&self, hint: usize, name: &str) -> Option<usize> {
        let is_own = |own: &Option<String>| own.as_deref() == Some(name);
        if self.own.get(hint).is_some_and(is_own) {
            return Some(hint);
        }
        let alias = || self.aliases.iter().find(|(alias, _)| alias == name).map(|(_, at)| *at);
        self.own.iter().position(is_own).or_else(alias)
    }

    pub(crate) fn branch(&self, name: &str) -> Option<&Branch> {
        self.branches.iter().find(|branch| branch.name == name)
    }
}

fn grow(branches: &mut Vec<Branch>, way: &[String], column: Option<usize>) {
    let Some((name, rest)) = way.split_first() else { return };
    let at = branches.iter().position(|branch| branch.name == *name).unwrap_or_else(|| {
        branches.push(Branch { name: name.clone(), column: None, inside: Vec::new() });
        branches.len() - 1
    });
    let Some(branch) = branches.get_mut(at) else { return };
    match rest {
        [] => branch.column = column,
        rest => grow(&mut branch.inside, rest, column),
    }
}
