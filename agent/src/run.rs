//! `garam-agent run`: the lock, the threads, the signals, and the order in which things stop.
//!
//! ```text
//! reactor (main)   connection, status socket, signals, systemd
//! thread engine    reads files, decides            ─Job─►  thread compress  ─Outgoing─►  reactor
//! thread state     writes the checkpoint
//! ```
//!
//! Promise: one agent per state folder; SIGTERM or SIGINT stops reading, waits up to 10 s for acknowledgements, writes the
//! checkpoint, says goodbye and ends with 0; a second signal ends at once with 130. A thread that ends by itself ends the
//! agent, so that the service manager starts it anew. SIGHUP reads the configuration again: a valid one is taken over without
//! losing a position, an invalid one is refused and the old one kept. `state_dir`, `identity_dir` and `metrics` need a restart.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use garam_disk::{Fs, RealFs};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::checkpoint::{Loaded, Store};
use crate::compress::{Pool, Worker};
use crate::config::{Config, CoreAddress, Plan};
use crate::engine::{Engine, Event, Reload, Settings, Snapshot, drive};
use crate::error::AgentError;
use crate::identity::IdentityFolder;
use crate::ship::Shipper;
use crate::source::file::{Files, HOLD};
use crate::source::intake::Intake;
use crate::tls::IdentityError;
use crate::{metrics, status, tls};

const EVENTS: usize = 256;
/// Raw blocks that wait for the compressor.
const JOBS: usize = 4;
/// Descriptors for everything that is not a tailed file: folders under search, sockets, the checkpoint.
const RESERVED: usize = 64;
/// How often folders are listened to at most.
const RING: Duration = Duration::from_millis(20);
const DRAIN: Duration = Duration::from_secs(10);

/// Runs an agent until it is told to stop.
pub fn run(path: &Path, plan: Plan) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::Thread { what: "reactor", source })?;
    // Before anything that may take its time: a signal during the start counts, and SIGHUP does not end the agent.
    let heard = runtime.block_on(async { Signals::new() })?;
    let folder = plan.state_dir.clone();
    let fs = Arc::new(RealFs);
    fs.create_dir(&folder).map_err(|source| AgentError::Io {
        action: "create state folder",
        path: folder.clone(),
        source,
    })?;
    let lock = lock(&*fs, &folder)?;
    let identity = IdentityFolder::at(&plan.identity_dir);
    let pair = identity.pair().map_err(IdentityError::from)?;
    tls::client_config(&identity, &pair)?;
    let (store, loaded) = Store::open(fs, &folder)?;
    let descriptors = raise_descriptor_limit();
    let outcome = runtime.block_on(agent(path, plan, heard, descriptors, store, loaded));
    // Threads may still sit in a disk or a queue: the process ends without them.
    runtime.shutdown_background();
    drop(lock);
    outcome
}

