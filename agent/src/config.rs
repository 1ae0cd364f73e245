//! The agent's configuration: one TOML file, parsed and checked in one step into a [`Plan`].
//!
//! In: the text of `agent.toml`. Out: a [`Plan`] that nothing behind it validates again. Promise: an unknown key, a value
//! out of bounds, a glob that does not compile or a name used twice is an error that names the file, the key and what to
//! do. Not here: reading certificates ([`crate::tls`]), walking globs ([`crate::source`]).

mod journal;
mod lines;
mod spool;
mod syslog;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use garam_proto::{Codec, SourceName, StreamName};
use serde::Deserialize;

use crate::lines::{Container, Keep};
use crate::source::file::FileSet;
use crate::source::intake::IntakePlan;
pub use journal::JournalTable;
pub use lines::{MaskTable, MultilineTable};
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

/// `[ship]`: how blocks travel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ship {
    /// `zstd`, `lz4` or `none`. Default `zstd`.
    pub codec: String,
    /// Compression level of zstd, -7 to 19. Default 1.
    pub level: i32,
    /// How long a block may wait for more lines, 0 to 10 s; the core may raise it. Default 20 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Raw size at which a block is cut, 64 KiB to 1 MiB. Default 256 KiB.
    pub block_size: ByteSize,
    /// Upper bound of unacknowledged payload per stream and partition, 1 MiB to 1 GiB; the core may say less.
    /// Default 8 MiB.
    pub window: ByteSize,
    /// How often a file that was written lately is looked at, 10 ms to 10 s; idle files up to ten times less often.
    /// Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// How often folders are searched for new and renamed files, 100 ms to 10 min. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub discover: Duration,
    /// Raw bytes read per second over all files, 64 KiB to 100 GiB. Default: no limit.
    pub rate: Option<ByteSize>,
    /// How many bytes deleted files that are not read to their end may keep on the disk; beyond it the oldest is given up
    /// and its unread rest becomes a gap. 1 MiB and more. Default 1 GiB.
    pub hold_unlinked: ByteSize,
    /// How many files are held open at once; idle ones beyond it are closed and watched by name. 16 to 1 000 000, and
    /// never more than the system's limit less 64. Default 1000.
    pub max_open: usize,
    /// Have the kernel tell what changes in the folders (inotify), so that files are found at once and searches may be rare.
    /// Default true.
    pub watch: bool,
}

impl Default for Ship {
    fn default() -> Self {
        Self {
            codec: "zstd".into(),
            level: 1,
            linger: Duration::from_millis(20),
            block_size: ByteSize::kib(256),
            window: ByteSize::mib(8),
            poll: Duration::from_millis(100),
            discover: Duration::from_secs(1),
            rate: None,
            hold_unlinked: ByteSize::gib(1),
            max_open: 1000,
            watch: true,
        }
    }
}

