//! What takes messages in: each `[[syslog]]` and `[[journal]]` table with its spool.
//!
//! In: a plan, again at every reload. Out: the spools as sets of files for [`super::file`]. Promise: a table that did not change
//! is not touched; one that changed is stopped, with everything it received spooled, before it starts anew on the same
//! spool; a table that is gone takes nothing in any more, and what its spool holds is shipped while the agent runs.
//! Not here: how messages are read ([`super::syslog`], [`super::journal`]) and kept ([`super::spool`]).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use garam_disk::Fs;
use garam_proto::SourceName;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::file::{BadGlob, FileSet};
use super::journal::{self, JournalPlan};
use super::spool::{Inlet, NoteOf, Spool, SpoolPlan, Writer, Written, orphans};
use super::syslog::{self, SyslogPlan};
use crate::config::StartAt;

/// How long a table may take to stop.
const PATIENCE: Duration = Duration::from_secs(3);

/// A table that takes something in, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntakePlan {
    Syslog(SyslogPlan),
    Journal(JournalPlan),
}

/// All tables that take something in.
pub struct Intake {
    fs: Arc<dyn Fs>,
    state_dir: PathBuf,
    tables: HashMap<SourceName, Table>,
}

struct Table {
    plan: IntakePlan,
    set: FileSet,
    spool: Arc<Spool>,
    running: Option<Running>,
}

/// A table that takes something in.
struct Running {
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
    written: Written,
}

impl IntakePlan {
    pub fn spool(&self) -> &SpoolPlan {
        match self {
            Self::Syslog(plan) => &plan.spool,
            Self::Journal(plan) => &plan.spool,
        }
    }

    /// The name of its table.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Syslog(_) => "syslog",
            Self::Journal(_) => "journal",
        }
    }

    fn longest_line(&self) -> usize {
        match self {
            Self::Syslog(plan) => plan.longest_line(),
            Self::Journal(_) => journal::LONGEST_LINE,
        }
    }

    fn note_of(&self) -> Option<NoteOf> {
        match self {
            Self::Syslog(_) => None,
            Self::Journal(_) => Some(journal::cursor_of),
        }
    }

    async fn run(self, inlet: Inlet, stop: watch::Receiver<bool>) {
        match self {
            Self::Syslog(plan) => syslog::run(plan, inlet, stop).await,
            Self::Journal(plan) => journal::run(plan, inlet, stop).await,
        }
    }
}

impl Intake {
    pub fn new(fs: Arc<dyn Fs>, state_dir: &Path) -> Self {
        Self { fs, state_dir: state_dir.into(), tables: HashMap::new() }
    }

    /// Does as the plan says from now on; gives what is to be shipped.
    pub async fn apply(&mut self, plans: &[IntakePlan]) -> io::Result<Vec<FileSet>> {
        for plan in plans {
            let name = &plan.spool().name;
            let known = self.tables.get(name);
            if known.is_some_and(|table| table.plan == *plan && table.running.is_some()) {
                continue;
            }
            self.stop_one(name, Instant::now() + PATIENCE).await;
            let table = self.start(plan.clone())?;
            self.tables.insert(name.clone(), table);
        }
        let gone: Vec<SourceName> = self.tables.keys().cloned().collect();
        for name in gone.iter().filter(|name| plans.iter().all(|plan| plan.spool().name != **name))
        {
            self.stop_one(name, Instant::now() + PATIENCE).await;
        }
        let named: Vec<&SourceName> = self.tables.keys().collect();
        for (folder, bytes) in orphans(&self.state_dir, &named) {
            tracing::warn!(
                folder = %folder.display(), bytes,
                action = "name its table again to ship it, or remove the folder",
                "a spool holds messages and no table names it"
            );
        }
        Ok(self.tables.values().map(|table| table.set.clone()).collect())
    }

    /// Takes nothing in any more; returns when everything received is synced, or too much time has passed.
    pub async fn stop(&mut self) {
        let names: Vec<SourceName> = self.tables.keys().cloned().collect();
        for running in self.tables.values().filter_map(|table| table.running.as_ref()) {
            running.stop.send_replace(true);
        }
        let deadline = Instant::now() + PATIENCE;
        for name in names {
            self.stop_one(&name, deadline).await;
        }
    }

