//! The admin doors: every route is asked as everybody, and who asked is in the audit log.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use garam_core::admin::ROUTES;
use garam_core::pki::{DAY, Pki, Role};
use garam_meta::Meta;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::{Client, tls, tls_as};
use crate::core_under_test::{Core, request};

/// What each route takes, said once more: a route that is new or changed its role fails here until somebody has looked.
const TAKES: [(&str, &str, Option<Role>); 13] = [
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/v1/tree", Some(Role::Viewer)),
    ("GET", "/v1/status", Some(Role::Viewer)),
    ("GET", "/v1/lag", Some(Role::Viewer)),
    ("GET", "/v1/dimensions", Some(Role::Viewer)),
    ("GET", "/v1/dimensions/{dimension}", Some(Role::Viewer)),
    ("POST", "/v1/dimensions/{dimension}/refresh", Some(Role::Operator)),
    ("GET", "/v1/tap/{pipeline}", Some(Role::Operator)),
    ("POST", "/v1/resume/{pipeline}", Some(Role::Operator)),
    ("GET", "/v1/definition", Some(Role::Admin)),
    ("POST", "/v1/reload", Some(Role::Admin)),
];
const REMOTE: &str = "remote_listen = \"127.0.0.1:0\"";

/// How a question went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// The route answered, whatever it said.
    Through,
    /// 403, by the gate.
    Refused,
    /// Not behind this door: 404 of the router itself.
    NotThere,
    /// No session.
    NoSession,
}

async fn core() -> Core {
    Core::with_admin(REMOTE).await
}

fn person(core: &Core, role: Role) -> PathBuf {
    let folder = core.folder.path().join(role.name());
    let authority = Pki::at(&core.plan.pki_dir).authority().unwrap();
    authority.issue_admin(role.name(), role, DAY, &folder).unwrap();
    folder
}

async fn ask_as(core: &Core, identity: &Path, method: &str, path: &str) -> (u16, String) {
    match tls(core.app.admin_remote_addr().unwrap(), identity).await {
        Ok(session) => request(session, method, path).await,
        Err(error) => (0, error),
    }
}

/// Routes that are parameterised are asked for a pipeline that does not exist: nothing is done, and the route says so itself.
fn went((status, body): &(u16, String)) -> Went {
    match status {
        0 => Went::NoSession,
        403 => Went::Refused,
        404 if body.is_empty() => Went::NotThere,
        _ => Went::Through,
    }
}

