//! What another contract means for records that are written already, and for hosts that still write by the old one.
//!
//! In: both contracts. Out: one [`Detail`] for each column and setting that differs. Promise: what would make rows of before and
//! after differ in meaning, or leave records of before without a value, is refused until the contract's `version` is raised; what
//! to do is said. Not here: whether the destination's table fits (`sink`).

use super::definition::{ColumnDefinition, ContractDefinition, Settings};
use super::{Detail, Needs, Refused, differing};

/// Everything that differs.
pub(super) fn compare(before: &ContractDefinition, after: &ContractDefinition) -> Vec<Detail> {
    let mut details = columns(&before.columns, &after.columns, after.version);
    if before.format != after.format {
        let why = "records in the log are of the old format, and would be put aside".to_owned();
        let detail = Detail::of("contract.format", &before.format, &after.format);
        details.push(detail.refused(raise(why, "let the pipelines catch up first", after.version)));
    }
    if before.key != after.key {
        let why = "rows that are there were identified otherwise".to_owned();
        let detail = Detail::of("contract.key", &before.key.join(", "), &after.key.join(", "));
        details.push(detail.refused(raise(why, "keep the key", after.version)));
    }
    let prefixed = |settings: &Settings| -> Settings {
        settings.iter().map(|(key, value)| (format!("contract.{key}"), value.clone())).collect()
    };
    details.extend(differing(&prefixed(&before.reading), &prefixed(&after.reading)));
    if before.version == after.version {
        return details;
    }
    let mut version = Detail::of("contract.version", &before.version, &after.version);
    if after.version < before.version {
        version = version.refused(Refused {
            needs: Needs::Version,
            why: "a version never goes back: its number stands in the plans of what was delivered"
                .into(),
            action: format!("say version = {} or more", before.version),
        });
    } else {
        // The operator has said that rows may differ from here on.
        for detail in &mut details {
            if let Some(refused) = detail.refused.take() {
                detail.note =
                    Some(format!("{}; accepted by version {}", refused.why, after.version));
            }
        }
    }
    details.insert(0, version);
    details
}

fn columns(before: &[ColumnDefinition], after: &[ColumnDefinition], version: u32) -> Vec<Detail> {
    let mut details = Vec::new();
    let still = |name: &str| after.iter().any(|column| column.name == name);
    // A column that is gone, and is read under its old name by one that is new.
    let renamed = |new: &ColumnDefinition| {
        let gone = before.iter().filter(|old| !still(&old.name));
        gone.into_iter().find(|old| old.read_as.iter().all(|name| new.read_as.contains(name)))
    };
    let mut taken_over = Vec::new();
    for column in after {
        let key = format!("column {}", column.name);
        if let Some(old) = before.iter().find(|old| old.name == column.name) {
            details.extend(same_column(&key, old, column, version));
        } else if let Some(old) = renamed(column).filter(|old| !old.read_as.is_empty()) {
            taken_over.push(old.name.as_str());
            let mut detail = Detail::of(&key, &old.name, &column.name);
            detail.note = Some(format!("renamed; still read as {}", old.read_as.join(", ")));
            details.push(detail);
            details.extend(same_column(&key, old, column, version));
        } else {
            details.push(new_column(key, column, version));
        }
    }
    let gone = before.iter().filter(|old| !still(&old.name));
    for old in gone.filter(|old| !taken_over.contains(&old.name.as_str())) {
        let why = format!("rows from here on lack column {}", old.name);
        let instead = format!(
            "keep the column, or let a new one read it under its old name: from = [\"NEW\", \"{}\"]",
            old.name
        );
        let detail = Detail {
            key: format!("column {}", old.name),
            before: Some(spelled(old)),
            after: None,
            note: None,
            refused: None,
        };
        details.push(detail.refused(raise(why, &instead, version)));
    }
    details
}

fn new_column(key: String, column: &ColumnDefinition, version: u32) -> Detail {
    let detail =
        Detail { key, before: None, after: Some(spelled(column)), note: None, refused: None };
    if column.nullable || column.filled {
        let note = match column.filled {
            true => "new; records that lack it get its default",
            false => "new; null for records that lack it",
        };
        return Detail { note: Some(note.into()), ..detail };
    }
    let why = "it is new and \"not null\": records of before have no value for it".to_owned();
    detail.refused(raise(why, "let it be null or give it a default", version))
}