    async fn stop_one(&mut self, name: &SourceName, deadline: Instant) {
        let running = self.tables.get_mut(name).and_then(|table| table.running.take());
        let Some(Running { stop, listening, written }) = running else { return };
        stop.send_replace(true);
        let ended = async {
            // Either may have panicked: then it has ended too.
            listening.await.ok();
            written.await.ok();
        };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            tracing::warn!(source = %name, "did not stop in time: what it received last may be lost");
        }
    }

    fn start(&mut self, plan: IntakePlan) -> io::Result<Table> {
        let SpoolPlan { name, limit, sync, .. } = plan.spool();
        let spool = match self.tables.get(name) {
            Some(table) if table.plan.kind() == plan.kind() => table.spool.clone(),
            _ => Spool::open(self.fs.clone(), &self.state_dir, plan.spool(), plan.note_of())?,
        };
        spool.set_limit(*limit);
        let set = segments(&plan, &spool).map_err(|bad| io::Error::other(bad.why))?;
        let (inlet, written) = Writer::start(spool.clone(), *sync)?;
        let (stop, stopped) = watch::channel(false);
        let listening = tokio::spawn(plan.clone().run(inlet, stopped));
        let running = Some(Running { stop, listening, written });
        Ok(Table { plan, set, spool, running })
    }
}

/// The spool's segments as files to ship.
fn segments(plan: &IntakePlan, spool: &Arc<Spool>) -> Result<FileSet, BadGlob> {
    let (name, stream) = (plan.spool().name.clone(), plan.spool().stream.clone());
    let longest = plan.longest_line();
    let glob = [spool.glob()];
    let mut set = FileSet::new(name, stream, &glob, &[], StartAt::Beginning, longest)?;
    set.spool = Some(spool.clone());
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::file::{Files, HOLD};
    use crate::source::spool::{Batch, folder};
    use crate::source::{CutLimits, Look, Met, Read, Seen, Source};
    use garam_disk::RealFs;
    use garam_proto::StreamName;

    fn look(files: &mut Files, met: &Met) -> Look {
        match files.look(met.handle, 0, 0).unwrap() {
            Seen::Live(look) => look,
            Seen::Broken(reason) => panic!("{reason:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_not_synced_is_not_shown_and_a_finished_segment_is_removed() {
        let state_dir = tempfile::tempdir().unwrap();
        let plan = IntakePlan::Syslog(SyslogPlan {
            spool: SpoolPlan {
                name: SourceName::new("s").unwrap(),
                stream: StreamName::new("t").unwrap(),
                limit: 1024 * 1024,
                sync: Duration::from_secs(3600),
            },
            listen: vec![],
            max_message: 1024,
            max_connections: 1,
            idle: Duration::from_secs(1),
            mode: 0o600,
        });
        let spool = Spool::open(Arc::new(RealFs), state_dir.path(), plan.spool(), None).unwrap();
        let mut files = Files::new(vec![segments(&plan, &spool).unwrap()], true, HOLD, 10);
        let (inlet, written) = Writer::start(spool.clone(), plan.spool().sync).unwrap();
        inlet.put(Batch { bytes: b"one\ntwo\n".to_vec(), messages: 2 }).await;
        let folder = folder(state_dir.path(), &plan.spool().name);
        let segment = loop {
            let entries = std::fs::read_dir(&folder).unwrap();
            let found =
                entries.map(|entry| entry.unwrap()).find(|e| e.metadata().unwrap().len() == 8);
            match found {
                Some(entry) => break entry.path(),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let met = files.discover().pop().unwrap();
        let seen = look(&mut files, &met);
        assert_eq!((seen.end, seen.ended), (0, false), "written, not synced");
        let limits =
            CutLimits { block_size: 64 * 1024, max_record: 64 * 1024, flush: true, over: true };
        let mut buffer = Vec::new();
        let read = files.read(met.handle, 0, 0, &limits, &mut buffer).unwrap();
        assert_eq!(read, Read::Nothing);
        files.finished(met.handle).unwrap();
        assert!(segment.try_exists().unwrap(), "it still grows");
        drop(inlet);
        written.await.unwrap();
        let seen = look(&mut files, &met);
        assert_eq!((seen.end, seen.ended), (8, true));
        assert!(matches!(
            files.read(met.handle, 0, 0, &limits, &mut buffer).unwrap(),
            Read::Block(_)
        ));
        assert_eq!(buffer, b"one\ntwo\n");
        files.finished(met.handle).unwrap();
        assert!(!segment.try_exists().unwrap());
        assert_eq!(spool.used(), 0);
    }
}
