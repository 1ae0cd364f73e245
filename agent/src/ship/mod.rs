//! Shipping: one connection at a time to one of the configured cores, made again whenever it ends.
//!
//! In: frames from the compressor. Out: answers as [`Event`]s. Promise: every end of a session is told to the engine, which
//! then forgets what was on its way and reads it again; nothing is kept here. Trouble is logged once, then at most every
//! 10 s. In `connection` the way to a session, in `session` the session, in `backoff` the pauses, in `window` the limits
//! that the engine keeps.

pub mod backoff;
pub mod connection;
pub mod session;
pub mod window;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::compress::Pool;
use crate::config::CoreAddress;
use crate::engine::{Connection, Event};
use crate::enrol::{self, EnrolError};
use crate::identity::IdentityFolder;
use backoff::Backoff;
use connection::ConnectError;
use session::Ended;

const WARN_EVERY: Duration = Duration::from_secs(10);
/// Encoded blocks that wait for the socket.
const WIRE_QUEUE: usize = 4;

/// Everything a connection needs.
pub struct Shipper {
    /// Tried in order; what changes counts from the next connection on.
    pub cores: watch::Receiver<Vec<CoreAddress>>,
    pub identity: IdentityFolder,
    pub host: String,
    pub pool: Pool,
    pub events: mpsc::Sender<Event>,
    /// True when the session shall say goodbye and end.
    pub stop: watch::Receiver<bool>,
}

impl Shipper {
    /// Connects and ships until it is told to stop or the engine is gone.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(fastrand::Rng::new());
        let mut warned: Option<Instant> = None;
        for attempt in 0usize.. {
            let core = {
                let cores = self.cores.borrow();
                cores.get(attempt % cores.len().max(1)).cloned()
            };
            let Some(core) = core else { return };
            let mut stop = self.stop.clone();
            let outcome = tokio::select! {
                outcome = self.once(&core) => outcome,
                // A session watches this itself, to say goodbye; here only the way to one is cut short.
                () = stopped(&mut stop, session::GOODBYE * 2) => return,
            };
            let (pause, text) = match outcome {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Renewed) => continue,
                Err(error @ ConnectError::Ended(_)) => match self.recover(&core).await {
                    Ok(()) => continue,
                    // Whoever is refused has to wait for a person; an unreachable port is tried again.
                    Err(refused) if refused.exit_code() == 5 => {
                        (backoff.refused(), format!("{error}; {refused}"))
                    }
                    Err(failed) => (backoff.pause(), format!("{error}; {failed}")),
                },
                Ok(ended) => {
                    if ended.is_progress() {
                        backoff.reset();
                    }
                    let pause = match ended.bye() {
                        Some(reason) if connection::is_final(reason) => backoff.refused(),
                        _ => backoff.pause(),
                    };
                    (pause, ended.to_string())
                }
                Err(error) => {
                    let pause = if error.is_final() { backoff.refused() } else { backoff.pause() };
                    (pause, error.to_string())
                }
            };
            if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                warned = Some(Instant::now());
                tracing::warn!(core = core.address, error = text, retry_in = ?pause, "not connected");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stop, Duration::ZERO) => return,
            }
        }
    }

    /// The certificate has ended: its key gets the next one.
    async fn recover(&self, core: &CoreAddress) -> Result<(), EnrolError> {
        let port = core.enrolment();
        enrol::recover(&port, &self.identity).await?;
        tracing::info!(
            core = port.address,
            "the certificate had ended: the core has issued another"
        );
        Ok(())
    }

    /// One connection from its first byte to its end.
    async fn once(&mut self, core: &CoreAddress) -> Result<Ended, ConnectError> {
        let (stream, welcome, rest) = connection::connect(core, &self.identity, &self.host).await?;
        tracing::info!(
            core = core.address, agent = %welcome.agent, session = %welcome.session,
            cluster = %welcome.cluster, build = welcome.build, "connected"
        );
        let (wire, outgoing) = mpsc::channel(WIRE_QUEUE);
        let connection = Connection {
            wire,
            core: core.address.clone(),
            cluster: welcome.cluster,
            agent: welcome.agent,
            session: welcome.session,
            window: u64::from(welcome.window),
            max_part: (welcome.max_part as usize).clamp(4096, garam_proto::message::MAX_PART),
            max_record: (welcome.max_record as usize).max(1024),
        };
        if self.events.send(Event::Connected(connection)).await.is_err() {
            return Ok(Ended::Stopped);
        }
        let session = session::Session {
            outgoing,
            pool: self.pool.clone(),
            events: self.events.clone(),
            stop: self.stop.clone(),
            identity: self.identity.clone(),
        };
        let ended = session.run(stream, rest).await;
        if self.events.send(Event::Disconnected).await.is_err() {
            return Ok(Ended::Stopped);
        }
        Ok(ended)
    }
}

/// Resolves `grace` after the stop was asked for; never if it is not.
async fn stopped(stop: &mut watch::Receiver<bool>, grace: Duration) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        tokio::time::sleep(grace).await;
    } else {
        std::future::pending::<()>().await;
    }
}
