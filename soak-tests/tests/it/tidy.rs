//! Tidy: what the house style asks of files and no lint can see.
//!
//! In: the repository as it lies on disk. Out: one line per problem, each with the file and what to do. Each rule is a
//! function from text to problems, so that the tests at the end can show it failing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

type Problems = Vec<String>;

/// A room: its folder, and the rooms it may import. In the order in which data flows.
const ROOMS: [(&str, &[&str]); 15] = [
    ("proto", &[]),
    ("disk", &[]),
    ("disk/faulty", &["disk"]),
    ("agent", &["proto", "disk", "faulty-disk"]),
    ("core/log", &["proto", "disk", "faulty-disk"]),
    ("core/meta", &["proto", "stage"]),
    ("core/stage", &["proto"]),
    ("core/refine", &["proto", "stage"]),
    ("core/refine/sql", &["proto", "stage", "refine"]),
    ("core/flow", &["proto", "log", "stage"]),
    ("core/sink", &["proto", "stage"]),
    ("core/dimension", &["disk", "faulty-disk", "stage", "refine", "sink"]),
    (
        "core",
        &[
            "proto",
            "disk",
            "faulty-disk",
            "log",
            "meta",
            "stage",
            "refine",
            "refine-sql",
            "flow",
            "sink",
            "dimension",
        ],
    ),
    ("fuzz", &["proto", "disk", "faulty-disk", "agent", "log", "meta", "core"]),
    (
        "soak-tests",
        &[
            "proto",
            "disk",
            "agent",
            "log",
            "meta",
            "stage",
            "refine",
            "refine-sql",
            "flow",
            "sink",
            "core",
        ],
    ),
];

/// Folders that hold what programs write, not what people do.
const SKIPPED: [&str; 6] = [".git", "target", "work", "garam-quickstart", "corpus", "artifacts"];

#[test]
fn every_source_file_opens_with_a_header() {
    report(sources().iter().flat_map(|(path, text)| header(path, text)));
}

#[test]
fn every_crate_forbids_unsafe_code_or_says_why_not() {
    report(sources().iter().flat_map(|(path, text)| may_be_unsafe(path, text)));
}

#[test]
fn every_source_file_is_in_a_module_tree() {
    let sources = sources();
    let paths: BTreeSet<PathBuf> = sources.iter().map(|(path, _)| path.clone()).collect();
    let read = |path: &Path| {
        sources.iter().find(|(p, _)| p == path).map(|(_, text)| text.clone()).unwrap_or_default()
    };
    report(strays(&paths, &read));
}

#[test]
fn nothing_names_a_machine_or_puts_work_off() {
    report(texts().iter().flat_map(|(path, text)| forbidden(path, text)));
}

#[test]
fn rooms_stand_in_order_and_import_only_what_is_below() {
    let root = fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest");
    report(members(&root));
    for (room, allowed) in ROOMS {
        let manifest = fs::read_to_string(self::root().join(room).join("Cargo.toml"));
        report(imports(room, allowed, &manifest.expect("a manifest in every room")));
    }
}

#[test]
fn the_oracle_shares_no_code_with_the_product() {
    report(sources().iter().flat_map(|(path, text)| judges_itself(path, text)));
}

#[test]
fn every_link_in_a_document_leads_somewhere() {
    let pages = texts().into_iter().filter(|(path, _)| has_extension(path, "md"));
    report(pages.flat_map(|(path, text)| {
        dead_links(&path, &text, &|p| root().join(p).is_file() || root().join(p).is_dir())
    }));
}

/// Files of our own begin by saying what they are. Test modules under `tests/` are named by their crate.
fn header(path: &Path, text: &str) -> Problems {
    let under_tests = path.components().any(|part| part.as_os_str() == "tests");
    if under_tests || text.starts_with("//!") {
        return vec![];
    }
    vec![format!("{}: open the file with a //! header", path.display())]
}

/// A crate that may hold unsafe code says so where it begins, and why.
fn may_be_unsafe(path: &Path, text: &str) -> Problems {
    let says = |line: &str| {
        line == "#![forbid(unsafe_code)]" || line.starts_with("// No `forbid(unsafe_code)`: ")
    };
    if !is_root(path) || text.lines().any(says) {
        return vec![];
    }
    vec![format!(
        "{}: add #![forbid(unsafe_code)], or a line `// No `forbid(unsafe_code)`: why`",
        path.display()
    )]
}

