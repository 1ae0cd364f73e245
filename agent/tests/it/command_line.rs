//! What a person types: check, status, completions, man, and how mistakes are told.

use crate::agent::{self, Host};
use crate::core::{Core, eventually};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_prints_the_plan_and_names_what_is_wrong() {
    let core = Core::start();
    let host = Host::new(&core, "*.log", "");
    std::fs::write(host.log("a.log"), "").unwrap();
    let config = host.config();
    let check = || agent::run(&["check", "--config", config.to_str().unwrap()]);
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("app to stream raw, 1 files now"));
    core.pki.issue_agent(&host.state().join("identity"), false);
    let output = check();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("issue it anew"), "{}", text(&output.stderr));
    let other = crate::pki::Pki::new();
    let elsewhere = host.folder.path().join("elsewhere");
    other.issue_agent(&elsewhere, true);
    std::fs::copy(elsewhere.join("key.pem"), host.state().join("identity/key.pem")).unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("do not work together"), "{}", text(&output.stderr));
    std::fs::write(&config, "colour = 1\n").unwrap();
    let output = check();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("colour"));
}

#[test]
fn status_prints_json_and_a_table_and_says_when_nobody_answers() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let state = host.state();
    let state = state.to_str().unwrap();
    assert_eq!(agent::run(&["status", "--state-dir", state]).status.code(), Some(4));
    std::fs::write(host.log("a\x1b[1m.log"), "x\n").unwrap();
    host.start();
    eventually("the line arrives", || core.lines("raw").len() == 1);
    let output = agent::run(&["status", "--state-dir", state, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "agent",
            "connected",
            "core",
            "files",
            "finished",
            "host",
            "session",
            "spools",
            "totals",
            "uptime_s",
            "version"
        ]
    );
    let output = agent::run(&["status", "--config", host.config().to_str().unwrap()]);
    assert!(text(&output.stdout).contains("a\\u{1b}[1m.log"), "{}", text(&output.stdout));
}

#[test]
fn help_completions_and_man_are_there() {
    for arguments in [&["--help"][..], &["completions", "bash"], &["man"], &["run", "--help"]] {
        let output = agent::run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("garam-agent"));
    }
    assert_eq!(agent::run(&["fly"]).status.code(), Some(2));
}

#[test]
fn a_missing_configuration_or_identity_says_what_to_do() {
    let output = agent::run(&["run", "--config", "/nowhere/agent.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("--config"));
    let core = Core::start();
    let host = Host::new(&core, "*.log", "");
    std::fs::remove_dir_all(host.state().join("identity")).unwrap();
    let output = agent::run(&["run", "--config", host.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("garam agent issue"), "{}", text(&output.stderr));
}