fn audit(core: &Core) -> Vec<Value> {
    let path = core.plan.data_dir.join("audit/audit.jsonl");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_table_of_routes_is_the_one_that_was_looked_at() {
    let table: Vec<_> = ROUTES.iter().map(|r| (r.method, r.path, r.needs)).collect();
    assert_eq!(table, TAKES, "a route was added or changed: say in TAKES what it takes");
    // The router is made from the table alone.
    let source = include_str!("../../src/admin/routes.rs");
    assert_eq!(source.matches(".route(").count(), 1, "a route beside the table has no gate");
    for other in ["doors.rs", "mod.rs", "caller.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin").join(other);
        assert!(!std::fs::read_to_string(path).unwrap().contains(".route("), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_exactly_those_who_may_ask_it() {
    let core = core().await;
    let people = Role::ALL.map(|role| (role, person(&core, role)));
    let agent = core.identity("web-01");
    let stranger = Core::start().await;
    let foreign = person(&stranger, Role::Admin);
    // Only the client is foreign: it trusts the core's root.
    std::fs::copy(core.plan.pki_dir.join("root.pem"), foreign.join("ca.pem")).unwrap();
    for (method, path, takes) in TAKES {
        let path = path.replace("{pipeline}", "nobody").replace("{dimension}", "nothing");
        let mut seen: BTreeMap<String, (Went, Went)> = BTreeMap::new();
        let mut note = |who: &str, answer: (u16, String), expected| {
            seen.insert(who.into(), (went(&answer), expected));
        };
        let open = takes.is_none();
        note("socket", core.ask_by(method, &path).await, Went::Through);
        let plain = TcpStream::connect(core.app.admin_addr()).await.unwrap();
        let expected = if open { Went::Through } else { Went::NotThere };
        note("plain", request(plain, method, &path).await, expected);
        let remote = core.app.admin_remote_addr().unwrap();
        let bare = TcpStream::connect(remote).await.unwrap();
        note("plain, at the TLS port", request(bare, method, &path).await, Went::NoSession);
        let nobody = match tls_as(remote, &core.plan.pki_dir.join("root.pem"), None).await {
            Ok(session) => request(session, method, &path).await,
            Err(error) => (0, error),
        };
        note("no certificate", nobody, Went::NoSession);
        note("foreign", ask_as(&core, &foreign, method, &path).await, Went::NoSession);
        note("agent", ask_as(&core, &agent, method, &path).await, Went::Refused);
        for (role, identity) in &people {
            let may = takes.is_none_or(|takes| *role >= takes);
            let expected = if may { Went::Through } else { Went::Refused };
            note(role.name(), ask_as(&core, identity, method, &path).await, expected);
        }
        for (who, (went, expected)) in seen {
            assert_eq!(went, expected, "{method} {path} as {who}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_certificate_opens_no_gateway_and_an_agents_no_admin_port() {
    let core = core().await;
    let admin = person(&core, Role::Admin);
    let refused = Client::connect(core.app.gateway_addr(), &admin).await;
    assert!(refused.is_err(), "an admin's certificate was taken for an agent's");
    let agent = core.identity("web-01");
    let (status, why) = ask_as(&core, &agent, "GET", "/healthz").await;
    assert_eq!(status, 403);
    assert!(why.contains("not issued by `garam admin issue`"), "{why}");
    assert!(Client::connect(core.app.gateway_addr(), &agent).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_opens_nothing_at_once_and_others_stay() {
    let core = core().await;
    let authority = Pki::at(&core.plan.pki_dir).authority().unwrap();
    let folder = core.folder.path().join("kim");
    let kim = authority.issue_admin("kim", Role::Operator, DAY, &folder).unwrap();
    let other = person(&core, Role::Operator);
    let (mut sender, connection) = {
        let session = tls(core.app.admin_remote_addr().unwrap(), &folder).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(session);
        hyper::client::conn::http1::handshake(io).await.unwrap()
    };
    tokio::spawn(connection);
    let question = || {
        let body = http_body_util::Empty::<hyper::body::Bytes>::new();
        hyper::Request::get("/v1/lag").header("host", "core").body(body).unwrap()
    };
    assert_eq!(sender.send_request(question()).await.unwrap().status(), 200);
    let meta = Meta::open(&core.plan.meta_path()).await.unwrap();
    meta.revoke(kim.id, u64::from(u32::MAX)).await.unwrap();
    let answer = sender.send_request(question()).await.unwrap();
    assert_eq!(answer.status(), 403, "the session that was open goes on");
    let (status, why) = ask_as(&core, &folder, "GET", "/healthz").await;
    assert_eq!((status, why.as_str()), (403, "this certificate is revoked"));
    assert_eq!(ask_as(&core, &other, "GET", "/v1/lag").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_and_who_was_refused_is_in_the_audit_log() {
    let core = core().await;
    let (viewer, operator) = (person(&core, Role::Viewer), person(&core, Role::Operator));
    ask_as(&core, &viewer, "POST", "/v1/resume/p").await;
    ask_as(&core, &operator, "POST", "/v1/resume/p").await;
    ask_as(&core, &operator, "GET", "/v1/tap/nobody%1b%5b2J").await;
    core.ask_by("POST", "/v1/resume/nobody").await;
    core.ask("/v1/status").await;
    let lines = audit(&core);
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let by = text("by").split(['(', ',']).next().unwrap_or_default().trim().to_owned();
            [text("what"), text("outcome"), by, text("asked"), text("answer")].join(" | ")
        })
        .collect();
    let uid = format!("uid {}", rustix::process::geteuid().as_raw());
    assert_eq!(
        told,
        [
            "admin-resume | refused | viewer viewer | POST /v1/resume/p | ".to_owned(),
            "admin-resume | refused | operator operator | POST /v1/resume/p | 409".into(),
            "admin-tap | refused | operator operator | GET /v1/tap/nobody%1b%5b2J | 404".into(),
            format!("admin-resume | refused | {uid} | POST /v1/resume/nobody | 404"),
        ],
        "a status is not noted: {lines:?}"
    );
    assert!(lines.iter().all(|line| line["at"].is_string()));
    assert!(lines[0]["why"].as_str().unwrap().contains("takes the role operator"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_tells_no_reasons_and_no_names() {
    let core = Core::start().await;
    core.eventually("readiness", || async { core.ask_plainly("/readyz").await.0 == 200 }).await;
    let path = core.folder.path().join("data.sqlite");
    let break_it = "drop table lines; create table lines (other text) strict";
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect(&format!(
        "sqlite://{}",
        path.display()
    ))
    .await
    .unwrap();
    sqlx::Executor::execute(&mut database, break_it).await.unwrap();
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    core.eventually("trouble", || async { core.ask("/readyz").await.0 == 503 }).await;
    assert!(core.ask("/readyz").await.1.contains("parked"));
    let (status, text) = core.ask_plainly("/readyz").await;
    assert_eq!((status, text.as_str()), (503, "not ready: `garam status` says why\n"));
    assert_eq!(core.ask_plainly("/v1/status").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_its_owners_and_one_that_was_left_behind_is_replaced() {
    let core = Core::start().await;
    let socket = core.plan.admin.socket.clone();
    let file = std::fs::symlink_metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let core = core.restart().await;
    assert_eq!(core.ask("/healthz").await, (200, "ok\n".into()));
    let Core { app, plan, folder } = core;
    app.stop(Duration::from_secs(20)).await.unwrap();
    drop(app);
    assert!(!socket.try_exists().unwrap(), "a stopped core takes its socket along");
    // What a killed one leaves: a name at which nobody answers.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let app = garam_core::app::App::start(plan.clone()).await.unwrap();
    let core = Core { app, plan, folder };
    assert_eq!(core.ask("/healthz").await, (200, "ok\n".into()));
    core.app.stop(Duration::from_secs(20)).await.unwrap();
    std::fs::write(&socket, "somebody's notes").unwrap();
    let Err(refused) = garam_core::app::App::start(core.plan.clone()).await else {
        panic!("it wrote over a file");
    };
    assert!(refused.to_string().contains("no socket lies there"), "{refused}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "somebody's notes");
}