/// Files that no `mod` leads to are compiled by nobody.
fn strays(paths: &BTreeSet<PathBuf>, read: &dyn Fn(&Path) -> String) -> Problems {
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = paths.iter().filter(|path| is_root(path)).cloned().collect();
    while let Some(path) = open.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        for candidates in modules(&path, &read(&path)) {
            open.extend(candidates.into_iter().filter(|candidate| paths.contains(candidate)));
        }
    }
    let stray = |path: &PathBuf| format!("{}: no `mod` leads here", path.display());
    paths.difference(&reached).map(stray).collect()
}

/// Where a crate begins: a library, a program, a test, a fuzz target.
fn is_root(path: &Path) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    if parts.contains(&"src") {
        let library_or_program = matches!(parts[..], [.., "src", "lib.rs" | "main.rs"]);
        return library_or_program
            || matches!(parts[..], [.., "src", "bin", _] | [.., "src", "bin", _, "main.rs"]);
    }
    matches!(
        parts[..],
        [.., "build.rs"]
            | [.., "tests" | "benches" | "examples" | "fuzz_targets", _]
            | [.., "tests" | "benches" | "examples", _, "main.rs"]
    )
}

/// The files that each `mod name;` of a file may mean.
fn modules(path: &Path, text: &str) -> Vec<Vec<PathBuf>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let owns_folder = is_root(path) || path.file_name().is_some_and(|name| name == "mod.rs");
    let below = if owns_folder { folder.to_owned() } else { path.with_extension("") };
    let mut found = Vec::new();
    let mut redirected = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            redirected = rest.split('"').next().map(|to| normal(&folder.join(to)));
        }
        let declared = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub(super) "));
        let declared = declared.or(line.strip_prefix("pub ")).unwrap_or(line);
        let name = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        if let Some(name) = name {
            let usual = [below.join(format!("{name}.rs")), below.join(name).join("mod.rs")];
            found.push(redirected.take().map_or(usual.into(), |path| vec![path]));
        }
    }
    found
}

/// Words that put work off, and paths that exist on one machine only.
fn forbidden(path: &Path, text: &str) -> Problems {
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|part| part.concat());
    let machine = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/tm", "p/gt"]];
    let machine = machine.map(|part| part.concat());
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut say = |what: String| {
            problems.push(format!("{}:{}: {what}", path.display(), number + 1));
        };
        for word in words.iter().filter(|word| stands_alone(line, word)) {
            say(format!("{word}: do it, or write an issue"));
        }
        for place in machine.iter().filter(|place| begins_a_path(line, place)) {
            say(format!("{place} exists on one machine only"));
        }
    }
    problems
}

fn stands_alone(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside(line[..at].chars().next_back()) && !inside(line[at + word.len()..].chars().next())
    })
}

fn begins_a_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}>~*".contains(c))
    })
}

/// The workspace lists the rooms in the order in which data flows, and no others.
fn members(manifest: &str) -> Problems {
    let manifest: toml::Table = manifest.parse().expect("the root manifest is TOML");
    let listed: Vec<&str> = manifest["workspace"]["members"]
        .as_array()
        .map(|members| members.iter().filter_map(toml::Value::as_str).collect())
        .unwrap_or_default();
    let expected = ROOMS.map(|(room, _)| room);
    if listed == expected {
        return vec![];
    }
    vec![format!("Cargo.toml: members are {listed:?}, the rooms in their order are {expected:?}")]
}

/// A room imports rooms below it, and only the core knows actors.
fn imports(room: &str, allowed: &[&str], manifest: &str) -> Problems {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let mut problems = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else {
            continue;
        };
        for name in dependencies.keys() {
            // A room that is nothing but tests may have it anywhere.
            if name == "garam-faulty-disk" && room != "fuzz" && table != "dev-dependencies" {
                problems.push(format!("{room}: {name} is for tests ({table})"));
            }
            let stranger = name.strip_prefix("garam-").filter(|name| !allowed.contains(name));
            if let Some(stranger) = stranger {
                problems.push(format!("{room}: {stranger} is not below it ({table})"));
            }
            if name.starts_with("actix") && room != "core" {
                problems.push(format!("{room}: only the core knows {name}"));
            }
        }
    }
    problems
}

