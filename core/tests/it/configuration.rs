//! What an operator reads when the configuration is wrong, and what a right one means.

use expect_test::{Expect, expect};
use garam_core::config;

const STREAM: &str = "[stream.orders]\n";

fn check(text: &str, expected: Expect) {
    let outcome = match config::parse("garam.toml", text).and_then(config::Config::check) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(outcome.trim_end());
}

#[test]
fn the_smallest_configuration_is_one_stream() {
    check(STREAM, expect!["ok"]);
    check(
        "",
        expect![
            "configuration key stream: no [stream.NAME] is configured: agents would have nowhere to send"
        ],
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    check(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nlisten_on = 3\n[stream.orders]\n",
        expect![[r#"
            configuration garam.toml: TOML parse error at line 3, column 1
              |
            3 | listen_on = 3
              | ^^^^^^^^^
            unknown field `listen_on`, expected one of `listen`, `enrol_listen`, `names`, `window`, `max_record`, `max_in_flight`, `max_in_flight_per_agent`, `max_sessions`, `max_half_open`, `max_half_open_per_address`, `max_handshakes`, `handshake_timeout`, `idle_timeout`, `frame_timeout`"#]],
    );
}

#[test]
fn a_pipeline_needs_its_stream_and_one_destination() {
    check(
        "[stream.orders]\n[pipeline.p]\nfrom = \"order\"\n[pipeline.p.to]\n",
        expect![
            "configuration key pipeline.p.from: stream order is not configured; there is orders"
        ],
    );
    check(
        "[stream.orders]\n[pipeline.p]\nfrom = \"orders\"\n[pipeline.p.to]\n",
        expect![
            "configuration key pipeline.p.to: no destination: add one of [pipeline.p.to.mysql], [pipeline.p.to.postgres], [pipeline.p.to.sqlite], [pipeline.p.to.stream]"
        ],
    );
}

#[test]
fn two_pipelines_cannot_write_one_table() {
    let to = "path = \"/x.sqlite\"\ntable = \"t\"\n";
    let text = format!(
        "[stream.s]\n[pipeline.a]\nfrom = \"s\"\n[pipeline.a.to.sqlite]\n{to}[pipeline.b]\nfrom = \"s\"\n[pipeline.b.to.sqlite]\n{to}"
    );
    check(
        &text,
        expect![
            "configuration key pipeline.b.to.sqlite.table: pipeline a writes the same table of the same database"
        ],
    );
}

#[test]
fn bounds_and_addresses_are_checked() {
    check(
        "[gateway]\nwindow = \"1KiB\"\n[stream.s]\n",
        expect!["configuration key gateway.window: 1.0 KiB is out of bounds: 1.0 MiB to 256.0 MiB"],
    );
    check(
        "[gateway]\nmax_in_flight_per_agent = \"9MiB\"\n[stream.s]\n",
        expect![
            "configuration key gateway.max_in_flight_per_agent: 9.0 MiB is out of bounds: 16.0 MiB to 256.0 MiB"
        ],
    );
    check(
        "[gateway]\nframe_timeout = \"10ms\"\n[stream.s]\n",
        expect!["configuration key gateway.frame_timeout: 10ms is out of bounds: 100ms to 10min"],
    );
    check(
        "[admin]\nlisten = \"0.0.0.0:1\"\n[stream.s]\n",
        expect![
            "configuration key admin.listen: 0.0.0.0:1 is not a loopback address: use 127.0.0.1 or [::1]; other machines ask at admin.remote_listen"
        ],
    );
    check(
        &format!("[admin]\nsocket = \"/{}\"\n[stream.s]\n", "a".repeat(107)),
        expect![
            "configuration key admin.socket: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is longer than 107 bytes: name a shorter path"
        ],
    );
}

#[test]
fn policies_and_lives_of_certificates_are_checked() {
    check(
        "[policy.web]\nstreams = []\n[stream.s]\n",
        expect![[
            r#"configuration key policy.web.streams: at least one glob: "*" allows every stream"#
        ]],
    );
    check(
        "[policy.web]\nstreams = [\"a[\"]\n[stream.s]\n",
        expect![
            "configuration key policy.web.streams: error parsing glob 'a[': unclosed character class; missing ']'"
        ],
    );
    check(
        "[pki]\nagent_life = \"1s\"\n[stream.s]\n",
        expect!["configuration key pki.agent_life: 1s is out of bounds: 10s to 366 days"],
    );
}

#[test]
fn columns_keep_the_order_they_are_written_in() {
    let text = "[stream.s.contract]\nformat = \"json\"\n[stream.s.contract.columns]\nzeta = \"text\"\nalpha = \"int\"\n";
    let plan = config::parse("garam.toml", text).and_then(config::Config::check).unwrap();
    let names: Vec<_> = plan.streams[0].contract.columns.iter().map(|c| c.name.clone()).collect();
    assert_eq!(names, ["zeta", "alpha"]);
}

#[test]
fn files_beside_the_main_one_are_merged_and_a_key_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("garam.toml");
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(&main, "data_dir = \"/a\"\n[stream.a]\n").unwrap();
    std::fs::write(folder.path().join("conf.d/b.toml"), "[stream.b]\n").unwrap();
    let plan = config::load(&main).and_then(config::Config::check).unwrap();
    assert_eq!(plan.streams.len(), 2);

    std::fs::write(folder.path().join("conf.d/c.toml"), "data_dir = \"/c\"\n").unwrap();
    let error = config::load(&main).unwrap_err().to_string();
    assert!(error.starts_with("configuration key data_dir is set in"), "{error}");
    assert!(error.contains("garam.toml and again in") && error.contains("c.toml"), "{error}");
}

#[test]
fn an_environment_variable_stands_for_a_whole_value_only() {
    check(
        "data_dir = \"${env:GARAM_TEST_IS_NOT_SET}\"\n[stream.s]\n",
        expect![
            "configuration garam.toml, key data_dir: environment variable GARAM_TEST_IS_NOT_SET is not set"
        ],
    );
    let plan = config::parse("garam.toml", "data_dir = \"/x/${env:HOME}\"\n[stream.s]\n")
        .and_then(config::Config::check);
    assert_eq!(plan.unwrap().data_dir.to_str(), Some("/x/${env:HOME}"));
}
