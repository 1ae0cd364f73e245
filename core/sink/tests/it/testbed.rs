//! Real servers from the testbed.
//!
//! One server of each kind serves the whole binary and ends with it; a test that breaks its server starts another. A machine
//! that cannot have them fails the tests: without a server nothing here is proved.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../soak-tests/testbed/");

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MySql,
    MariaDb,
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

/// The server of a kind that all tests share.
pub(crate) fn shared(kind: Kind) -> &'static Server {
    static POSTGRES: OnceLock<Server> = OnceLock::new();
    static MYSQL: OnceLock<Server> = OnceLock::new();
    static MARIADB: OnceLock<Server> = OnceLock::new();
    let server = match kind {
        Kind::Postgres => &POSTGRES,
        Kind::MySql => &MYSQL,
        Kind::MariaDb => &MARIADB,
    };
    server.get_or_init(|| Server::start(kind))
}

/// A number that no other test of this run has.
pub(crate) fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        let name = format!("garam-sink-{}-{}-{}", kind.name(), std::process::id(), next());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("throwaway"), "").unwrap();
        let owner = std::process::id().to_string();
        let said = testbed(kind, "start", &folder, &[&owner]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let port = u16::try_from(said["port"].as_u64().unwrap()).unwrap();
        Self { kind, folder, port }
    }

    /// As a power cut would end it.
    pub(crate) fn kill(&self) {
        testbed(self.kind, "kill", &self.folder, &[]);
    }

    pub(crate) fn start_again(&self) {
        testbed(self.kind, "start", &self.folder, &[&std::process::id().to_string()]);
    }
}

fn testbed(kind: Kind, verb: &str, folder: &Path, more: &[&str]) -> String {
    let script = format!("{TESTBED}{}", kind.name());
    let done = Command::new(script).arg(verb).arg(folder).args(more).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "no {} server to test against: {errors}", kind.name());
    String::from_utf8(done.stdout).unwrap()
}
