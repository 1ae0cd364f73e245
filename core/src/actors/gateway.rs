//! The gateway as a child: the port bound, sessions served until it is asked to stop.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use garam_log::EmbeddedLog;
use garam_proto::ClusterId;
use garam_stage::FailureKind;

use super::Slot;
use crate::config::GatewayConfig;
use crate::enrol::Registrar;
use crate::gateway::listener::Listener;
use crate::gateway::{Door, acceptor};
use crate::pki::{self, ServerCertificate};
use crate::supervise::{Context, Factory, Fault, factory};

/// How often revocations are looked for: a revoked agent is out within a second.
const LOOK: Duration = Duration::from_millis(250);

/// What a gateway is made of.
#[derive(Clone)]
pub struct GatewayRoom {
    pub config: GatewayConfig,
    pub cluster: ClusterId,
    pub certificate: Arc<ServerCertificate>,
    pub log: Slot<EmbeddedLog>,
    pub registrar: Arc<Registrar>,
    /// Where the current generation can be looked at.
    pub door: Slot<Door>,
    /// The port as bound at the start of the process, for the first generation.
    pub bound: Arc<Mutex<Option<Listener>>>,
}

pub fn gateway(room: GatewayRoom) -> Factory {
    factory(move |context| run(room.clone(), context))
}

async fn run(room: GatewayRoom, context: Context) -> Result<(), Fault> {
    let log = room.log.wait(&context.progress, "the log").await;
    let tls = acceptor(&room.certificate).map_err(config_fault)?;
    let listener = match room.bound.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(listener) => Ok(listener),
        None => Err(room.config.listen),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(address) => Listener::bind(address).await.map_err(|error| {
            Fault::new(
                Some(FailureKind::Unreachable),
                format!("cannot listen on {address}: {error}"),
            )
        })?,
    };
    let door = Arc::new(Door::new(log, room.cluster, room.config.clone(), room.registrar));
    room.door.set(Arc::clone(&door));
    let progress = context.progress.clone();
    let served = tokio::select! {
        served = listener.serve(Arc::clone(&door), tls, context.stop.clone(), move || progress.resting("agents")) => served,
        never = end_revoked(&door) => match never {},
        never = keep_valid(room.certificate) => match never {},
    };
    served.map_err(|error| {
        Fault::new(Some(FailureKind::Unreachable), format!("cannot serve agents: {error}"))
    })
}

/// Ends the sessions of agents that an operator has revoked meanwhile, from another process.
async fn end_revoked(door: &Door) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        match door.registrar.look_for_revocations().await {
            Ok(true) => {
                door.sessions
                    .end_where(|agent, generation| door.registrar.is_revoked(agent, generation));
            }
            Ok(false) => {}
            // The metadata's own child says so too, and is restarted for it.
            Err(error) => tracing::warn!(%error, "cannot look for revoked agents"),
        }
    }
}

/// Sees to it that agents and hosts are shown a certificate that is valid, as long as the core runs.
async fn keep_valid(certificate: Arc<ServerCertificate>) -> Infallible {
    loop {
        tokio::time::sleep(pki::LOOK).await;
        let looked_at = Arc::clone(&certificate);
        let refreshed = tokio::task::spawn_blocking(move || looked_at.refresh()).await;
        if let Ok(Err(error)) = refreshed {
            tracing::error!(%error, action = "look at the pki folder", "cannot renew the server certificate");
        }
    }
}

fn config_fault(error: impl std::fmt::Display) -> Fault {
    Fault::new(Some(FailureKind::Config), format!("cannot serve agents: {error}"))
}
