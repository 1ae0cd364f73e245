//! `[[journal]]`: which entries of the systemd journal, as written.
//!
//! In: one table. Out: a [`JournalPlan`], or which key is wrong and what to do.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{ConfigError, Keys, StartAt, spool};
use crate::source::journal::JournalPlan;

/// One `[[journal]]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalTable {
    /// Label of the source; names its spool. Unique.
    pub name: String,
    /// The stream the entries go to, as lines of JSON.
    pub stream: String,
    /// Only entries of these units. Default all.
    #[serde(default)]
    pub units: Vec<String>,
    /// Only entries at least as urgent as this (`err`, `warning` …), or in a range (`emerg..err`). Default all.
    pub priority: Option<String>,
    /// Only entries with these fields, each `FIELD=value`; `+` between two of them means or. Default all.
    #[serde(default)]
    pub matches: Vec<String>,
    /// Folder of the journal's files. Default: the system's.
    pub directory: Option<PathBuf>,
    /// The journal's files themselves, absolute globs. Default: those of the folder.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// `beginning` or `end`, where nothing was ever read. Default `beginning`.
    #[serde(default)]
    pub start_at: StartAt,
    /// What the spool may take on the disk, 1 MiB to 1 TiB. Default 64 MiB.
    #[serde(default = "spool::default_size")]
    pub spool: ByteSize,
    /// How long an entry that is written may wait to be synced, and so to be shipped, 0 to 10 s. Default 100 ms.
    #[serde(default = "spool::default_sync", with = "humantime_serde")]
    pub sync: Duration,
    /// The longest value of a field, 1 KiB to 1 MiB; a longer one is cut and its entry counted. Default 64 KiB.
    #[serde(default = "default_max_field")]
    pub max_field: ByteSize,
    /// The program that reads the journal. Default `journalctl`, from PATH.
    #[serde(default = "default_journalctl")]
    pub journalctl: PathBuf,
}

fn default_max_field() -> ByteSize {
    ByteSize::kib(64)
}

fn default_journalctl() -> PathBuf {
    "journalctl".into()
}

impl JournalTable {
    pub(super) fn check(self, at: &Keys<'_>) -> Result<JournalPlan, ConfigError> {
        let table = self.name.clone();
        let key = |field: &str| format!("journal.{table}.{field}");
        at.size(&key("max_field"), self.max_field, ByteSize::kib(1), ByteSize::mib(1))?;
        let is_match = |text: &str| {
            let name = text.split_once('=').map(|(name, _)| name).unwrap_or_default();
            let sound = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            text == "+" || (!name.is_empty() && name.chars().all(sound))
        };
        if let Some(bad) = self.matches.iter().find(|text| !is_match(text)) {
            let problem = format!("{bad:?} is no match");
            return Err(at.bad(&key("matches"), &problem, "write FIELD=value, or +"));
        }
        if self.directory.is_some() && !self.files.is_empty() {
            let problem = "does not go together with files";
            return Err(at.bad(&key("directory"), problem, "leave one of them out"));
        }
        for (field, path) in [("directory", &self.directory)]
            .into_iter()
            .filter_map(|(field, path)| path.as_ref().map(|path| (field, path)))
            .chain(self.files.iter().map(|path| ("files", path)))
        {
            if !path.is_absolute() {
                let problem = format!("{} is not an absolute path", path.display());
                return Err(at.bad(&key(field), &problem, "begin it with /"));
            }
        }
        Ok(JournalPlan {
            spool: spool::plan(at, "journal", self.name, self.stream, self.spool, self.sync)?,
            units: self.units,
            priority: self.priority,
            directory: self.directory,
            files: self.files,
            matches: self.matches,
            start_at: self.start_at,
            max_field: usize::try_from(self.max_field.as_u64()).unwrap_or(usize::MAX),
            journalctl: self.journalctl,
        })
    }
}
