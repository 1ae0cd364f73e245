//! Real database servers of the testbed, each in a folder of its own; a machine that cannot have one fails the test.

use std::path::PathBuf;
use std::process::Command;

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
