//! How a tree looks to the operator.

use expect_test::expect;

use super::super::snapshot::LastFault;
use super::super::*;

fn node(name: &str, role: &str, state: State, children: Vec<Snapshot>) -> Snapshot {
    Snapshot {
        name: name.to_owned(),
        path: name.to_owned(),
        role: role.to_owned(),
        state,
        generation: 1,
        restarts: 0,
        last_fault: None,
        uptime_ms: Some(3 * 3_600_000 + 60_000),
        since_progress_ms: None,
        children,
    }
}

fn sample() -> Snapshot {
    let fault =
        |exit: &str, fault: Fault| Some(LastFault::new(exit, &fault, std::time::UNIX_EPOCH));
    let unreachable = Fault::new(Some(garam_stage::FailureKind::Unreachable), "cannot connect");
    let schema =
        Fault::new(Some(garam_stage::FailureKind::Schema), "column \u{1b}[31m\"tier\" is absent");
    let orders = Snapshot {
        restarts: 1,
        uptime_ms: Some(12_000),
        last_fault: fault("failed", unreachable),
        ..node("0", "task", State::Waiting { on: "destination".to_owned() }, Vec::new())
    };
    let users = Snapshot {
        uptime_ms: None,
        restarts: 24,
        last_fault: fault("gave_up", schema),
        ..node(
            "users",
            "one_for_all",
            State::Parked,
            vec![Snapshot { uptime_ms: None, ..node("0", "task", State::Stopped, Vec::new()) }],
        )
    };
    let pipelines = vec![node("orders", "one_for_all", State::Running, vec![orders]), users];
    let gateway = Snapshot {
        uptime_ms: None,
        ..node("gateway", "task", State::BackingOff { retry_in_ms: 850 }, Vec::new())
    };
    let data = vec![gateway, node("pipelines", "one_for_one", State::Running, pipelines)];
    node(
        "root",
        "one_for_one",
        State::Running,
        vec![
            node(
                "admin",
                "one_for_one",
                State::Running,
                vec![node("http", "task", State::Running, Vec::new())],
            ),
            node("data", "rest_for_one", State::Running, data),
        ],
    )
}

#[test]
fn the_tree_is_drawn_with_restarts_and_last_faults() {
    expect![[r#"
        root             one_for_one   running, up 3 h 1 min
        ├─ admin         one_for_one   running, up 3 h 1 min
        │  └─ http       task          running, up 3 h 1 min
        └─ data          rest_for_one  running, up 3 h 1 min
           ├─ gateway    task          back in 850 ms
           └─ pipelines  one_for_one   running, up 3 h 1 min
              ├─ orders  one_for_all   running, up 3 h 1 min
              │  └─ 0    task          waiting for destination, up 12 s, 1 restart
              │          ! failed, unreachable: cannot connect
              └─ users   one_for_all   parked, 24 restarts
                 │       ! gave_up, schema: column \u{1b}[31m"tier" is absent
                 │         make contract and destination fit together, then resume
                 └─ 0    task          stopped
    "#]]
    .assert_eq(&render(&sample()));
}

#[test]
fn a_snapshot_reads_back_from_its_json() {
    let json = serde_json::to_string(&sample()).unwrap();
    assert!(json.contains(r#""state":"backing_off","retry_in_ms":850"#), "{json}");
    assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), sample());
}