fn same_column(
    key: &str,
    old: &ColumnDefinition,
    new: &ColumnDefinition,
    version: u32,
) -> Vec<Detail> {
    let mut details = Vec::new();
    if old.kind != new.kind {
        let why = "its type would change under rows that are there".to_owned();
        let detail = Detail::of(key, &old.kind, &new.kind);
        let instead = "add a column of the new type beside it";
        details.push(detail.refused(raise(why, instead, version)));
    }
    match (old.nullable, new.nullable) {
        (true, false) => {
            let why = "records without a value were rows, and would be put aside".to_owned();
            let detail = Detail::of(key, &"null allowed", &"not null");
            let instead = "leave it as it is";
            details.push(detail.refused(raise(why, instead, version)));
        }
        (false, true) => {
            let mut detail = Detail::of(key, &"not null", &"null allowed");
            detail.note = Some("the destination's column must take null".into());
            details.push(detail);
        }
        _ => {}
    }
    let lost: Vec<_> =
        old.read_as.iter().filter(|name| !new.read_as.contains(name)).cloned().collect();
    if old.read_as != new.read_as {
        let mut detail = Detail::of(key, &old.read_as.join(", "), &new.read_as.join(", "));
        if !lost.is_empty() {
            let names = lost.join(", ");
            detail.note =
                Some(format!("not read as {names} any more: hosts that write so lose it"));
        }
        details.push(detail);
    }
    if old.rules != new.rules {
        let mut detail = Detail::of(key, &old.rules, &new.rules);
        detail.note = Some("its rules, from the next batch on".into());
        details.push(detail);
    }
    details
}

fn spelled(column: &ColumnDefinition) -> String {
    let null = if column.nullable { "" } else { " not null" };
    format!("{}{null}", column.kind)
}

fn raise(why: String, instead: &str, version: u32) -> Refused {
    let action =
        format!("{instead}; or say version = {} in the contract if it is meant", version + 1);
    Refused { needs: Needs::Version, why, action }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::change::Definition;

    fn contract(text: &str) -> ContractDefinition {
        let text = text.replace("[columns]", "[stream.s.contract.columns]");
        let whole = format!("[stream.s.contract]\n{text}");
        let plan = crate::config::parse("test", &whole).unwrap().check().unwrap();
        Definition::of(&plan).streams.remove("s").unwrap().contract
    }

    /// What is said of a change, and whether it is refused.
    fn check(before: &str, after: &str, expect: &[(&str, bool)]) {
        let details = compare(&contract(before), &contract(after));
        let told: Vec<_> = details.iter().map(|d| (d.to_string(), d.refused.is_some())).collect();
        assert_eq!(told.len(), expect.len(), "{told:?}");
        for ((text, refused), (wanted, is_refused)) in told.iter().zip(expect) {
            assert!(text.contains(wanted), "{text:?} does not say {wanted:?}");
            assert_eq!(refused, is_refused, "{text}");
        }
    }

    const BEFORE: &str =
        "format = 'json'\nkey = 'id'\n[columns]\nid = 'bigint not null'\nname = 'text'\n";

    #[test]
    fn what_is_added_and_may_be_absent_fits() {
        check(BEFORE, BEFORE, &[]);
        let one = "note = 'text'\n";
        check(BEFORE, &format!("{BEFORE}{one}"), &[("column note: new; null for records", false)]);
        let one = "level = { type = 'int not null', default = 1 }\n";
        check(BEFORE, &format!("{BEFORE}{one}"), &[("get its default", false)]);
        let one = "level = 'int not null'\n";
        let wanted = "records of before have no value for it: let it be null or give it a default; or say version = 2";
        check(BEFORE, &format!("{BEFORE}{one}"), &[(wanted, true)]);
    }

    #[test]
    fn a_column_that_is_renamed_fits_while_it_is_read_as_before() {
        let renamed = |new: &str| BEFORE.replace("name = 'text'", new);
        check(
            BEFORE,
            &renamed("title = { type = 'text', from = ['title', 'name'] }"),
            &[("name → title (renamed; still read as name)", false), ("name → title, name", false)],
        );
        check(
            BEFORE,
            &renamed("title = 'text'"),
            &[("column title: new", false), ("rows from here on lack column name", true)],
        );
        check(
            BEFORE,
            &renamed("title = { type = 'int', from = ['title', 'name'] }"),
            &[("renamed", false), ("text → int", true), ("title", false)],
        );
    }

    #[test]
    fn what_makes_rows_differ_takes_a_version() {
        let id = |kind: &str| BEFORE.replace("bigint not null", kind);
        check(
            BEFORE,
            &id("int not null"),
            &[("column id: bigint → int: its type would change", true)],
        );
        let name = |kind: &str| BEFORE.replace("name = 'text'", &format!("name = '{kind}'"));
        check(BEFORE, &name("text not null"), &[("null allowed → not null", true)]);
        check(&name("text not null"), BEFORE, &[("must take null", false)]);
        check(BEFORE, &BEFORE.replace("key = 'id'\n", ""), &[("contract.key: id → ", true)]);
        check(
            BEFORE,
            &BEFORE.replace("'json'", "'logfmt'"),
            &[("contract.format: json → logfmt", true)],
        );
        let raised = format!("version = 2\n{}", id("int not null"));
        check(
            BEFORE,
            &raised,
            &[("contract.version: 1 → 2", false), ("accepted by version 2", false)],
        );
        check(&raised, &id("int not null"), &[("say version = 2 or more", true)]);
    }
}