/// Scenarios and oracle use the product from outside; only benchmarks may call it as a library.
fn judges_itself(path: &Path, text: &str) -> Problems {
    // Bad peers speak the wire's format; they judge nothing.
    let may = ["soak-tests/src/bench", "soak-tests/src/scenario/hostile"];
    if !path.starts_with("soak-tests/src") || may.iter().any(|folder| path.starts_with(folder)) {
        return vec![];
    }
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let names_crate = |path: &str| {
        path.rsplit(|c| !is_name(c)).next().is_some_and(|name| name.starts_with("garam_"))
    };
    // What stands before a `::` is a path; a table may be called what it likes.
    let uses = |line: &str| line.rsplit("::").skip(1).any(names_crate);
    let say = |line| {
        format!(
            "{}: only benchmarks and bad peers may use the product's code: {line}",
            path.display()
        )
    };
    text.lines().filter(|line| uses(line)).map(say).collect()
}

/// Relative links whose target is not there.
fn dead_links(path: &Path, text: &str, is_there: &dyn Fn(&Path) -> bool) -> Problems {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut problems = Vec::new();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let target = link.split('#').next().unwrap_or_default();
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        if !target.is_empty() && !elsewhere && !is_there(&normal(&folder.join(target))) {
            problems.push(format!("{}: nothing lies at {target}", path.display()));
        }
    }
    problems
}

fn report(problems: impl IntoIterator<Item = String>) {
    let problems: Problems = problems.into_iter().collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Our own source files, by their path from the root.
fn sources() -> Vec<(PathBuf, String)> {
    texts().into_iter().filter(|(path, _)| has_extension(path, "rs")).collect()
}

/// Every text file that a person wrote. The licence and the lock file are somebody else's words.
fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(root().join(&folder)).expect("a readable folder");
        for entry in entries {
            let entry = entry.expect("a readable entry");
            let (name, kind) = (entry.file_name(), entry.file_type().expect("a file type"));
            let path = folder.join(&name);
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                open.push(path);
            } else if kind.is_file() && name != "Cargo.lock" && name != "LICENSE" {
                // What is not UTF-8 is not a text. A file may vanish while others build; then it is not ours.
                found.extend(fs::read_to_string(root().join(&path)).ok().map(|text| (path, text)));
            }
        }
    }
    found.sort();
    found
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

mod can_fail {
    //! Each rule on samples that break it, and on samples that do not.

    use super::*;

