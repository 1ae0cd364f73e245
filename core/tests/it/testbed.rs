//! Real database servers of the testbed, each in a folder of its own; a machine that cannot have one fails the test. And the
//! story that is told of each.

use std::path::PathBuf;
use std::process::Command;

use crate::client::Client;
use crate::core_under_test::Core;

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../soak-tests/testbed/");

/// A server that ends with this process.
pub(crate) struct Server {
    kind: &'static str,
    folder: PathBuf,
    pub(crate) url: String,
    pub(crate) admin_url: String,
}

impl Server {
    /// `name` tells the tests of this process apart.
    pub(crate) fn start(kind: &'static str, name: &str) -> Self {
        let folder = format!("garam-core-{kind}-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("throwaway"), "").unwrap();
        let mut server = Self { kind, folder, url: String::new(), admin_url: String::new() };
        let said: serde_json::Value = serde_json::from_str(&server.testbed("start")).unwrap();
        server.url = said["url"].as_str().unwrap().to_owned();
        server.admin_url = said["admin_url"].as_str().unwrap().to_owned();
        server
    }

    /// As a power cut would end it.
    pub(crate) fn kill(&self) {
        self.testbed("kill");
    }

    pub(crate) fn start_again(&self) {
        self.testbed("start");
    }

    fn testbed(&self, verb: &str) -> String {
        let done = self.command(verb).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "no {} server to test against: {errors}", self.kind);
        String::from_utf8(done.stdout).unwrap()
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(format!("{TESTBED}{}", self.kind));
        command.arg(verb).arg(&self.folder);
        if verb == "start" {
            command.arg(std::process::id().to_string());
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be down already, and it ends with this process in any case.
        let _ended = self.command("kill").output().is_ok();
    }
}

/// A core delivers to a server of this kind, over a kill of the server and a restart of its own. `lines` reads the table.
pub(crate) async fn lines_arrive_once_over_a_kill(
    kind: &'static str,
    to: &str,
    lines: impl AsyncFn(&str) -> Vec<String>,
) -> (Core, Server) {
    let server = Server::start(kind, "killed");
    let url = server.url.as_str();
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("db.url");
    std::fs::write(&address, url).unwrap();
    let core = Core::delivering(folder, &format!("{to}]\nurl_file = {address:?}")).await;
    let identity = core.identity("web-01");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(0));
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    agent.acked(1, 8).await;
    core.eventually("two lines", || async { lines(url).await == ["one", "two"] }).await;

    // The server is gone; what is acknowledged meanwhile waits in the log.
    server.kill();
    agent.push(1, 1, 1, 8, "three\n").await;
    agent.acked(1, 14).await;
    server.start_again();
    let expected = ["one", "two", "three"];
    core.eventually("three lines", || async { lines(url).await == expected }).await;

    let core = core.restart().await;
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(14));
    agent.push(1, 1, 1, 14, "four\n").await;
    agent.acked(1, 19).await;
    let expected = ["one", "two", "three", "four"];
    core.eventually("four lines", || async { lines(url).await == expected }).await;
    (core, server)
}
