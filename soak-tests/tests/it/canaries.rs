//! What is wrong on purpose never ships.
//!
//! In: the core's sources and the release profile, as they lie on disk. Out: each place that lets a canary into a build
//! without debug assertions.

use std::fs;
use std::path::Path;

const ONLY: &str = "#[cfg(debug_assertions)]";

#[test]
fn canaries_exist_in_builds_with_debug_assertions_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut problems = Vec::new();
    let mut canaries = 0;
    for room in ["agent", "core", "disk", "proto"] {
        for (path, text) in sources(&root.join(room)) {
            if path.ends_with("canary.rs") {
                canaries += 1;
            } else {
                problems.extend(loose(&text).map(|line| format!("{path}:{line}")));
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new(), "put {ONLY} on the line before");
    assert_eq!(canaries, 1, "one file holds them");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the root manifest");
    let manifest: toml::Table = manifest.parse().expect("the root manifest is TOML");
    let release = &manifest["profile"]["release"];
    assert!(release.get("debug-assertions").is_none(), "a release has no debug assertions");
}

#[test]
fn a_canary_without_its_condition_is_found() {
    assert_eq!(loose("#[cfg(debug_assertions)]\nmod canary;\n").count(), 0);
    assert_eq!(loose("// why\nmod canary;\n").collect::<Vec<_>>(), [2]);
    assert_eq!(loose("#[cfg(debug_assertions)]\n\ncanary::sing();\n").collect::<Vec<_>>(), [3]);
}

/// Lines that name a canary and are not under the condition.
fn loose(text: &str) -> impl Iterator<Item = usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let named = |line: &str| {
        let word = ["can", "ary"].concat();
        line.contains(&format!("mod {word}")) || line.contains(&format!("{word}::"))
    };
    let loose = (0..lines.len())
        .filter(|&at| named(lines[at]) && (at == 0 || lines[at - 1] != ONLY))
        .map(|at| at + 1);
    loose.collect::<Vec<_>>().into_iter()
}

/// All sources of a package, those of its tests aside.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            found.push((path.display().to_string(), text));
        }
    }
    found
}
