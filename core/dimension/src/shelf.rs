//! One dimension in a running core: its last good snapshot, what became of the newest try, and the way to the next one.
//!
//! In: a source, and somebody who says when. Out: the newest snapshot in [`Snapshots`], figures for whoever looks. Promise: a new
//! snapshot is on disk before anybody sees it; a reading that began earlier never replaces one that began later; a failure leaves
//! everything as it was, and says so until the next success.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_disk::Fs;
use garam_stage::{DimensionSource, Failure, Snapshot, SnapshotId, Snapshots, Told, Wanted};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::build::build;
use crate::config::DimensionPlan;
use crate::error::{DimensionError, without_values};
use crate::store::Store;

/// All dimensions of a core.
#[derive(Clone)]
pub struct Dimensions {
    pub shelves: Vec<Arc<Shelf>>,
    snapshots: Snapshots,
    arrivals: Arc<watch::Sender<u64>>,
}

/// One of them.
pub struct Shelf {
    plan: DimensionPlan,
    state: Mutex<State>,
    store: Mutex<Kept>,
    snapshots: Snapshots,
    arrivals: Arc<watch::Sender<u64>>,
    /// How many readings have begun.
    begun: AtomicU64,
}

/// What a reading came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// Other rows than before.
    Swapped { id: SnapshotId, rows: u64 },
    /// The same rows.
    Same,
    /// Nothing can have changed, so nothing was read.
    Unchanged,
    /// It changes right now: again after so long.
    Unsettled(Duration),
    /// A reading that began later was faster.
    Overtaken,
}

/// Why the newest try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Without values of the source.
    pub what: String,
    /// Of how many tries in a row.
    pub tries: u64,
}

/// What a dimension is like now.
#[derive(Debug, Clone)]
pub struct Figures {
    pub snapshot: Option<Arc<Snapshot>>,
    /// Since the source was last known to hold these rows.
    pub age: Option<Duration>,
    pub bytes: u64,
    /// Since the start: readings that succeeded, and that did not.
    pub ok: u64,
    pub failed: u64,
    pub trouble: Option<Trouble>,
    /// Read back from disk, and not confirmed by the source since.
    pub is_restored: bool,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Snapshot>>,
    bytes: u64,
    /// When the source was last known to hold the current rows, and how old they were then.
    confirmed: Option<(Instant, Duration)>,
    ok: u64,
    failed: u64,
    trouble: Option<Trouble>,
    is_restored: bool,
}

struct Kept {
    store: Store,
    /// The reading that was published last.
    newest: u64,
}

impl Dimensions {
    /// Opens all, with what lies on disk of them, and puts what is read into `snapshots`. What cannot be used there is told in the log.
    pub fn open(
        fs: &Arc<dyn Fs>,
        data_dir: &Path,
        plans: &[DimensionPlan],
        snapshots: Snapshots,
    ) -> Result<Self, Failure> {
        let arrivals = Arc::new(watch::Sender::new(0));
        let mut shelves = Vec::new();
        for plan in plans {
            let store = Store::at(Arc::clone(fs), &data_dir.join("dimensions"), plan);
            let shelf = Shelf::open(plan, store, snapshots.clone(), Arc::clone(&arrivals))?;
            shelves.push(Arc::new(shelf));
        }
        Ok(Self { shelves, snapshots, arrivals })
    }

    /// Where the newest snapshots are, for whoever joins them.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    pub fn shelf(&self, name: &str) -> Option<&Arc<Shelf>> {
        self.shelves.iter().find(|shelf| shelf.name() == name)
    }

    /// Returns once each of these has been read at least once.
    pub async fn present(&self, names: &[String]) {
        let mut arrivals = self.arrivals.subscribe();
        let all = |_: &u64| {
            let set = self.snapshots.now();
            set.absent(names.iter().map(String::as_str)).is_none()
        };
        // The sender lives in `self`, so this ends with the last arrival.
        let _arrived = arrivals.wait_for(all).await.is_ok();
    }
}