    #[test]
    fn a_crate_that_may_be_unsafe_is_named() {
        let named = |path: &str, text: &str| may_be_unsafe(Path::new(path), text).len();
        assert_eq!(named("core/log/src/lib.rs", "//! x\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(named("core/log/src/lib.rs", "//! x\n"), 1);
        assert_eq!(named("core/log/src/fold.rs", "//! x\n"), 0);
        assert_eq!(
            named("proto/tests/it/main.rs", "// No `forbid(unsafe_code)`: an allocator.\n"),
            0
        );
        assert_eq!(named("proto/tests/it/main.rs", "// No `forbid(unsafe_code)`\n"), 1);
    }

    #[test]
    fn a_missing_header_is_named() {
        let path = Path::new("proto/src/block.rs");
        assert_eq!(header(path, "//! What comes in.\n"), Problems::new());
        assert_eq!(header(path, "// What comes in.\n").len(), 1);
        assert_eq!(header(path, "").len(), 1);
        assert_eq!(header(Path::new("proto/tests/it/frames.rs"), "use std;"), Problems::new());
    }

    #[test]
    fn product_code_outside_the_benchmarks_is_named() {
        let uses = "use garam_log::EmbeddedLog;\nlet x = (garam_proto::hash::tail_hash)(b);\n";
        assert_eq!(judges_itself(Path::new("soak-tests/src/oracle.rs"), uses).len(), 2);
        assert_eq!(judges_itself(Path::new("soak-tests/src/bench/log/mod.rs"), uses).len(), 0);
        let table = "sqlx::query(\"SELECT a FROM _garam_cursors\")";
        assert_eq!(judges_itself(Path::new("soak-tests/src/oracle.rs"), table).len(), 0);
    }

    #[test]
    fn a_file_outside_the_module_tree_is_named() {
        let files = [
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;\n// mod gone;\n"),
            ("a/src/one.rs", "pub mod deep;\nmod inline {\n}\n"),
            ("a/src/one/deep.rs", ""),
            ("a/src/two/mod.rs", "mod leaf;"),
            ("a/src/two/leaf.rs", ""),
            ("a/src/gone.rs", ""),
            ("a/src/deep.rs", ""),
            ("a/src/two/tests/x.rs", ""),
            ("a/tests/it/main.rs", "#[path = \"../../fuzz/src/entries.rs\"]\nmod entries;\nmod x;"),
            ("a/tests/it/x.rs", ""),
            ("a/tests/it/y.rs", ""),
            ("a/fuzz/src/entries.rs", ""),
            ("a/fuzz/fuzz_targets/frame.rs", ""),
        ];
        let paths = files.iter().map(|(path, _)| PathBuf::from(path)).collect();
        let read = |path: &Path| {
            files
                .iter()
                .find(|(p, _)| Path::new(p) == path)
                .map(|(_, text)| (*text).to_owned())
                .unwrap_or_default()
        };
        let strays = strays(&paths, &read);
        assert_eq!(strays.len(), 4, "{strays:?}");
        for (stray, expected) in
            strays.iter().zip(["src/deep.rs", "src/gone.rs", "two/tests/x.rs", "it/y.rs"])
        {
            assert!(stray.contains(expected), "{stray}");
        }
    }

    #[test]
    fn words_and_machine_paths_are_named_only_where_they_stand_alone() {
        let check = |line: &str, expected: usize| {
            assert_eq!(forbidden(Path::new("x"), line).len(), expected, "{line}");
        };
        check(&["// TO", "DO later"].concat(), 1);
        check(&["(FIX", "ME)"].concat(), 1);
        check(&["TO", "DOS and mktemp.XX", "XXXX"].concat(), 0);
        check(&["see \"/wo", "rk/x\" and /ho", "me/me"].concat(), 2);
        check(&["cd /ro", "ot/x; ls /tm", "p/gtx"].concat(), 2);
        check(&["target/wo", "rk/x, $DIR}/ho", "me/x"].concat(), 0);
    }

    #[test]
    fn rooms_out_of_order_and_wrong_imports_are_named() {
        let manifest = |rooms: &[&str]| format!("[workspace]\nmembers = {rooms:?}\n");
        let mut rooms = ROOMS.map(|(room, _)| room);
        assert_eq!(members(&manifest(&rooms)), Problems::new());
        assert_eq!(members(&manifest(&rooms[1..])).len(), 1);
        rooms.swap(0, 1);
        assert_eq!(members(&manifest(&rooms)).len(), 1);

        let check = |room, allowed: &[&str], manifest: &str, expected| {
            assert_eq!(imports(room, allowed, manifest).len(), expected, "{manifest}");
        };
        check("agent", &["proto"], "[dependencies]\ngaram-proto.workspace = true", 0);
        check("agent", &["proto"], "[dependencies]\ngaram-stage.workspace = true", 1);
        let faulty = "garam-faulty-disk.workspace = true";
        check("agent", &["faulty-disk"], &format!("[dev-dependencies]\n{faulty}"), 0);
        check("agent", &["faulty-disk"], &format!("[dependencies]\n{faulty}"), 1);
        check("agent", &["proto"], "[dev-dependencies]\ngaram-log = { path = \"x\" }", 1);
        check("core/log", &["proto"], "[dependencies]\nactix = \"1\"\nactix-rt = \"1\"", 2);
        check("core", &["proto"], "[dependencies]\nactix = \"1\"", 0);
    }

    #[test]
    fn dead_links_are_named() {
        let there = |path: &Path| path == Path::new("docs/style.md");
        let check = |text: &str, expected: usize| {
            let found = dead_links(Path::new("docs/decisions/0001.md"), text, &there);
            assert_eq!(found.len(), expected, "{text}");
        };
        check("[style](../style.md) and [a part](../style.md#names), [here](#there)", 0);
        check("[elsewhere](https://example.com/x.md)", 0);
        check("[style](style.md) [x](../none.md)", 2);
    }
}
