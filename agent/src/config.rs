//! The agent's configuration: one TOML file, parsed and checked in one step into a [`Plan`].
//!
//! In: the text of `agent.toml`. Out: a [`Plan`] that nothing behind it validates again. Promise: an unknown key, a value
//! out of bounds, a glob that does not compile or a name used twice is an error that names the file, the key and what to
//! do. Here: the file as a whole; each table has a file of its own. Not here: reading certificates ([`crate::tls`]), walking globs ([`crate::source`]).

mod file;
mod journal;
mod keys;
mod lines;
mod ship;
mod spool;
mod syslog;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use garam_proto::SourceName;
use serde::Deserialize;

use crate::source::file::FileSet;
use crate::source::intake::IntakePlan;
pub(crate) use file::COMPRESSED_WAIT;
pub use file::{Compressed, FileTable, StartAt};
pub use journal::JournalTable;
use keys::Keys;
pub use lines::{MaskTable, MultilineTable};
pub use ship::{Ship, ShipPlan};
pub use syslog::SyslogTable;

/// Where the configuration lies unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/garam-agent/agent.toml";

/// The file as written. Every field says what it means, its default and its bounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the checkpoint and the status socket; one agent at a time. Default `/var/lib/garam-agent`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Folder with `ca.pem`, `cert.pem` and `key.pem`, as `garam agent issue` writes it. Default `{state_dir}/identity`.
    pub identity_dir: Option<PathBuf>,
    /// Addresses of cores, `host:port`, tried in order. At least one.
    pub core: Vec<String>,
    /// The name the core's certificate must carry. Default: the host part of the address.
    pub server_name: Option<String>,
    /// The port of each core on which an agent whose certificate has ended gets another. Default 7471.
    #[serde(default = "default_enrol_port")]
    pub enrol_port: u16,
    /// Where `/metrics` and `/healthz` are served over HTTP, `address:port`. Default: nowhere.
    pub metrics: Option<SocketAddr>,
    #[serde(default)]
    pub ship: Ship,
    /// What to tail. At least one table of this kind or another.
    #[serde(default)]
    pub file: Vec<FileTable>,
    /// What to listen on.
    #[serde(default)]
    pub syslog: Vec<SyslogTable>,
    /// What to take from the systemd journal.
    #[serde(default)]
    pub journal: Vec<JournalTable>,
}

fn default_enrol_port() -> u16 {
    7471
}

fn default_state_dir() -> PathBuf {
    "/var/lib/garam-agent".into()
}

/// The checked form.
#[derive(Debug, Clone)]
pub struct Plan {
    pub state_dir: PathBuf,
    pub identity_dir: PathBuf,
    pub cores: Vec<CoreAddress>,
    pub metrics: Option<SocketAddr>,
    pub ship: ShipPlan,
    pub files: Vec<FileSet>,
    pub intake: Vec<IntakePlan>,
}

/// A core and the name its certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreAddress {
    pub address: String,
    pub server_name: String,
    pub enrol_port: u16,
}

impl CoreAddress {
    /// The same core's port for enrolment.
    pub fn enrolment(&self) -> Self {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        Self { address: format!("{host}:{}", self.enrol_port), ..self.clone() }
    }
}

