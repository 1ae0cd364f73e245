//! The gateway as a child: certificates read anew, the port bound, sessions served until it is asked to stop.

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
use crate::pki::Pki;
use crate::supervise::{Context, Factory, Fault, factory};

/// How often revocations are looked for: a revoked agent is out within a second.
const LOOK: Duration = Duration::from_millis(250);

/// What a gateway is made of.
#[derive(Clone)]
pub struct GatewayRoom {
    pub config: GatewayConfig,
    pub cluster: ClusterId,
    pub pki: Pki,
    /// What the server certificate must name.
    pub names: Vec<String>,
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
    let (certificate, key) = room.pki.ensure_server(&room.names).map_err(config_fault)?;
    let tls = acceptor(&room.pki.root_path(), &certificate, &key).map_err(config_fault)?;
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

fn config_fault(error: impl std::fmt::Display) -> Fault {
    Fault::new(Some(FailureKind::Config), format!("cannot serve agents: {error}"))
}
