//! `[[syslog]]`: what is listened on, as written.
//!
//! In: one table. Out: a [`SyslogPlan`], or which key is wrong and what to do.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{ConfigError, Keys, spool};
use crate::source::syslog::SyslogPlan;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One `[[syslog]]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogTable {
    /// Label of the source; names its spool. Unique.
    pub name: String,
    /// The stream the messages go to.
    pub stream: String,
    /// `udp://ADDRESS:PORT`, `tcp://ADDRESS:PORT`, `unix:///PATH` (datagrams, as `/dev/log`), `unix-stream:///PATH`. At least one.
    pub listen: Vec<String>,
    /// What the spool may take on the disk, 1 MiB to 1 TiB. Default 64 MiB.
    #[serde(default = "spool::default_size")]
    pub spool: ByteSize,
    /// How long a message that is written may wait to be synced, and so to be shipped, 0 to 10 s. Default 100 ms.
    #[serde(default = "spool::default_sync", with = "humantime_serde")]
    pub sync: Duration,
    /// The longest message, 480 B to 1 MiB; a longer one is cut and counted. Default 64 KiB.
    #[serde(default = "default_max_message")]
    pub max_message: ByteSize,
    /// Connections at once, 1 to 65 536. Default 256.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// A connection on which nothing comes for so long is closed, 1 s to 30 days. Default 1 h.
    #[serde(default = "default_idle", with = "humantime_serde")]
    pub idle: Duration,
    /// Permissions of Unix sockets, octal. Default `0666`, so that every program may log.
    #[serde(default = "default_mode")]
    pub mode: String,
}

fn default_max_message() -> ByteSize {
    ByteSize::kib(64)
}

fn default_max_connections() -> usize {
    256
}

fn default_idle() -> Duration {
    Duration::from_secs(3600)
}

fn default_mode() -> String {
    "0666".into()
}

impl SyslogTable {
    pub(super) fn check(self, at: &Keys<'_>) -> Result<SyslogPlan, ConfigError> {
        let table = self.name.clone();
        let key = |field: &str| format!("syslog.{table}.{field}");
        if self.listen.is_empty() {
            return Err(at.bad(&key("listen"), "is empty", "name at least one address"));
        }
        let listen = self
            .listen
            .iter()
            .map(|text| {
                let why = |why| at.bad(&key("listen"), &format!("{text:?} {why}"), "correct it");
                text.parse().map_err(why)
            })
            .collect::<Result<_, _>>()?;
        at.size(&key("max_message"), self.max_message, ByteSize::b(480), ByteSize::mib(1))?;
        at.within(&key("max_connections"), self.max_connections, 1, 65_536)?;
        at.duration(&key("idle"), self.idle, Duration::from_secs(1), 30 * DAY)?;
        let mode = u32::from_str_radix(&self.mode, 8).ok().filter(|mode| *mode <= 0o777);
        let mode = mode.ok_or_else(|| {
            at.bad(
                &key("mode"),
                &format!("{:?} is no permissions", self.mode),
                "write e.g. \"0660\"",
            )
        })?;
        Ok(SyslogPlan {
            spool: spool::plan(at, "syslog", self.name, self.stream, self.spool, self.sync)?,
            listen,
            max_message: usize::try_from(self.max_message.as_u64()).unwrap_or(usize::MAX),
            max_connections: self.max_connections,
            idle: self.idle,
            mode,
        })
    }
}