async fn agent(
    path: &Path,
    plan: Plan,
    heard: Signals,
    descriptors: usize,
    store: Store,
    loaded: Loaded,
) -> Result<(), AgentError> {
    let first_start = loaded == Loaded::Nothing;
    let entries = match loaded {
        Loaded::Entries(entries) => entries,
        Loaded::Nothing | Loaded::Damaged => Vec::new(),
    };
    let pool = Pool::default();
    let (events, incoming) = mpsc::channel(EVENTS);
    let (jobs, work) = mpsc::channel(JOBS);
    let (snapshots, to_write) = mpsc::channel(1);
    let worker = Worker::new(plan.ship.codec, plan.ship.level, pool.clone(), events.clone())
        .map_err(|source| AgentError::Thread { what: "compress", source })?;
    let open = plan.ship.max_open.min(descriptors.saturating_sub(RESERVED).max(1));
    let mut intake = Intake::new(Arc::new(RealFs), &plan.state_dir);
    let spools = intake.apply(&plan.intake).await.map_err(|source| AgentError::Io {
        action: "open a spool in state folder",
        path: plan.state_dir.clone(),
        source,
    })?;
    let intake = Arc::new(Mutex::new(intake));
    let sets = plan.files.iter().cloned().chain(spools).collect();
    let mut source = Files::new(sets, first_start, HOLD, open);
    if let Some(bell) = plan.ship.watch.then(|| source.watch()).flatten() {
        drop(tokio::spawn(ring(bell, events.clone())));
    }
    let settings = settings(&plan);
    let host = settings.host.clone();
    // Kept open here, so that the engine is the first thread to end when it is told to stop.
    let (_jobs, _snapshots) = (jobs.clone(), snapshots.clone());
    let engine =
        Engine::new(settings, Box::new(source), entries, pool.clone(), snapshots, Instant::now());
    let reactor = tokio::runtime::Handle::current();
    let engine = thread("engine", move || reactor.block_on(drive(engine, incoming, jobs)))?;
    let compress = thread("compress", move || worker.run(work))?;
    let saved = events.clone();
    let state = thread("state", move || save_all(store, to_write, &saved))?;

    let (stop, stopped) = watch::channel(false);
    let (new_cores, cores) = watch::channel(plan.cores.clone());
    let shipper = Shipper {
        cores,
        identity: IdentityFolder::at(&plan.identity_dir),
        host,
        pool,
        events: events.clone(),
        stop: stopped,
    };
    let shipping = tokio::spawn(shipper.run());
    match status::bind(&plan.state_dir) {
        Ok(listener) => drop(tokio::spawn(status::serve(listener, events.clone()))),
        Err(error) => tracing::warn!(
            path = %status::socket_path(&plan.state_dir).display(), %error,
            "no status socket: `garam-agent status` will not work"
        ),
    }
    if let Some(address) = plan.metrics {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => drop(tokio::spawn(metrics::serve(listener, events.clone()))),
            Err(error) => tracing::error!(
                %address, %error, action = "free the port or name another, then restart",
                "metrics are not served"
            ),
        }
    }
    drop(tokio::spawn(tell_systemd(events.clone())));
    let reloading = Reloading {
        path: path.into(),
        plan: plan.clone(),
        cores: new_cores,
        intake: intake.clone(),
    };
    drop(tokio::spawn(listen(heard, reloading, events)));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), state_dir = %plan.state_dir.display(), first_start,
        "agent started"
    );

    // The compressor and the writer return once the engine has let go of them: of those two only a panic is news.
    let ended = tokio::select! {
        ended = engine => ended.map_err(|_| "engine"),
        Err(_) = compress => Err("compress"),
        Err(_) = state => Err("state"),
    };
    ended.map_err(|what| AgentError::ThreadEnded { what })?;
    stop.send_replace(true);
    // The next start ships what still comes in meanwhile.
    intake.lock().await.stop().await;
    if tokio::time::timeout(Duration::from_secs(3), shipping).await.is_err() {
        tracing::warn!("the connection did not close in time");
    }
    tracing::info!("agent stopped");
    Ok(())
}

/// Starts a thread; the receiver says when it returned, or fails when it panicked.
fn thread(
    what: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<oneshot::Receiver<()>, AgentError> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name(what.into())
        .spawn(move || {
            work();
            // Nobody waits any more when the agent is already ending.
            done.send(()).ok();
        })
        .map_err(|source| AgentError::Thread { what, source })?;
    Ok(ended)
}

/// Tells the engine that there is something to hear of the folders, at once and then no more often than it is worth.
async fn ring(bell: OwnedFd, events: mpsc::Sender<Event>) {
    #[expect(
        deprecated,
        reason = "its danger is a descriptor that is closed meanwhile; this one is owned"
    )]
    let bell = AsyncFd::with_interest(bell, Interest::READABLE);
    let bell = match bell {
        Ok(bell) => bell,
        Err(error) => {
            tracing::warn!(%error, "what is told of folders is not heard at once");
            return;
        }
    };
    while let Ok(mut ready) = bell.readable().await {
        ready.clear_ready();
        if events.send(Event::Rung).await.is_err() {
            return;
        }
        tokio::time::sleep(RING).await;
    }
}

fn save_all(
    mut store: Store,
    mut snapshots: mpsc::Receiver<Snapshot>,
    events: &mpsc::Sender<Event>,
) {
    while let Some(entries) = snapshots.blocking_recv() {
        if events.blocking_send(store.save(&entries).into()).is_err() {
            return;
        }
    }
}

/// Locks the state folder for this process; the kernel lets go of it when the process ends, however it ends.
fn lock(fs: &dyn Fs, folder: &Path) -> Result<Box<dyn Send + Sync>, AgentError> {
    let path = folder.join("lock");
    match fs.lock(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(AgentError::Locked { path: folder.into() }),
        Err(source) => Err(AgentError::Io { action: "lock", path, source }),
    }
}

