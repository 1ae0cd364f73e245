//! What is said of changes to whole configurations.

use super::{Change, Changes, Definition, Verdict, compare};
use crate::config;

const BEFORE: &str = "\
[gateway]
listen = '127.0.0.1:7470'
[policy.web]
streams = ['logs']
[stream.logs]
[stream.other]
[pipeline.a]
from = 'logs'
to.sqlite = { path = '/d/a.sqlite', table = 'lines' }
[pipeline.b]
from = 'other'
to.postgres = { url = 'postgres://u:secret@db/one', table = 'lines' }
";

fn definition(text: &str) -> Definition {
    Definition::of(&config::parse("test", text).unwrap().check().unwrap())
}

fn changed(from: &str, to: &str) -> Changes {
    let after = BEFORE.replacen(from, to, 1);
    assert_ne!(after, BEFORE, "{from:?} is not there");
    compare(&definition(BEFORE), &definition(&after))
}

/// What a change of the text leads to: the verdict, and the items that differ, each as text.
#[track_caller]
fn check(from: &str, to: &str, verdict: Verdict, expect: &[&str]) {
    let changes = changed(from, to);
    let differing = changes.items.iter().filter(|item| item.change != Change::Unchanged);
    let told: Vec<_> = differing
        .map(|item| {
            let details: Vec<_> = item.details.iter().map(ToString::to_string).collect();
            let (what, change) = (item.what.name(), item.change.name());
            format!("{what} {} {change} {}[{}]", item.name, item.effect, details.join("; "))
        })
        .collect();
    assert_eq!(changes.verdict, verdict, "{told:#?}");
    assert_eq!(told.len(), expect.len(), "{told:#?}");
    for (text, wanted) in told.iter().zip(expect) {
        let parts: Vec<_> = wanted.split("...").collect();
        let held = parts.iter().all(|part| text.contains(part)) && text.starts_with(parts[0]);
        assert!(held, "{text:?} does not say {wanted:?}");
    }
}

#[test]
fn the_same_again_is_unchanged_and_everything_is_named() {
    let changes = compare(&definition(BEFORE), &definition(BEFORE));
    assert_eq!(changes.verdict, Verdict::Unchanged);
    let names: Vec<_> = changes.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["core", "web", "logs", "other", "a", "b"]);
}

#[test]
fn what_applies_says_when() {
    let applies = Verdict::Applies;
    check(
        "[pipeline.a]",
        "[pipeline.a]\nmax_rows = 10",
        applies,
        &["pipeline a changed from its next batch on...[max_rows: 8000 → 10]"],
    );
    check(
        "[stream.logs]",
        "[stream.logs]\nquota = '1GiB'",
        applies,
        &["stream logs changed limits at once...quota: 20.0 GiB → 1.0 GiB"],
    );
    check(
        "[stream.logs]",
        "[stream.logs]\ncontract = { format = 'line', columns = { text = 'text not null' }, version = 2 }",
        applies,
        &[
            "stream logs changed...column line: ...accepted by version 2",
            "pipeline a changed...[contract: as stream logs says]",
        ],
    );
    check("['logs']", "['logs', 'o*']", applies, &["policy web changed for sessions that begin"]);
    check(
        "[stream.other]",
        "[stream.other]\n[stream.more]",
        applies,
        &["stream more added agents may send"],
    );
    let more = "[pipeline.c]\nfrom = 'logs'\nstart = 'now'\nto.sqlite = { path = '/d/c.sqlite', table = 'lines' }\n[pipeline.a]";
    check("[pipeline.a]", more, applies, &["pipeline c added it begins at the end of logs[]"]);
    let without =
        "[pipeline.a]\nfrom = 'logs'\nto.sqlite = { path = '/d/a.sqlite', table = 'lines' }\n";
    check(
        without,
        "",
        applies,
        &["pipeline a removed it stops behind the batch in its hands...garam pause"],
    );
}

#[test]
fn what_is_refused_says_what_to_do() {
    let restart = Verdict::Restart;
    check(
        ":7470",
        ":7471",
        restart,
        &[
            "core core refused [gateway.listen: 127.0.0.1:7470 → 127.0.0.1:7471: ...needs a restart]",
        ],
    );
    check(
        "[gateway]",
        "data_dir = '/elsewhere'\n[gateway]",
        restart,
        &["core core refused [admin.socket: ...data_dir: ...needs a restart"],
    );
    check(
        "[stream.logs]",
        "[stream.logs]\npartitions = 2",
        restart,
        &["stream logs refused [partitions: 1 → 2: ...needs a restart"],
    );
    let refused = Verdict::Refused;
    let new = "needs a new pipeline: give it another name";
    check(
        "a.sqlite', table = 'lines'",
        "a.sqlite', table = 'rows'",
        refused,
        &[&format!("pipeline a refused [to.sqlite.table: lines → rows: ...{new}")],
    );
    check(
        "a.sqlite', table = 'lines'",
        "a.sqlite', table = 'lines', key = 'line'",
        refused,
        &[&format!(
            "pipeline a refused [to.sqlite.key:  → line: ...{new}...to.sqlite.mode: append → upsert: "
        )],
    );
    check(
        "db/one",
        "db/two",
        refused,
        &[&format!("pipeline b refused [to.postgres.place: ...{new}")],
    );
    check(
        "from = 'logs'",
        "from = 'other'",
        refused,
        &[&format!("pipeline a refused [from: logs → other: ...{new}")],
    );
    let text =
        "[stream.logs]\ncontract = { format = 'line', columns = { text = 'text not null' } }";
    check(
        "[stream.logs]",
        text,
        refused,
        &[
            "stream logs refused [column text: it is new and...or say version = 2 in the contract if it is meant; column line: ",
            "pipeline a changed",
        ],
    );
}

#[test]
fn a_stream_with_fewer_partitions_is_never_taken_and_a_removed_one_by_a_restart() {
    let two = BEFORE.replace("[stream.logs]", "[stream.logs]\npartitions = 2");
    let changes = compare(&definition(&two), &definition(BEFORE));
    assert_eq!(changes.verdict, Verdict::Refused);
    let told = changes.refusals();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("stream logs, partitions: 2 → 1: ")
            && told[0].ends_with("say partitions = 2"),
        "{told:?}"
    );

    let more = BEFORE.replace("[stream.other]", "[stream.other]\n[stream.more]");
    let changes = compare(&definition(&more), &definition(BEFORE));
    assert_eq!(changes.verdict, Verdict::Restart);
    assert!(changes.refusals()[0].contains("needs a restart, after which they hold"));
}

#[test]
fn no_secret_is_in_a_definition_and_a_kept_one_is_read_again() {
    let definition = definition(BEFORE);
    let text = definition.to_text().unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(Definition::from_text(&text), Some(definition));
    assert_eq!(Definition::from_text("{\"streams\": 5}"), None);
    // Of a build that knew less.
    let older = Definition::from_text("{\"core\":{\"data_dir\":\"/var/lib/garam\"}}").unwrap();
    let changes =
        compare(&older, &Definition::of(&config::parse("test", BEFORE).unwrap().check().unwrap()));
    assert_eq!(changes.items[0].change, Change::Unchanged);
}