impl Shelf {
    fn open(
        plan: &DimensionPlan,
        mut store: Store,
        snapshots: Snapshots,
        arrivals: Arc<watch::Sender<u64>>,
    ) -> Result<Self, DimensionError> {
        let restored = store.restore()?;
        let name = plan.name();
        for fault in &restored.faults {
            tracing::warn!(dimension = name, error = %fault, "a snapshot on disk is not used");
        }
        let mut state = State::default();
        if let Some((snapshot, bytes)) = restored.snapshot {
            let age = now_us().saturating_sub(snapshot.loaded_us).max(0).unsigned_abs();
            state.confirmed = Some((Instant::now(), Duration::from_micros(age)));
            (state.bytes, state.is_restored) = (bytes, true);
            state.current = Some(Arc::clone(&snapshot));
            snapshots.put(name, snapshot);
        }
        let store = Mutex::new(Kept { store, newest: 0 });
        let (plan, state, begun) = (plan.clone(), Mutex::new(state), AtomicU64::new(0));
        Ok(Self { plan, state, store, snapshots, arrivals, begun })
    }

    pub fn name(&self) -> &str {
        self.plan.name()
    }

    pub fn plan(&self) -> &DimensionPlan {
        &self.plan
    }

    /// Reads the source once, and swaps in what is new. Takes its time on the thread it runs on: parsing, sorting, writing.
    pub async fn refresh(
        &self,
        source: &mut dyn DimensionSource,
        wanted: Wanted,
    ) -> Result<Refreshed, Failure> {
        let reading = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        // What was read and then refused or not kept is no longer news to the source.
        let failed_before = held(&self.state).trouble.is_some();
        let wanted = if failed_before { Wanted::Anyway } else { wanted };
        let refreshed = match source.read(wanted).await {
            Ok(Told::Rows { rows, source_us }) => {
                self.publish(reading, &source.label(), &rows, source_us).map_err(Failure::from)
            }
            Ok(Told::Unchanged) => Ok(Refreshed::Unchanged),
            Ok(Told::Unsettled(rest)) => Ok(Refreshed::Unsettled(rest)),
            Err(failure) => Err(failure),
        };
        self.note(&refreshed);
        refreshed
    }

    pub fn figures(&self) -> Figures {
        let state = held(&self.state);
        Figures {
            snapshot: state.current.clone(),
            age: state.confirmed.map(|(at, age)| at.elapsed() + age),
            bytes: state.bytes,
            ok: state.ok,
            failed: state.failed,
            trouble: state.trouble.clone(),
            is_restored: state.is_restored,
        }
    }

    fn publish(
        &self,
        reading: u64,
        place: &str,
        rows: &arrow_array::RecordBatch,
        source_us: Option<i64>,
    ) -> Result<Refreshed, DimensionError> {
        let dimension = self.plan.shape.dimension();
        let built = build(dimension, place, rows, now_us(), source_us)?;
        let mut kept = held(&self.store);
        if reading < kept.newest {
            return Ok(Refreshed::Overtaken);
        }
        let id = built.snapshot.id;
        if held(&self.state).current.as_ref().is_some_and(|current| current.id == id) {
            kept.newest = reading;
            return Ok(Refreshed::Same);
        }
        kept.store.keep(&built)?;
        kept.newest = reading;
        let (bytes, rows) = (built.bytes, built.snapshot.rows.num_rows() as u64);
        let snapshot = Arc::new(built.snapshot);
        let mut state = held(&self.state);
        (state.current, state.bytes) = (Some(Arc::clone(&snapshot)), bytes);
        self.snapshots.put(self.name(), snapshot);
        self.arrivals.send_modify(|count| *count += 1);
        Ok(Refreshed::Swapped { id, rows })
    }

    fn note(&self, refreshed: &Result<Refreshed, Failure>) {
        let mut state = held(&self.state);
        match refreshed {
            Ok(Refreshed::Unsettled(_) | Refreshed::Overtaken) => {}
            Ok(Refreshed::Swapped { .. } | Refreshed::Same | Refreshed::Unchanged) => {
                state.ok += 1;
                state.trouble = None;
                state.is_restored = false;
                state.confirmed = Some((Instant::now(), Duration::ZERO));
            }
            Err(failure) => {
                state.failed += 1;
                let tries = state.trouble.as_ref().map_or(0, |trouble| trouble.tries) + 1;
                state.trouble = Some(Trouble { what: without_values(failure), tries });
            }
        }
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
