//! The wiring: from a checked plan to a running core.
//!
//! In: [`Plan`]. Out: [`App`], whose parts run under one supervision tree. Promise: everything that can be refused is opened
//! eagerly and refused before anything runs (folders, formats, ports, certificates); stopping follows the data: the gateway
//! refuses, pipelines settle, the log closes last.
//! Reading order: here → `build` (each room's parts) → `observe` (what the admin port tells) → `tap` and `rows`.

mod build;
mod observe;
mod rows;
mod tap;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use garam_disk::{Fs as _, RealFs};
use garam_log::{EmbeddedLog, LogError};
use garam_meta::{IssuedAgent as AgentRecord, Meta, MetaError};
use garam_stage::Failure;

use crate::actors::Slot;
use crate::actors::admin::AdminRoom;
use crate::actors::gateway::GatewayRoom;
use crate::admin;
use crate::backup::restore;
use crate::config::Plan;
use crate::gateway::listener::Listener;
use crate::gateway::{TlsError, wall_clock_us};
use crate::pki::{IssuedAgent, Pki, PkiError, default_names};
use crate::supervise::{RootExit, Stop, Supervision, SupervisionHandle};
use observe::Observed;

/// Why a core does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot open metadata: {0}")]
    Meta(#[from] MetaError),
    #[error("cannot open the log: {0}")]
    Log(#[from] LogError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "cannot listen on {address} for {what}: {error}; choose another port in the configuration"
    )]
    Bind { what: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(
        "{} holds a restore that did not end: run `garam restore` again, it starts over", .0.display()
    )]
    Restoring(std::path::PathBuf),
    #[error("cannot {action}: {error}")]
    Io { action: &'static str, error: std::io::Error },
    #[error(transparent)]
    Room(#[from] Failure),
}

/// A running core.
pub struct App {
    supervision: SupervisionHandle,
    meta: Arc<Meta>,
    log: Slot<EmbeddedLog>,
    gateway: SocketAddr,
    admin: SocketAddr,
}

impl App {
    /// Opens everything and starts the tree. The caller's runtime is the data runtime.
    pub async fn start(plan: Plan) -> Result<Self, StartError> {
        check_versions(&plan)?;
        make_data_dir(&plan.data_dir)?;
        if restore::is_under_way(&RealFs, &plan.data_dir) {
            return Err(StartError::Restoring(plan.data_dir));
        }
        let pki = Pki::at(&plan.pki_dir);
        if !pki.is_initialised()? {
            return Err(PkiError::Missing(plan.pki_dir.clone()).into());
        }
        let names = match plan.gateway.names.as_slice() {
            [] => default_names(),
            names => names.to_vec(),
        };
        pki.ensure_server(&names)?;
        let meta = Meta::open(&plan.meta_path()).await?;
        let pipelines = build::pipelines(&plan, &meta).await?;
        let log_room = build::log_room(&plan, &pipelines);
        log_room.slot.set(log_room.open().await?);
        let log = log_room.slot.clone();
        let bind = |what, address| move |error| StartError::Bind { what, address, error };
        let listener = Listener::bind(plan.gateway.listen)
            .await
            .map_err(bind("agents", plan.gateway.listen))?;
        let questions =
            admin::bind(plan.admin_listen).await.map_err(bind("admin", plan.admin_listen))?;
        let address = |error| StartError::Io { action: "read a bound address", error };
        let gateway = listener.local_addr().map_err(address)?;
        let admin_addr = questions.local_addr().map_err(address)?;
        let door = Slot::empty();
        let observed = Arc::new(Observed::new(&plan, &meta, &pipelines, log.clone(), door.clone()));
        let gateway_room = GatewayRoom {
            config: plan.gateway.clone(),
            cluster: meta.cluster(),
            pki,
            names,
            log: log.clone(),
            door,
            bound: Arc::new(Mutex::new(Some(listener))),
        };
        let admin_room = AdminRoom {
            listen: plan.admin_listen,
            observe: observed.clone(),
            bound: Arc::new(Mutex::new(Some(questions))),
        };
        let rooms = build::rooms(&meta, log_room, gateway_room, admin_room, &pipelines, &log);
        let supervision = Supervision::start(
            crate::supervise::tree::tree(rooms),
            tokio::runtime::Handle::current(),
        )
        .map_err(|error| StartError::Io { action: "start supervision", error })?;
        observed.attach(supervision.clone());
        Ok(Self { supervision, meta, log, gateway, admin: admin_addr })
    }

    pub fn gateway_addr(&self) -> SocketAddr {
        self.gateway
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until the tree ends by itself, and says how.
    pub async fn root_ended(&self) -> RootExit {
        self.supervision.wait_exit().await
    }

    /// Stops in the order data flows, within a deadline. `Err` names who was late.
    pub async fn stop(&self, deadline: Duration) -> Result<(), String> {
        let graceful = tokio::time::timeout(deadline, self.supervision.stop(Stop::Graceful)).await;
        let late = match graceful {
            Ok(RootExit::Stopped { late }) if late.is_empty() => Ok(()),
            Ok(RootExit::Stopped { late }) => Err(format!("cut off: {}", late.join(", "))),
            Ok(RootExit::Failed(fault) | RootExit::Broken(fault)) => Err(fault.to_string()),
            Err(_) => {
                self.supervision.stop(Stop::Immediate).await;
                Err(format!("not all children stopped within {deadline:?}"))
            }
        };
        if let Some(log) = self.log.take() {
            log.shutdown().await;
        }
        if let Err(error) = self.meta.flush().await {
            tracing::warn!(%error, "the newest remembered cursors were not stored");
        }
        late
    }
}

/// Refuses a data folder that a newer build wrote, before anything in it is changed.
pub fn check_versions(plan: &Plan) -> Result<(), StartError> {
    garam_log::offline::check_versions(&plan.log_dir())?;
    Meta::check_version(&plan.meta_path())?;
    Ok(())
}

/// The folder that holds everything, under a name that survives a power cut.
fn make_data_dir(data_dir: &Path) -> Result<(), StartError> {
    let failed = |error| StartError::Io { action: "make the data folder", error };
    RealFs.create_dir(data_dir).map_err(failed)
}

/// Notes an issued certificate in the metadata.
pub async fn record_issued(plan: &Plan, issued: &IssuedAgent) -> Result<(), StartError> {
    make_data_dir(&plan.data_dir)?;
    let not_after = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    let meta = Meta::open(&plan.meta_path()).await?;
    meta.record_agent(&AgentRecord {
        agent: issued.agent,
        name: issued.host.clone(),
        serial: issued.serial.clone(),
        issued_us: wall_clock_us(),
        expires_us: i64::try_from(not_after.as_micros()).unwrap_or(i64::MAX),
    })
    .await?;
    Ok(())
}
