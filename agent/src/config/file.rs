//! `[[file]]`: a set of files that go to one stream.
//!
//! In: a table as written. Out: a [`FileSet`] with compiled globs and rules for its lines (`lines`). Not here: walking the globs
//! ([`crate::source::file`]).

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use garam_proto::{SourceName, StreamName};
use serde::Deserialize;

use super::ConfigError;
use super::keys::Keys;
use super::lines::{self, MaskTable, MultilineTable};
use crate::lines::{Container, Keep};
use crate::source::file::FileSet;

/// One table.
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

fn default_max_record() -> ByteSize {
    ByteSize::mib(1)
}

impl FileTable {
    pub(super) fn check(self, at: &Keys<'_>) -> Result<FileSet, ConfigError> {
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
