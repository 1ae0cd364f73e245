//! The audit log: who did or was refused what, when, one JSON object a line in `DATA_DIR/audit/audit.jsonl`.
//!
//! In: events of the running core and of verbs beside it. Out: lines that are only ever appended; at 16 MiB the file is put
//! aside as `audit.jsonl.1` and so on, the eight newest stay. Promise: what was allowed is on stable storage before the answer
//! leaves; refusals of one `what` are written at most ten times a second, the rest is counted in the next line (`suppressed`), so
//! that a flood of strangers fills no disk and hides nothing else. Not here: secrets, and what agents send.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value};

const MAX_BYTES: u64 = 16 * 1024 * 1024;
const KEPT: u32 = 8;
/// Refusals of one `what` a second, and at once.
const REFUSALS: f64 = 10.0;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Refused,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Event {
    what: &'static str,
    outcome: Outcome,
    fields: Map<String, Value>,
}

impl Event {
    pub fn new(what: &'static str, outcome: Outcome) -> Self {
        Self { what, outcome, fields: Map::new() }
    }

    /// Of a verb on this machine: its user.
    #[must_use]
    pub fn by_this_user(self) -> Self {
        self.with("by", format_args!("uid {}", rustix::process::getuid().as_raw()))
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.insert(name.to_owned(), Value::String(value.to_string()));
        self
    }
}

/// The file. Clones write to the same one; so do other processes.
#[derive(Debug, Clone)]
pub struct Audit {
    path: PathBuf,
    refusals: Arc<Mutex<Refusals>>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// How many more of each `what` may be written, and when that was counted.
    left: BTreeMap<&'static str, (f64, Instant)>,
    suppressed: u64,
}

impl Audit {
    pub fn in_folder(data_dir: &Path) -> Self {
        Self { path: data_dir.join("audit").join("audit.jsonl"), refusals: Arc::default() }
    }

    /// Writes an event without holding up the runtime. One that cannot be written is told in the log and keeps nobody from
    /// working. False when it is one refusal of too many, and only counted.
    pub async fn record(&self, event: Event) -> bool {
        let Some(suppressed) = self.admit(&event) else { return false };
        let audit = self.clone();
        if tokio::task::spawn_blocking(move || audit.write(&event, suppressed)).await.is_err() {
            tracing::error!("an audit event was not written");
        }
        true
    }

    pub fn record_now(&self, event: &Event) {
        if let Some(suppressed) = self.admit(event) {
            self.write(event, suppressed);
        }
    }

    fn write(&self, event: &Event, suppressed: u64) {
        if let Err(error) = self.append(event, suppressed) {
            tracing::error!(
                path = %self.path.display(), %error, what = event.what,
                action = "make room or grant the right to write there",
                "cannot write the audit log"
            );
        }
    }

    /// How many refusals were left out before this event; `None` leaves this one out too.
    fn admit(&self, event: &Event) -> Option<u64> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if event.outcome == Outcome::Refused {
            let now = Instant::now();
            let (left, at) = refusals.left.entry(event.what).or_insert((REFUSALS, now));
            let grown = now.duration_since(*at).as_secs_f64() * REFUSALS;
            (*left, *at) = ((*left + grown).min(REFUSALS), now);
            if *left < 1.0 {
                refusals.suppressed += 1;
                return None;
            }
            *left -= 1.0;
        }
        Some(std::mem::take(&mut refusals.suppressed))
    }

    fn append(&self, event: &Event, suppressed: u64) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Held for the line alone, against a rotation by another process.
        let lock = File::create(folder.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        self.rotate()?;
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(line(event, suppressed).as_bytes())?;
        file.sync_data()
    }

    fn rotate(&self) -> io::Result<()> {
        match std::fs::metadata(&self.path) {
            Ok(file) if file.len() >= MAX_BYTES => {}
            _ => return Ok(()),
        }
        let numbered = |number: u32| self.path.with_extension(format!("jsonl.{number}"));
        for number in (1..KEPT).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, numbered(1))
    }
}

fn line(event: &Event, suppressed: u64) -> String {
    let mut fields = event.fields.clone();
    let outcome = if event.outcome == Outcome::Allowed { "allowed" } else { "refused" };
    fields.insert("at".into(), jiff::Timestamp::now().to_string().into());
    fields.insert("what".into(), event.what.into());
    fields.insert("outcome".into(), outcome.into());
    if suppressed > 0 {
        fields.insert("suppressed".into(), suppressed.into());
    }
    Value::Object(fields).to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_what_was_allowed_is_always_written() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::in_folder(folder.path());
        for _ in 0..100 {
            audit.record_now(&Event::new("enrol", Outcome::Refused).with("peer", "a\nb"));
        }
        audit.record_now(&Event::new("session", Outcome::Refused));
        audit.record_now(&Event::new("enrol", Outcome::Allowed).with("agent", 7));
        let text = std::fs::read_to_string(folder.path().join("audit/audit.jsonl")).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: u64 = lines.iter().map(|line| line["suppressed"].as_u64().unwrap_or(0)).sum();
        let refused =
            |what| lines.iter().filter(move |l| l["outcome"] == "refused" && l["what"] == what);
        let flood = refused("enrol").count() as u64;
        assert!((10..60).contains(&flood), "{flood} lines");
        assert_eq!(flood + told, 100);
        assert_eq!(refused("session").count(), 1, "a flood hides nothing else");
        assert_eq!(lines.last().unwrap()["agent"], "7");
    }

    #[test]
    fn a_large_file_is_put_aside_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::in_folder(folder.path());
        let event = Event::new("enrol", Outcome::Allowed);
        audit.record_now(&event);
        for round in 1..=10 {
            let file = OpenOptions::new().write(true).open(&audit.path).unwrap();
            file.set_len(MAX_BYTES + round).unwrap();
            audit.record_now(&event);
        }
        let sizes: Vec<u64> = (1..=KEPT)
            .map(|n| std::fs::metadata(audit.path.with_extension(format!("jsonl.{n}"))).unwrap())
            .map(|file| file.len() - MAX_BYTES)
            .collect();
        assert_eq!(sizes, [10, 9, 8, 7, 6, 5, 4, 3]);
        assert!(!audit.path.with_extension("jsonl.9").try_exists().unwrap());
    }
}