/// One `[[file]]` table: a set of files that go to one stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTable {
    /// Label of the source; renaming it repeats nothing. Unique.
    pub name: String,
    /// Absolute globs; `*` stays inside a folder, `**` crosses folders. At least one.
    pub include: Vec<String>,
    /// Globs of files to leave alone, matched on the whole path, or on the file's name when without `/`. Default none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The stream the lines go to.
    pub stream: String,
    /// `beginning` or `end`; `end` counts only for files present when the agent runs for the first time.
    /// Default `beginning`.
    #[serde(default)]
    pub start_at: StartAt,
    /// The longest line that travels whole, 1 KiB to 64 MiB; a longer one is cut into pieces. Default 1 MiB.
    #[serde(default = "default_max_record")]
    pub max_record: ByteSize,
    /// Files that were not written for so long are not begun; files the agent knows already are not affected. At least 1 s.
    /// Default: none is too old.
    #[serde(default, with = "humantime_serde")]
    pub ignore_older: Option<Duration>,
    /// A last line without its end is shipped, marked as a piece, when the file was quiet for so long. At least 100 ms.
    /// Default: it is held until its end is written.
    #[serde(default, with = "humantime_serde")]
    pub flush_partial: Option<Duration>,
    /// What a container runtime wrapped around each line, `cri` or `docker`; it is taken off, and parts of one line are
    /// joined. Default none.
    pub container: Option<Container>,
    /// How time and stream of a container's line travel: `cri` (`time stream F content`, for a contract of that format) or `json` (members
    /// `container_time`, `container_stream` beside those of the line). Default: they do not.
    pub container_meta: Option<Keep>,
    /// Which lines form one record. Default: each its own.
    pub multiline: Option<MultilineTable>,
    /// Patterns that are replaced before anything leaves the host. Default none.
    #[serde(default)]
    pub mask: Vec<MaskTable>,
    /// A name of the WHATWG's list: `utf-8` (bytes pass unchanged), `utf-16le`, `windows-1252`, `shift_jis`, `gb18030` and so on;
    /// `iso-8859-1` is that itself. Default `utf-8`.
    pub encoding: Option<String>,
    /// `read` or `skip`: what becomes of files that are compressed with gzip or zstd, known by their content. Read means
    /// what they hold, each line once, also when the file it was made from was read before. Default `read`.
    #[serde(default)]
    pub compressed: Compressed,
    /// How long a compressed file that is not complete must stay as it is until it counts as damaged, 1 s to 1 day. Default 60 s.
    #[serde(default = "default_compressed_wait", with = "humantime_serde")]
    pub compressed_wait: Duration,
    /// Leave out NUL bytes at the beginning of a line: holes of a crash or a truncation. Default false.
    #[serde(default)]
    pub skip_nul: bool,
}

/// Where reading of a file begins that was there before the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    #[default]
    Beginning,
    End,
}

/// What becomes of compressed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compressed {
    #[default]
    Read,
    Skip,
}

pub(crate) const COMPRESSED_WAIT: Duration = Duration::from_secs(60);

fn default_compressed_wait() -> Duration {
    COMPRESSED_WAIT
}

fn default_enrol_port() -> u16 {
    7471
}

fn default_state_dir() -> PathBuf {
    "/var/lib/garam-agent".into()
}

