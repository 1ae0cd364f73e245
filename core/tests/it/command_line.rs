//! The command line as an operator or a program meets it: output and exit codes are public and stable.

use std::path::Path;
use std::process::{Command, Output};

use expect_test::expect;
use tempfile::TempDir;

struct Shell {
    folder: TempDir,
}

impl Shell {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config.replace("DIR", &folder.path().display().to_string());
        std::fs::write(folder.path().join("garam.toml"), config).unwrap();
        Self { folder }
    }

    fn garam(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_garam"))
            .arg("--config")
            .arg(self.folder.path().join("garam.toml"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    }

    /// Exit code and what was said on stderr, with the folder's name taken out.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.garam(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code().unwrap(),
            text.replace(&self.folder.path().display().to_string(), "DIR"),
        )
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.garam(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.replace(&self.folder.path().display().to_string(), "DIR")
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

const PIPELINE: &str = "data_dir = \"DIR/core\"\n[gateway]\nlisten = \"127.0.0.1:7470\"\n[admin]\nlisten = \"127.0.0.1:1\"\n\
[stream.orders.contract]\nformat = \"json\"\n[stream.orders.contract.columns]\nid = \"bigint not null\"\n\
[pipeline.p]\nfrom = \"orders\"\n[pipeline.p.to.sqlite]\npath = \"DIR/orders.sqlite\"\ntable = \"orders\"\n";

#[test]
fn check_reads_each_dimension_once_and_names_a_key_that_is_there_twice() {
    let dimension = "[dimension.users]\nkey = \"id\"\n[dimension.users.columns]\nid = \"bigint not null\"\n\
        [dimension.users.from.file]\npath = \"DIR/users.csv\"\nformat = \"csv\"\n";
    let shell = Shell::new(&format!("{PIPELINE}{dimension}"));
    shell.says(&["ca", "init"]);
    let plan: serde_json::Value =
        serde_json::from_str(&shell.says(&["check", "-o", "json"])).unwrap();
    let expected = serde_json::json!([
        {"name": "users", "source": "file DIR/users.csv", "refresh_s": 10, "key": ["id"]}
    ]);
    assert_eq!(plan["dimensions"], expected);
    let connect = ["check", "--connect"];
    let (exit, told) = shell.fails(&connect);
    assert_eq!(exit, 1);
    assert!(told.contains("dimension users: cannot read DIR/users.csv: No such file"), "{told}");
    std::fs::write(shell.path().join("users.csv"), "id\n7\n8\n7\n").unwrap();
    let (exit, told) = shell.fails(&connect);
    assert_eq!(exit, 1);
    assert!(
        told.contains("rows 1 and 3 have the same key (id)") && told.contains("id = 7"),
        "{told}"
    );
    std::fs::write(shell.path().join("users.csv"), "id\n7\n8\n").unwrap();
    let (exit, told) = shell.fails(&connect);
    assert_eq!(exit, 0);
    assert!(told.contains("dimension users: 2 rows, 16 B, every key is there once"), "{told}");
    assert_eq!(shell.fails(&["dimension", "ls"]).0, 4, "no core runs");
}

#[test]
fn a_pipeline_into_a_stream_is_not_replayed() {
    let placed = "[stream.placed.contract]\nformat = \"json\"\n[stream.placed.contract.columns]\nid = \"bigint\"\n\
        [pipeline.place]\nfrom = \"orders\"\n[pipeline.place.to.stream]\nname = \"placed\"\nkey = [\"id\"]\n";
    let shell = Shell::new(&format!("{PIPELINE}{placed}"));
    for more in [&["--yes"][..], &["--yes", "--force"][..]] {
        let (exit, told) = shell.fails(&[&["replay", "place", "--from", "0"][..], more].concat());
        assert_eq!(exit, 6);
        assert!(told.contains("replay a pipeline that reads placed"), "{told}");
    }
    assert!(!shell.path().join("core/meta.db").try_exists().unwrap(), "nothing was asked for");
}

#[test]
fn check_prints_a_stable_plan() {
    let shell = Shell::new(PIPELINE);
    expect![[r#"
        {"admin":"127.0.0.1:1","admin_remote":null,"admin_socket":"DIR/core/admin.sock","changes":null,"connected":false,"data_dir":"DIR/core","dimensions":[],"enrol":null,"gateway":"127.0.0.1:7470","pipelines":[{"from":"orders","name":"p","to":"sqlite DIR/orders.sqlite table orders"}],"pki_dir":"DIR/core/pki","policies":[],"streams":[{"columns":["id"],"name":"orders","outage":{"bytes_per_s":1048576,"measured":false,"seconds":20480},"partitions":1,"quota_bytes":21474836480,"retain_s":86400}]}
    "#]]
    .assert_eq(&shell.says(&["check", "-o", "json"]));
    let table = shell.says(&["check"]);
    assert!(table.contains("orders → sqlite DIR/orders.sqlite table orders"), "{table}");
}

#[test]
fn each_kind_of_trouble_has_its_exit_code() {
    let shell = Shell::new(PIPELINE);
    let (code, text) = shell.fails(&["run"]);
    assert_eq!(
        (code, text.as_str()),
        (78, "garam: no certificate authority in DIR/core/pki: run `garam ca init` first\n")
    );
    let (code, text) = shell.fails(&["status"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("no core answers at DIR/core/admin.sock"), "{text}");
    let (code, text) = shell.fails(&["log", "inspect"]);
    assert_eq!(code, 3, "{text}");
    let (code, text) = shell.fails(&["dlq", "ls", "nobody"]);
    assert_eq!(
        (code, text.as_str()),
        (3, "garam: pipeline nobody is not configured; there is p\n")
    );
    assert_eq!(shell.fails(&["no-such-verb"]).0, 2);
    std::fs::write(shell.path().join("garam.toml"), "data_dir = 3\n").unwrap();
    let (code, text) = shell.fails(&["check"]);
    assert_eq!(code, 78, "{text}");
    assert!(text.contains("line 1, column 12"), "{text}");
}

#[test]
fn an_agent_gets_an_identity_once() {
    let shell = Shell::new(PIPELINE);
    shell.says(&["ca", "init"]);
    assert_eq!(shell.fails(&["ca", "init"]).0, 6, "an authority is never overwritten");
    let issued: serde_json::Value = serde_json::from_str(
        &shell.says(&["agent", "issue", "web-01", "--out", "web-01", "-o", "json"]),
    )
    .unwrap();
    assert_eq!(issued["host"], "web-01");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        assert!(shell.path().join("web-01").join(file).is_file(), "{file}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(shell.path().join("web-01/key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(shell.fails(&["agent", "issue", "web-01", "--out", "web-01"]).0, 6);
    assert_eq!(shell.fails(&["agent", "issue", "../evil", "--out", "evil"]).0, 78);
    let listed: serde_json::Value =
        serde_json::from_str(&shell.says(&["agent", "ls", "-o", "json"])).unwrap();
    assert_eq!(listed[0]["agent"], issued["agent"]);
    assert_eq!(shell.says(&["agent", "ls", "-o", "name"]), "web-01\n");
}

#[test]
fn a_host_that_is_issued_again_keeps_its_agent() {
    let shell = Shell::new(PIPELINE);
    shell.says(&["ca", "init"]);
    let issue = |folder: &str, more: &[&str]| {
        let verb = ["agent", "issue", "web-01", "--out", folder, "-o", "json"];
        let text = shell.says(&[&verb[..], more].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let (first, second) = (issue("first", &[]), issue("second", &[]));
    assert_eq!((&first["agent"], &first["again"]), (&second["agent"], &false.into()));
    assert_eq!(second["again"], true);
    let (code, text) = shell.fails(&["agent", "revoke", "web-01"]);
    assert_eq!(code, 2, "nobody agreed: {text}");
    shell.says(&["agent", "revoke", "web-01", "--yes"]);
    assert!(shell.says(&["agent", "ls"]).contains("revoked"));
    let (code, text) = shell.fails(&["agent", "issue", "web-01", "--out", "third"]);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("is revoked"), "{text}");
    let third = issue("third", &["--replace"]);
    assert_eq!(third["agent"], first["agent"]);
    assert!(shell.says(&["agent", "ls"]).contains("active"));
    assert_eq!(shell.fails(&["agent", "revoke", "nobody", "--yes"]).0, 3);
    let younger_than_the_backup = "11111111-2222-4333-8444-555555555555";
    shell.says(&["agent", "revoke", younger_than_the_backup, "--yes"]);
}

#[test]
fn a_token_is_shown_once_listed_without_its_secret_and_taken_back() {
    let shell = Shell::new(&format!("{PIPELINE}[policy.web]\nstreams = [\"orders\"]\n"));
    shell.says(&["ca", "init"]);
    let token = shell.says(&["token", "create", "--host", "web-01", "--policy", "web"]);
    let parts: Vec<&str> = token.trim().split('.').collect();
    assert_eq!((parts.len(), parts[0], parts[2].len(), parts[3].len()), (4, "garam1", 64, 64));
    let listed = shell.says(&["token", "ls", "-o", "json"]);
    assert!(listed.contains(parts[1]) && !listed.contains(parts[2]), "{listed}");
    assert!(listed.contains("\"state\":\"open\""), "{listed}");
    shell.says(&["token", "revoke", parts[1]]);
    assert!(shell.says(&["token", "ls"]).contains("revoked"));
    assert_eq!(shell.fails(&["token", "revoke", "0000"]).0, 3);

    let many = ["token", "create", "--host", "web-*", "--uses", "9", "--cidr", "10.0.0.0/8"];
    shell.says(&[&many[..], &["--out", "many"]].concat());
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(shell.path().join("many")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(shell.fails(&["token", "create", "--host", "a", "--uses", "2"]).0, 2);
    assert_eq!(shell.fails(&["token", "create", "--host", "a", "--cidr", "10/8"]).0, 2);
    assert_eq!(shell.fails(&["token", "create", "--host", "a", "--ttl", "1y"]).0, 2);
    assert_eq!(shell.fails(&["token", "create", "--host", "a", "--policy", "no"]).0, 3);
    assert_eq!(shell.fails(&["token", "create", "--replace", "nobody"]).0, 3);
    shell.says(&["agent", "issue", "db-01", "--out", "db-01"]);
    assert_eq!(shell.fails(&["token", "create", "--host", "db-01"]).0, 6, "it is an agent already");
    shell.says(&["token", "create", "--replace", "db-01"]);
}

#[test]
fn completions_and_the_manual_are_printed() {
    let shell = Shell::new(PIPELINE);
    assert!(shell.says(&["completions", "bash"]).contains("_garam"));
    assert!(shell.says(&["man"]).contains(".TH garam"));
}

#[test]
fn contracts_are_proposed_from_a_sample_and_tested_by_their_owner() {
    let shell = Shell::new(PIPELINE);
    std::fs::write(shell.path().join("a.log"), "{\"id\":1,\"x\":\"y\"}\n{\"id\":2}\n\n").unwrap();
    let proposed = shell.says(&["contract", "infer", "a.log", "--stream", "orders"]);
    expect![[r#"
        [stream.orders.contract]
        format = "json"
        [stream.orders.contract.columns]
        id = "bigint not null"
        x = "text"
    "#]]
    .assert_eq(&proposed);
    assert_eq!(shell.fails(&["contract", "infer", "none.log"]).0, 1);
    std::fs::write(shell.path().join("empty.log"), "").unwrap();
    assert_eq!(shell.fails(&["contract", "infer", "empty.log"]).0, 3);

    let cases = "stream = 'orders'\n\
        [[case]]\nname = 'a row'\nrecord = '{\"id\":1,\"x\":2}'\nrow = { id = 1, _rest = '{\"x\":2}' }\n\
        [[case]]\nrecord = '{\"id\":\"x\"}'\nreason = 'type'\ndetail = 'column id'\n";
    std::fs::write(shell.path().join("good.toml"), cases).unwrap();
    let told = shell.says(&["test", "good.toml", "-o", "json"]);
    expect![[r#"
        [{"case":"a row","file":"good.toml","ok":true,"why":null},{"case":"case 2","file":"good.toml","ok":true,"why":null}]
    "#]]
    .assert_eq(&told);
    std::fs::write(
        shell.path().join("bad.toml"),
        cases.replace("id = 1,", "id = 2,").replace("'type'", "'range'"),
    )
    .unwrap();
    let output = shell.garam(&["test", "bad.toml"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("column id: expected 2, found 1"), "{text}");
    assert!(text.contains("put aside as type: column id: expected bigint, found \"x\""), "{text}");
    std::fs::write(shell.path().join("odd.toml"), cases.replace("'orders'", "'other'")).unwrap();
    let (code, text) = shell.fails(&["test", "odd.toml"]);
    assert_eq!((code, text.as_str()), (78, "garam: odd.toml: stream other is not configured\n"));
}

#[cfg(feature = "sql")]
#[test]
fn a_refinement_is_tried_and_tested_offline() {
    let sql = "sql = \"select id, 10 / id as part from input where id <> 3\"\n";
    let shell =
        Shell::new(&PIPELINE.replace("from = \"orders\"\n", &format!("from = \"orders\"\n{sql}")));
    std::fs::write(
        shell.path().join("s.json"),
        "{\"id\":5}\n{\"id\":0}\n{\"id\":3}\n{\"id\":\"x\"}\n",
    )
    .unwrap();
    let told = shell.says(&["sql", "--input", "s.json", "--pipeline", "p", "-o", "json"]);
    expect![[r#"
        {"filtered":1,"headers":0,"quarantined":[{"detail":"column part: Divide by zero error","line":2,"reason":"sql"},{"detail":"column id: expected bigint, found \"x\"","line":4,"reason":"type"}],"rows":[{"id":5,"part":2}]}
    "#]]
    .assert_eq(&told);
    let output = shell.garam(&["sql", "--input", "s.json", "--pipeline", "p"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "id  part\n5   2\n");
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(
        talk.contains("line 2 is put aside as sql: column part: Divide by zero error"),
        "{talk}"
    );
    assert!(talk.contains("1 rows, 2 put aside, 1 filtered"), "{talk}");

    let file = format!(
        "{}[contract]\nformat = 'json'\n[contract.columns]\nid = 'int'\n",
        sql.replace("id <> 3", "id < 4")
    );
    std::fs::write(shell.path().join("refine.toml"), &file).unwrap();
    let told = shell.says(&["sql", "--input", "s.json", "-f", "refine.toml", "-o", "json"]);
    assert!(told.contains("\"rows\":[{\"id\":3,\"part\":3}]"), "{told}");
    std::fs::write(shell.path().join("refine.toml"), file.replace("select id", "select idd"))
        .unwrap();
    let (code, text) = shell.fails(&["sql", "--input", "s.json", "-f", "refine.toml"]);
    assert_eq!(
        (code, text.as_str()),
        (
            78,
            "garam: refine.toml: sql: there is no column idd: did you mean id? (names are written as in the contract)\n"
        )
    );
    assert_eq!(shell.fails(&["sql", "--input", "s.json", "--pipeline", "q"]).0, 3);
    assert_eq!(shell.fails(&["sql", "--input", "s.json"]).0, 2);

    let cases = "pipeline = 'p'\n[[case]]\nrecord = '{\"id\":5}'\nrow = { part = 2 }\n\
        [[case]]\nrecord = '{\"id\":3}'\ndropped = 'filtered'\n[[case]]\nrecord = '{\"id\":0}'\nreason = 'sql'\ndetail = 'Divide by zero'\n";
    std::fs::write(shell.path().join("cases.toml"), cases).unwrap();
    shell.says(&["test", "cases.toml"]);
    std::fs::write(shell.path().join("cases.toml"), cases.replace("part = 2", "part = 3")).unwrap();
    assert_eq!(shell.garam(&["test", "cases.toml"]).status.code(), Some(1));

    let checked = shell.says(&["check", "-o", "json"]);
    assert!(
        checked.contains(
            "\"columns\":[\"id\",\"part\"],\"from\":\"orders\",\"name\":\"p\",\"sql\":\"select id"
        ),
        "{checked}"
    );
    assert!(shell.says(&["check"]).contains("its SQL gives id, part"));
}
