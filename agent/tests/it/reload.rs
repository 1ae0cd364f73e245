//! SIGHUP: another configuration, and nobody loses a position.

use std::fs;

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

fn table(host: &Host, name: &str, include: &str, stream: &str) -> String {
    let include = host.log(include);
    format!("\n[[file]]\nname = {name:?}\ninclude = [{include:?}]\nstream = {stream:?}\n")
}

fn wait_for_word(host: &Host, word: &str, times: usize) {
    eventually(word, || host.stderr().matches(word).count() >= times);
}

#[test]
fn a_source_that_is_added_is_read_and_the_others_go_on_where_they_were() {
    let core = Core::start();
    let mut host = Host::new(&core, "a.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    let sessions = core.state().sessions;
    let claims = core.state().claims;
    oracle.append(&host.log("b.log"), 100);
    host.configure(&core, "a.log", &table(&host, "second", "b.log", "raw"), "codec = \"lz4\"");
    host.reload();
    oracle.append(&host.log("a.log"), 100);
    oracle.settle(&core);
    assert_eq!(core.state().sessions, sessions, "the connection stays");
    assert_eq!(core.state().claims, claims + 1, "only the new file is claimed");
}

#[test]
fn a_source_that_is_removed_is_let_go_and_continues_when_it_comes_back() {
    let core = Core::start();
    let mut host = Host::new(&core, "a.log", "");
    let mut oracle = Oracle::default();
    let second = table(&host, "second", "b.log", "raw");
    host.configure(&core, "a.log", &second, "");
    oracle.append(&host.log("a.log"), 50);
    oracle.append(&host.log("b.log"), 50);
    host.start();
    oracle.settle(&core);
    host.configure(&core, "a.log", "", "");
    host.reload();
    eventually("only one file is left", || host.status().is_some_and(|s| s.files.len() == 1));
    let mut later = Oracle::default();
    later.append(&host.log("b.log"), 50);
    oracle.append(&host.log("a.log"), 50);
    oracle.settle(&core);
    host.configure(&core, "a.log", &second, "");
    host.reload();
    eventually("what was written meanwhile arrives", || core.lines("raw").len() == 200);
    host.terminate();
    host.start();
    oracle.written.extend(later.written);
    oracle.append(&host.log("a.log"), 1);
    oracle.settle(&core);
    assert_eq!(core.state().origins.len(), 2, "no file became a second origin");
}

#[test]
fn a_source_that_goes_to_another_stream_continues_there() {
    let core = Core::start();
    let mut host = Host::new(&core, "a.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 100);
    host.start();
    oracle.settle(&core);
    let text = fs::read_to_string(host.config()).unwrap();
    fs::write(host.config(), text.replace("stream = \"raw\"", "stream = \"other\"")).unwrap();
    host.reload();
    wait_for_word(&host, "configuration read again", 1);
    let mut others = Oracle::default();
    others.append(&host.log("a.log"), 10);
    eventually("new lines go to the other stream", || core.lines("other") == others.written);
    oracle.check(&core);
}

#[test]
fn a_configuration_that_is_not_valid_is_refused_and_the_old_one_stays() {
    let core = Core::start();
    let mut host = Host::new(&core, "a.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 10);
    host.start();
    oracle.settle(&core);
    let good = fs::read_to_string(host.config()).unwrap();
    let bad = [good.replace("stream", "straem"), good.replace("poll = \"10ms\"", "poll = \"1h\"")];
    for (times, bad) in (1..).zip(bad) {
        fs::write(host.config(), bad).unwrap();
        host.reload();
        wait_for_word(&host, "the old one stays in force", times);
        oracle.append(&host.log("a.log"), 10);
        oracle.settle(&core);
    }
    fs::write(host.config(), good).unwrap();
    host.reload();
    wait_for_word(&host, "configuration read again", 1);
    oracle.append(&host.log("a.log"), 10);
    oracle.settle(&core);
    assert_eq!(host.terminate(), Some(0));
}

#[test]
fn a_reload_asked_for_while_the_agent_still_starts_is_done_and_does_not_end_it() {
    let core = Core::start();
    let mut host = Host::new(&core, "a.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 50);
    fs::create_dir_all(host.state()).unwrap();
    // The start waits here for as long as nobody writes.
    let checkpoint = host.state().join("checkpoint");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &checkpoint,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    host.start();
    eventually("the start has come to its lock", || {
        host.state().join("lock").try_exists().unwrap()
    });
    host.reload();
    drop(fs::File::options().write(true).open(&checkpoint).unwrap());
    oracle.settle(&core);
    wait_for_word(&host, "configuration read again", 1);
}