/// What SIGHUP reads again.
struct Reloading {
    path: PathBuf,
    plan: Plan,
    cores: watch::Sender<Vec<CoreAddress>>,
    intake: Arc<Mutex<Intake>>,
}

impl Reloading {
    /// The new configuration, if it can be used.
    async fn read(&mut self) -> Option<Reload> {
        let plan = match Config::load(&self.path) {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!(
                    %error,
                    action = "correct it, check it with `garam-agent check`, then send SIGHUP again",
                    "the new configuration cannot be used: the old one stays in force"
                );
                return None;
            }
        };
        let fixed = |plan: &Plan| {
            let ship = (plan.ship.max_open, plan.ship.watch);
            (plan.state_dir.clone(), plan.identity_dir.clone(), plan.metrics, ship)
        };
        if fixed(&self.plan) != fixed(&plan) {
            tracing::warn!(
                "state_dir, identity_dir, metrics, ship.max_open and ship.watch count from the next start on, the rest now"
            );
        }
        let spools = match self.intake.lock().await.apply(&plan.intake).await {
            Ok(spools) => spools,
            Err(error) => {
                tracing::error!(
                    %error, action = "make room or grant access in the state folder, then send SIGHUP again",
                    "cannot open a spool: the old configuration stays in force for files"
                );
                return None;
            }
        };
        self.cores.send_replace(plan.cores.clone());
        Some(Reload {
            settings: settings(&plan),
            files: plan.files.into_iter().chain(spools).collect(),
            codec: plan.ship.codec,
            level: plan.ship.level,
        })
    }
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        block_size: plan.ship.block_size,
        linger: plan.ship.linger,
        window: plan.ship.window,
        poll: plan.ship.poll,
        discover: plan.ship.discover,
        drain: DRAIN,
        quiet: HOLD,
        rate: plan.ship.rate,
        hold_unlinked: plan.ship.hold_unlinked,
        host: host_name(),
    }
}

async fn listen(mut heard: Signals, mut reloading: Reloading, events: mpsc::Sender<Event>) {
    let mut first = true;
    loop {
        tokio::select! {
            _ = heard.terminate.recv() => {}
            _ = heard.interrupt.recv() => {}
            _ = heard.hangup.recv() => {
                if let Some(reload) = reloading.read().await
                    && events.send(Event::Reload(Box::new(reload))).await.is_err()
                {
                    return;
                }
                continue;
            }
        }
        if !first {
            std::process::exit(130);
        }
        first = false;
        tracing::info!(
            "stopping: no more reading, waiting for acknowledgements; a second signal ends at once"
        );
        notify(&[sd_notify::NotifyState::Stopping]);
        if events.send(Event::Stop).await.is_err() {
            return;
        }
    }
}

/// What the agent listens for from its first moment on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Needs a runtime's context.
    fn new() -> Result<Self, AgentError> {
        let of =
            |kind| signal(kind).map_err(|source| AgentError::Thread { what: "signal", source });
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hangup: of(SignalKind::hangup())?,
        })
    }
}

/// Tells systemd that the agent is up, how it fares, and, only while the engine answers, that it is alive.
async fn tell_systemd(events: mpsc::Sender<Event>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    notify(&[sd_notify::NotifyState::Ready]);
    let pulse = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |limit| limit / 2);
    let mut pulse = tokio::time::interval(pulse.max(Duration::from_millis(500)));
    loop {
        pulse.tick().await;
        let Some(status) = status::ask(&events).await else { return };
        let core = status.core.as_deref().unwrap_or("no core");
        let text = format!(
            "{} files, {core}, {} bytes unread",
            status.files.len(),
            status.totals.unread_bytes
        );
        notify(&[sd_notify::NotifyState::Status(&text), sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A tailed file takes a descriptor while it is busy: takes as many as the system lets this process have.
fn raise_descriptor_limit() -> usize {
    let limit = garam_disk::raise_descriptor_limit().unwrap_or_else(|error| {
        let limit = garam_disk::descriptor_limit();
        tracing::warn!(%error, limit, "cannot raise the limit of open files");
        limit
    });
    usize::try_from(limit).unwrap_or(usize::MAX)
}