fn default_max_record() -> ByteSize {
    ByteSize::mib(1)
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

#[derive(Debug, Clone)]
pub struct ShipPlan {
    pub codec: Codec,
    pub level: i32,
    pub linger: Duration,
    pub block_size: usize,
    pub window: u64,
    pub poll: Duration,
    pub discover: Duration,
    pub rate: Option<u64>,
    pub hold_unlinked: u64,
    pub max_open: usize,
    pub watch: bool,
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

impl Ship {
    fn check(self, at: &Keys<'_>) -> Result<ShipPlan, ConfigError> {
        let codec = self
            .codec
            .parse::<Codec>()
            .map_err(|e| at.bad("ship.codec", &e.to_string(), "choose one of them"))?;
        at.within("ship.level", self.level, -7, 19)?;
        at.duration("ship.linger", self.linger, Duration::ZERO, Duration::from_secs(10))?;
        at.size("ship.block_size", self.block_size, ByteSize::kib(64), ByteSize::mib(1))?;
        at.size("ship.window", self.window, ByteSize::mib(1), ByteSize::gib(1))?;
        at.duration("ship.poll", self.poll, Duration::from_millis(10), Duration::from_secs(10))?;
        at.duration(
            "ship.discover",
            self.discover,
            Duration::from_millis(100),
            Duration::from_secs(600),
        )?;
        if let Some(rate) = self.rate {
            at.size("ship.rate", rate, ByteSize::kib(64), ByteSize::gib(100))?;
        }
        let most = ByteSize::b(u64::MAX);
        at.size("ship.hold_unlinked", self.hold_unlinked, ByteSize::mib(1), most)?;
        at.within("ship.max_open", self.max_open, 16, 1_000_000)?;
        Ok(ShipPlan {
            codec,
            level: self.level,
            linger: self.linger,
            block_size: usize::try_from(self.block_size.as_u64()).unwrap_or(usize::MAX),
            window: self.window.as_u64(),
            poll: self.poll,
            discover: self.discover,
            rate: self.rate.map(|rate| rate.as_u64()),
            hold_unlinked: self.hold_unlinked.as_u64(),
            max_open: self.max_open,
            watch: self.watch,
        })
    }
}

impl FileTable {
    fn check(self, at: &Keys<'_>) -> Result<FileSet, ConfigError> {
        let table = self.name.clone();
        let key = |field: &str| format!("file.{table}.{field}");
        let name = SourceName::new(self.name.as_str())
            .map_err(|e| at.bad(&key("name"), &e.to_string(), "rename it"))?;
        let stream = StreamName::new(self.stream.as_str())
            .map_err(|e| at.bad(&key("stream"), &e.to_string(), "rename it"))?;
        at.size(&key("max_record"), self.max_record, ByteSize::kib(1), ByteSize::mib(64))?;
        if self.include.is_empty() {
            return Err(at.bad(&key("include"), "is empty", "name at least one glob"));
        }
        let max_record = usize::try_from(self.max_record.as_u64()).unwrap_or(usize::MAX);
        let year = Duration::from_secs(100 * 365 * 24 * 3600);
        if let Some(age) = self.ignore_older {
            at.duration(&key("ignore_older"), age, Duration::from_secs(1), year)?;
        }
        if let Some(quiet) = self.flush_partial {
            at.duration(&key("flush_partial"), quiet, Duration::from_millis(100), year)?;
        }
        let (least, day) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
        at.duration(&key("compressed_wait"), self.compressed_wait, least, day)?;
        let mut set =
            FileSet::new(name, stream, &self.include, &self.exclude, self.start_at, max_record)
                .map_err(|e| {
                    at.bad(&key(e.field), &format!("{:?} {}", e.glob, e.why), "correct the glob")
                })?;
        let container = (self.container, self.container_meta);
        let encoding = self.encoding.as_deref();
        let rules = lines::rules(container, self.multiline, &self.mask, encoding, self.skip_nul);
        set.rules = rules.map_err(|w| at.bad(&key(w.key), &w.problem, w.action))?.map(Arc::new);
        if set.rules.is_some() && self.flush_partial.is_some() {
            let problem =
                "does not go together with container, multiline, mask, encoding, skip_nul";
            return Err(at.bad(&key("flush_partial"), problem, "leave it out"));
        }
        set.ignore_older = self.ignore_older;
        set.flush_partial = self.flush_partial;
        set.compressed = self.compressed;
        set.compressed_wait = self.compressed_wait;
        Ok(set)
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

/// Builds errors that name file and key.
struct Keys<'a> {
    path: &'a Path,
}

impl Keys<'_> {
    fn bad(&self, key: &str, problem: &str, action: &str) -> ConfigError {
        ConfigError::Value {
            path: self.path.into(),
            key: key.into(),
            problem: problem.into(),
            action: action.into(),
        }
    }

    fn within<T: PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        value: T,
        low: T,
        high: T,
    ) -> Result<(), ConfigError> {
        if value < low || value > high {
            let action = format!("choose {low} to {high}");
            return Err(self.bad(key, &format!("{value} is out of bounds"), &action));
        }
        Ok(())
    }

    fn size(
        &self,
        key: &str,
        value: ByteSize,
        low: ByteSize,
        high: ByteSize,
    ) -> Result<(), ConfigError> {
        self.within(key, value, low, high)
    }

    fn duration(
        &self,
        key: &str,
        value: Duration,
        low: Duration,
        high: Duration,
    ) -> Result<(), ConfigError> {
        if value < low || value > high {
            let action = format!("choose {low:?} to {high:?}");
            return Err(self.bad(key, &format!("{value:?} is out of bounds"), &action));
        }
        Ok(())
    }
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
