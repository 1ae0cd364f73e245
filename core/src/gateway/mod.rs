//! The one door that agents touch: takes their blocks over mutual TLS and puts them into the log.
//!
//! In: TCP connections. Out: appends to the log; acks, marks and holds back to the agent. Promise: nothing is acknowledged
//! before the log says it is durable; who an agent is comes from its certificate alone; a peer can hold at most one frame and its share
//! of the permits, and nothing for longer than its deadlines; one session that ends badly ends alone.
//! Not here: what a payload means (it stays compressed), the fold that drops repeats (the log), who may come in and do what (`enrol`).
//!
//! Reading order: [`listener`] (accepts) → `crowd` (the way in) → `session` (greets, reads frames) → `wire` (frames and messages) → `answers`
//! (tells the agent what became of its requests) → `permits` → `slots`, `candidates` (its origins) → `sessions` (who is connected) →
//! `tls`.

mod answers;
mod candidates;
pub(crate) mod crowd;
pub mod listener;
mod permits;
mod session;
mod sessions;
mod slots;
mod tls;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use garam_log::Log;
use garam_proto::{ClusterId, DecodeLimits};
use tokio::sync::Semaphore;

use crate::config::GatewayConfig;
use crate::enrol::Registrar;
use permits::Permits;
pub use sessions::{SessionInfo, Sessions};
pub use tls::{TlsError, acceptor};

/// What every session shares.
pub struct Door {
    pub log: Arc<dyn Log>,
    pub cluster: ClusterId,
    pub config: GatewayConfig,
    /// Who is let in, and what they may do.
    pub registrar: Arc<Registrar>,
    pub sessions: Sessions,
    pub stats: GatewayStats,
    permits: Permits,
    /// One for each session.
    places: Arc<Semaphore>,
    /// Answers to `Open` that are worked on at once: each looks through the origins of a stream.
    openings: Semaphore,
}

/// See [`Door::openings`].
const OPENINGS: usize = 4;

/// What came through the door since the process started.
#[derive(Debug, Default)]
pub struct GatewayStats {
    pub connections: AtomicU64,
    pub turned_away: AtomicU64,
    pub handshake_failures: AtomicU64,
    pub protocol_errors: AtomicU64,
    pub takeovers: AtomicU64,
    pub blocks: AtomicU64,
    pub records: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub raw_bytes: AtomicU64,
    pub repeats: AtomicU64,
    pub repositions: AtomicU64,
    pub stale: AtomicU64,
    pub holds: AtomicU64,
}

impl Door {
    pub fn new(
        log: Arc<dyn Log>,
        cluster: ClusterId,
        config: GatewayConfig,
        registrar: Arc<Registrar>,
    ) -> Self {
        Self {
            permits: Permits::new(&config),
            places: Arc::new(Semaphore::new(config.max_sessions as usize)),
            openings: Semaphore::new(OPENINGS),
            log,
            cluster,
            config,
            registrar,
            sessions: Sessions::default(),
            stats: GatewayStats::default(),
        }
    }

    fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            max_raw: self.max_record().max(garam_proto::message::MAX_PART as u32),
            ..DecodeLimits::default()
        }
    }

    /// The largest record of all, in raw bytes.
    fn max_record(&self) -> u32 {
        u32::try_from(self.config.max_record.as_u64()).unwrap_or(u32::MAX)
    }

    fn window(&self) -> u32 {
        u32::try_from(self.config.window.as_u64()).unwrap_or(u32::MAX)
    }
}

impl GatewayStats {
    /// Every counter with its name and what it means, for metrics.
    pub fn read(&self) -> [(&'static str, &'static str, u64); 13] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("connections", "Connections accepted.", get(&self.connections)),
            (
                "turned_away",
                "Connections closed unanswered: too many at once or too often.",
                get(&self.turned_away),
            ),
            (
                "handshake_failures",
                "Connections that never became a session.",
                get(&self.handshake_failures),
            ),
            (
                "protocol_errors",
                "Sessions ended because the agent broke the protocol.",
                get(&self.protocol_errors),
            ),
            ("takeovers", "Sessions ended by a newer one of their agent.", get(&self.takeovers)),
            ("blocks", "Blocks received.", get(&self.blocks)),
            ("records", "Records in received blocks, as their headers claim.", get(&self.records)),
            ("payload_bytes", "Payload bytes received.", get(&self.payload_bytes)),
            (
                "raw_bytes",
                "Bytes of source data in them, as their headers claim.",
                get(&self.raw_bytes),
            ),
            ("repeats", "Blocks the log had already.", get(&self.repeats)),
            (
                "repositions",
                "Times an agent was told to begin again at a mark.",
                get(&self.repositions),
            ),
            ("stale", "Blocks under an older claim, ignored.", get(&self.stale)),
            ("holds", "Times an agent was told to hold.", get(&self.holds)),
        ]
    }

    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Ends when the signal says stop, or when nobody is left to say it.
pub(crate) async fn told(stop: &mut tokio::sync::watch::Receiver<bool>) {
    let _told_or_orphaned = stop.wait_for(|&stop| stop).await.is_ok();
}

/// Wall clock in microseconds since the epoch.
pub(crate) fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