/// Why a configuration cannot be used. Exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read configuration {path}: {source}; create it, or name another with --config")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {path} is not valid: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("configuration {path}, key {key}: {problem}; {action}")]
    Value { path: PathBuf, key: String, problem: String, action: String },
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Plan, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Parses and checks a text; `path` is for the messages.
    pub fn parse(path: &Path, text: &str) -> Result<Plan, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: source.into() })?;
        config.check(path)
    }

    fn check(self, path: &Path) -> Result<Plan, ConfigError> {
        let at = Keys { path };
        if !self.state_dir.is_absolute() {
            return Err(at.bad("state_dir", "is not an absolute path", "begin it with /"));
        }
        if self.core.is_empty() {
            return Err(at.bad("core", "is empty", "name at least one core as \"host:port\""));
        }
        let cores = self
            .core
            .iter()
            .map(|address| core_address(&at, address, self.server_name.as_deref(), self.enrol_port))
            .collect::<Result<_, _>>()?;
        let ship = self.ship.check(&at)?;
        if self.file.is_empty() && self.syslog.is_empty() && self.journal.is_empty() {
            return Err(at.bad("file", "nothing to read", "add a [[file]] table"));
        }
        let mut files: Vec<FileSet> = Vec::with_capacity(self.file.len());
        for table in self.file {
            let set = table.check(&at)?;
            if files.iter().any(|other| other.name == set.name) {
                let key = format!("file.{}.name", set.name);
                return Err(at.bad(&key, "is used twice", "give each [[file]] its own name"));
            }
            files.push(set);
        }
        let syslog = self.syslog.into_iter().map(|table| table.check(&at).map(IntakePlan::Syslog));
        let journal = self.journal.into_iter();
        let journal = journal.map(|table| table.check(&at).map(IntakePlan::Journal));
        let intake: Vec<IntakePlan> = syslog.chain(journal).collect::<Result<_, _>>()?;
        let mut names: Vec<&SourceName> = files.iter().map(|set| &set.name).collect();
        for plan in &intake {
            let name = &plan.spool().name;
            if names.contains(&name) {
                let key = format!("{}.{name}.name", plan.kind());
                return Err(at.bad(&key, "is used twice", "give each table its own name"));
            }
            names.push(name);
        }
        let identity_dir = self.identity_dir.unwrap_or_else(|| self.state_dir.join("identity"));
        let metrics = self.metrics;
        Ok(Plan { state_dir: self.state_dir, identity_dir, cores, metrics, ship, files, intake })
    }
}

fn core_address(
    at: &Keys<'_>,
    address: &str,
    server_name: Option<&str>,
    enrol_port: u16,
) -> Result<CoreAddress, ConfigError> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| at.bad("core", &format!("{address:?} has no port"), "write host:port"))?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(at.bad("core", &format!("{address:?} is not host:port"), "write host:port"));
    }
    let name = server_name.unwrap_or_else(|| host.trim_matches(['[', ']'])).to_owned();
    rustls_pki_types::ServerName::try_from(name.as_str()).map_err(|_| {
        let problem = format!("{name:?} is no host name or IP address");
        at.bad("server_name", &problem, "set server_name to the name in the core's certificate")
    })?;
    Ok(CoreAddress { address: address.into(), server_name: name, enrol_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "core = [\"core-1:7470\"]\n[[file]]\nname = \"a\"\ninclude = [\"/var/log/*.log\"]\nstream = \"raw\"\n";

    fn check(text: &str, expect: expect_test::Expect) {
        let got = match Config::parse(Path::new("agent.toml"), text) {
            Ok(plan) => format!("{:?} {:?}", plan.cores, plan.identity_dir),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&got);
    }

    #[test]
    fn the_least_configuration_is_enough() {
        check(
            LEAST,
            expect_test::expect![[
                r#"[CoreAddress { address: "core-1:7470", server_name: "core-1", enrol_port: 7471 }] "/var/lib/garam-agent/identity""#
            ]],
        );
    }

    #[test]
    fn a_bad_value_names_file_key_and_action() {
        check(
            &LEAST.replace("stream", "max_record = \"1GiB\"\nstream"),
            expect_test::expect![
                "configuration agent.toml, key file.a.max_record: 1.0 GiB is out of bounds; choose 1.0 KiB to 64.0 MiB"
            ],
        );
        check(
            &LEAST.replace("/var/log/*.log", "var/[.log"),
            expect_test::expect![[
                r#"configuration agent.toml, key file.a.include: "var/[.log" is not an absolute path; correct the glob"#
            ]],
        );
        check(
            &LEAST.replace(":7470", ""),
            expect_test::expect![[
                r#"configuration agent.toml, key core: "core-1" has no port; write host:port"#
            ]],
        );
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = Config::parse(Path::new("agent.toml"), &LEAST.replace("stream", "straem"));
        assert!(error.unwrap_err().to_string().contains("straem"));
    }
}
