//! Connections that break, cores that wait, hold, refuse.

use garam_proto::message::{Bye, ByeReason, Hold};

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

#[test]
fn cut_connections_lose_and_repeat_nothing() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    host.start();
    for round in 0..10 {
        oracle.append(&host.log("a.log"), 2000);
        oracle.append(&host.log("b.log"), 20);
        eventually("something arrives", || core.lines("raw").len() > round * 2020);
        core.cut_connections();
    }
    oracle.settle(&core);
    assert!(core.state().sessions > 5);
    eventually("reconnects are counted", || {
        host.status().is_some_and(|status| status.totals.reconnects >= 5)
    });
}

#[test]
fn acknowledgements_that_never_came_are_answered_by_the_next_mark() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    core.state().withhold = true;
    oracle.append(&host.log("a.log"), 500);
    host.start();
    oracle.settle(&core);
    core.state().withhold = false;
    core.cut_connections();
    let size = std::fs::metadata(host.log("a.log")).unwrap().len();
    eventually("the mark counts as acknowledgement", || {
        host.status().is_some_and(|s| s.totals.bytes_acked == size && s.totals.records_acked == 500)
    });
    oracle.check(&core);
}

#[test]
fn unacknowledged_bytes_stay_within_the_window() {
    let core = Core::start();
    core.state().window = 1024 * 1024;
    core.state().withhold = true;
    let mut host = Host::with_ship(&core, "*.log", "", "codec = \"none\"");
    let mut oracle = Oracle::default();
    for _ in 0..20 {
        oracle.append(&host.log("a.log"), 5000);
    }
    host.start();
    eventually("the window fills", || core.state().largest_in_flight > 512 * 1024);
    core.state().withhold = false;
    core.nudge();
    oracle.settle(&core);
    assert!(core.state().largest_in_flight <= 1024 * 1024);
}

#[test]
fn a_held_stream_does_not_hold_another() {
    let core = Core::start();
    let stream = garam_proto::StreamName::new("raw").unwrap();
    core.state().held = Some(Hold { stream, partition: None, held: true, why: "full".into() });
    let folder = tempfile::tempdir().unwrap();
    let other = format!(
        "[[file]]\nname = \"other\"\ninclude = [\"{}/*.txt\"]\nstream = \"free\"",
        folder.path().display()
    );
    let mut host = Host::new(&core, "*.log", &other);
    let (mut held, mut free) = (Oracle::default(), Oracle::default());
    held.append(&host.log("a.log"), 10);
    free.append(&folder.path().join("b.txt"), 10);
    host.start();
    eventually("the other stream flows", || core.lines("free") == free.written);
    assert!(core.lines("raw").is_empty());
    core.state().held.as_mut().unwrap().held = false;
    core.nudge();
    held.settle(&core);
}

#[test]
fn a_refusal_is_explained() {
    let core = Core::start();
    let text = "agent was revoked".to_owned();
    core.state().refuse = Some(Bye { reason: ByeReason::Denied, text });
    let mut host = Host::new(&core, "*.log", "");
    host.start();
    eventually("the refusal is logged", || host.stderr().contains("agent was revoked"));
    assert_eq!(host.terminate(), Some(0), "also without a connection the agent stops at once");
}

#[test]
fn a_single_takeover_is_followed_by_a_new_connection() {
    let core = Core::start();
    let text = "its own greeting came late".to_owned();
    core.state().refuse = Some(Bye { reason: ByeReason::TakenOver, text });
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    host.start();
    eventually("the takeover is logged", || host.stderr().contains("its own greeting came late"));
    core.state().refuse = None;
    oracle.append(&host.log("a.log"), 20);
    oracle.settle(&core);
}

#[test]
fn an_expired_certificate_is_named_and_its_renewal_used_without_a_restart() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    core.pki.issue_agent(&host.state().join("identity"), false);
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 10);
    host.start();
    eventually("the reason is logged", || host.stderr().contains("certificate expired"));
    core.pki.issue_agent(&host.state().join("identity"), true);
    oracle.settle(&core);
}

#[test]
fn a_stop_waits_for_acknowledgements() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    core.state().withhold = true;
    oracle.append(&host.log("a.log"), 10);
    host.start();
    oracle.settle(&core);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| host.terminate());
        core.state().withhold = false;
        core.nudge();
        assert_eq!(stopping.join().unwrap(), Some(0));
    });
    let garam_agent::checkpoint::Loaded::Entries(entries) =
        garam_agent::checkpoint::load(&host.state()).unwrap()
    else {
        panic!("no checkpoint");
    };
    let size = std::fs::metadata(host.log("a.log")).unwrap().len();
    assert_eq!(entries[0].mark, u128::from(size));
}
