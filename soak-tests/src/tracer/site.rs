//! Names calls so that the same call has the same name in every run: `fdatasync core/log/soak/*/*.seg 17`.
//!
//! In: the files and folders that are state, calls in the order in which they come. Out: the site of each that is about
//! state. Numbers, offsets and identifiers in a file's name differ from run to run: each becomes a star, so that all segments
//! of a partition are one kind of file and the count goes on over them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::calls::Call;

/// Counts the calls of each sort.
pub(super) struct Sites<'a> {
    state: &'a [PathBuf],
    counts: HashMap<String, u64>,
}

impl<'a> Sites<'a> {
    pub(super) fn of(state: &'a [PathBuf]) -> Self {
        Self { state, counts: HashMap::new() }
    }

    /// None when the call is about something else.
    pub(super) fn next(&mut self, call: &Call) -> Option<String> {
        let kind = call.paths.iter().find_map(|path| self.kind(path))?;
        let sort = format!("{} {kind}", call.name);
        let count = self.counts.entry(sort.clone()).or_default();
        *count += 1;
        Some(format!("{sort} {count}"))
    }

    /// What kind of file of the state a path is.
    fn kind(&self, path: &Path) -> Option<String> {
        let state = self.state.iter().find(|state| belongs(path, state))?;
        let below = path.strip_prefix(state.parent()?).ok()?;
        Some(without_numbers(below.to_str()?))
    }
}

/// Whether a path is the state, lies in it, or is one of the files that SQLite puts beside it.
fn belongs(path: &Path, state: &Path) -> bool {
    path.starts_with(state)
        || path
            .to_str()
            .zip(state.to_str())
            .and_then(|(path, state)| path.strip_prefix(state))
            .is_some_and(|rest| rest.starts_with('-'))
}

/// Numbers, offsets and UUIDs: words of hexadecimal digits with a decimal one among them.
fn without_numbers(name: &str) -> String {
    let mut kind = String::new();
    for piece in name.split_inclusive(['/', '.']) {
        let word = piece.trim_end_matches(['/', '.']);
        let end = &piece[word.len()..];
        if is_number(word) {
            kind.push('*');
        } else {
            let parts = word.split('-').map(|part| if is_number(part) { "*" } else { part });
            kind.push_str(&parts.collect::<Vec<_>>().join("-"));
        }
        kind.push_str(end);
    }
    kind
}

fn is_number(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
        && word.chars().any(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_a_folder_or_a_database_with_its_companions() {
        let belongs = |path: &str, state: &str| belongs(Path::new(path), Path::new(state));
        assert!(belongs("/w/core/log/CLOCK", "/w/core"));
        assert!(belongs("/w/core", "/w/core"));
        assert!(belongs("/w/data.sqlite-wal", "/w/data.sqlite"));
        assert!(!belongs("/w/core.log", "/w/core"));
        assert!(!belongs("/w", "/w/core"));
    }

    #[test]
    fn a_name_keeps_its_words_and_loses_what_differs_from_run_to_run() {
        let check = |name, kind| assert_eq!(without_numbers(name), kind);
        check("core/log/soak/0000/000000000000000000ab.seg.tmp", "core/log/soak/*/*.seg.tmp");
        check(
            "core/log/_quarantine.1f478545-91b0-4668-beef-5a2ce9c80cf6/0000",
            "core/log/_quarantine.*/*",
        );
        check("core/meta.db.copy.737-journal", "core/meta.db.copy.*-journal");
        check("agent/checkpoint.tmp", "agent/checkpoint.tmp");
    }

    #[test]
    fn the_same_calls_have_the_same_sites_in_every_run() {
        let sites = |run: &str| {
            let state = [PathBuf::from(format!("/{run}/core"))];
            let mut sites = Sites::of(&state);
            let mut next = |name, path: &str| {
                let paths = vec![PathBuf::from(format!("/{run}/{path}"))];
                sites.next(&Call { name, paths, is_write: false })
            };
            [
                next("fsync", "core/log/0000.seg"),
                next("unlink", "core/log/0000.seg"),
                next("fsync", "elsewhere"),
                next("fsync", "core/log/0010.seg"),
            ]
        };
        assert_eq!(sites("a1"), sites("b2"));
        let expected = [
            Some("fsync core/log/*.seg 1"),
            Some("unlink core/log/*.seg 1"),
            None,
            Some("fsync core/log/*.seg 2"),
        ];
        assert_eq!(sites("a1").each_ref().map(|site| site.as_deref()), expected);
    }
}
