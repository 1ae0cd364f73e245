//! The wiring: from a checked plan to a running core.
//!
//! In: [`Plan`]. Out: [`App`], whose parts run under one supervision tree. Promise: everything that can be refused is opened
//! eagerly and refused before anything runs (folders, formats, ports, certificates); stopping follows the data: the gateway
//! refuses, pipelines settle, the log closes last.
//! Reading order: here → `build` (each room's parts) → `observe` (what the admin port tells) → `reload` (another configuration) →
//! `tap` and `rows`.

mod build;
mod observe;
mod reload;
pub(crate) mod rows;
mod tap;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use garam_dimension::Dimensions;
use garam_disk::{Fs, RealFs};
use garam_flow::Budget;
use garam_log::{EmbeddedLog, LogError};
use garam_meta::{GrantError, IssuedAgent as AgentRecord, Meta, MetaError, Proposal, Proven};
use garam_proto::AgentId;
use garam_stage::Failure;
use tokio::net::TcpListener;

use crate::actors::Slot;
use crate::actors::admin::AdminRoom;
use crate::actors::dimension::DimensionRoom;
use crate::actors::enrol::EnrolRoom;
use crate::actors::gateway::GatewayRoom;
use crate::admin::{Doors, House, Shut};
use crate::backup::restore;
use crate::config::Plan;
use crate::config::change::{Changes, Definition};
use crate::enrol::registrar::{RegistrarError, signed};
use crate::enrol::{Audit, Event, Outcome, Registrar};
use crate::gateway::listener::Listener;
use crate::gateway::{TlsError, wall_clock_us};
use crate::pki::{self, AgentKey, Pki, PkiError, ServerCertificate, check_host, default_names};
use crate::supervise::{Patience, RootExit, Stop, Supervision, SupervisionHandle};
use observe::{Observed, Shown};
pub use reload::NotReloaded;
use reload::{Reloader, Running};

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
        "cannot listen for operators on {0}; choose another place in [admin] of the configuration"
    )]
    Admin(#[from] Shut),
    #[error(
        "{} holds a restore that did not end: run `garam restore` again, it starts over", .0.display()
    )]
    Restoring(std::path::PathBuf),
    #[error("cannot {action}: {error}")]
    Io { action: &'static str, error: std::io::Error },
    #[error(transparent)]
    Room(#[from] Failure),
    #[error(
        "agent {agent} of host {host} is revoked: --replace issues a certificate for it all the same"
    )]
    Revoked { agent: AgentId, host: String },
    #[error("policy {0} is not in the configuration: add [policy.{0}], or name another")]
    NoPolicy(String),
}

impl From<RegistrarError> for StartError {
    fn from(error: RegistrarError) -> Self {
        match error {
            RegistrarError::Meta(error) => Self::Meta(error),
            RegistrarError::Pki(error) => Self::Pki(error),
        }
    }
}

/// A running core.
pub struct App {
    supervision: SupervisionHandle,
    reloader: Arc<Reloader>,
    audit: Audit,
    meta: Arc<Meta>,
    log: Slot<EmbeddedLog>,
    gateway: SocketAddr,
    enrol: Option<SocketAddr>,
    admin: SocketAddr,
    admin_remote: Option<SocketAddr>,
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
        let certificate = ServerCertificate::open(&pki, &names)?;
        let meta = Meta::open(&plan.meta_path()).await?;
        let pipelines = build::pipelines(&plan, &meta).await?;
        let disk: Arc<dyn Fs> = Arc::new(RealFs);
        let all =
            Dimensions::open(&disk, &plan.data_dir, &plan.dimensions, plan.snapshots.clone())?;
        let rooms = all.shelves.iter().map(|shelf| DimensionRoom::new(Arc::clone(shelf)));
        let tables = build::Tables { rooms: rooms.collect(), all };
        reload::record(&meta, &Definition::of(&plan)).await;
        let log_room = build::log_room(&plan, &pipelines);
        let log_needs = Arc::clone(&log_room.needs);
        log_room.slot.set(log_room.open().await?);
        let log = log_room.slot.clone();
        let bind = |what, address| move |error| StartError::Bind { what, address, error };
        let listener = Listener::bind(plan.gateway.listen)
            .await
            .map_err(bind("agents", plan.gateway.listen))?;
        let doors = Doors::open(&plan.admin).await?;
        let address = |error| StartError::Io { action: "read a bound address", error };
        let gateway = listener.local_addr().map_err(address)?;
        let admin_addr = doors.plain_addr().map_err(address)?;
        let admin_remote = doors.remote_addr().map_err(address)?;
        let (enrol_socket, enrol_addr) = match plan.gateway.enrol_listen {
            Some(wanted) => {
                let socket = TcpListener::bind(wanted).await.map_err(bind("enrolment", wanted))?;
                let bound = socket.local_addr().map_err(address)?;
                (Some(socket), Some(bound))
            }
            None => (None, None),
        };
        let registrar = Arc::new(Registrar::open(&plan, Arc::clone(&meta), &pki).await?);
        let door = Slot::empty();
        let shown = Arc::new(Shown::default());
        shown.set(&plan, &pipelines);
        let observed =
            Arc::new(Observed::new(&meta, Arc::clone(&shown), &tables, log.clone(), door.clone()));
        let ground = build::Ground {
            meta: Arc::clone(&meta),
            log: log.clone(),
            log_dir: plan.log_dir(),
            registrar: Arc::clone(&registrar),
            dimensions: tables.all.clone(),
            budget: Budget::default(),
            patience: Patience::default(),
        };
        let gateway_room = GatewayRoom {
            config: plan.gateway.clone(),
            cluster: meta.cluster(),
            certificate: Arc::clone(&certificate),
            log: log.clone(),
            registrar: Arc::clone(&registrar),
            door,
            bound: Arc::new(Mutex::new(Some(listener))),
        };
        let admin_room = AdminRoom {
            plan: plan.admin.clone(),
            house: House {
                observe: observed.clone(),
                audit: Audit::in_folder(&plan.data_dir),
                certificate: Arc::clone(&certificate),
            },
            bound: Arc::new(Mutex::new(Some(doors))),
        };
        let enrol_room = plan.gateway.enrol_listen.map(|listen| EnrolRoom {
            listen,
            certificate,
            registrar,
            bound: Arc::new(Mutex::new(enrol_socket)),
        });
        let ports = build::Ports { gateway: gateway_room, admin: admin_room, enrol: enrol_room };
        let rooms = build::rooms(&ground, log_room, ports, &tables, &pipelines);
        let supervision = Supervision::start(
            crate::supervise::tree::tree(rooms),
            tokio::runtime::Handle::current(),
        )
        .map_err(|error| StartError::Io { action: "start supervision", error })?;
        let audit = Audit::in_folder(&plan.data_dir);
        let running = Running { plan, pipelines };
        let reloader = Reloader::new(ground, supervision.clone(), log_needs, shown, running);
        let reloader = Arc::new(reloader);
        observed.attach(supervision.clone(), Arc::clone(&reloader));
        let (enrol, admin) = (enrol_addr, admin_addr);
        Ok(Self { supervision, reloader, audit, meta, log, gateway, enrol, admin, admin_remote })
    }

    /// Says from where the configuration is read again.
    pub fn reads(&self, source: &Path) {
        self.reloader.reads(source.to_owned());
    }

    /// Reads the configuration again and carries out what changed; in the audit log as asked for by a signal.
    pub async fn reload(&self) -> Result<Changes, NotReloaded> {
        let outcome = self.reloader.reload().await;
        let noted = if outcome.is_ok() { Outcome::Allowed } else { Outcome::Refused };
        let mut event = Event::new("reload", noted).with("by", "SIGHUP");
        if let Err(error) = &outcome {
            event = event.with("why", error);
        }
        self.audit.record(event).await;
        outcome
    }

    pub fn gateway_addr(&self) -> SocketAddr {
        self.gateway
    }

    /// Where hosts become agents, if anywhere.
    pub fn enrol_addr(&self) -> Option<SocketAddr> {
        self.enrol
    }

    /// Health and metrics, for everybody on this machine.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Where operators ask from other machines, if anywhere.
    pub fn admin_remote_addr(&self) -> Option<SocketAddr> {
        self.admin_remote
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

/// What `agent issue` is to make.
pub struct Issue<'a> {
    pub host: &'a str,
    pub life: Duration,
    pub policy: Option<String>,
    /// Also for an agent that is revoked.
    pub replace: bool,
    /// The identity folder to make.
    pub folder: &'a Path,
}

/// What `agent issue` made.
#[derive(Debug, Clone)]
pub struct Issued {
    pub agent: AgentId,
    /// The agent was there already, and keeps its id.
    pub again: bool,
    pub serial: String,
    pub not_after: SystemTime,
}

/// Issues a certificate on the core's own machine. A host that is known keeps its agent's id, so that what it has shipped is
/// not shipped again; its older certificate counts until the new one is used.
pub async fn issue_agent(plan: &Plan, issue: &Issue<'_>) -> Result<Issued, StartError> {
    check_host(issue.host)?;
    check_policy(plan, issue.policy.as_deref())?;
    let pki = Pki::at(&plan.pki_dir);
    let authority = pki.authority()?;
    if issue.folder.join("key.pem").try_exists().unwrap_or(true) {
        return Err(PkiError::Exists(issue.folder.join("key.pem")).into());
    }
    make_data_dir(&plan.data_dir)?;
    let meta = Meta::open(&plan.meta_path()).await?;
    let known = known_agent(&meta, issue.host).await?;
    let revoked = meta.revocations().await?;
    if let Some((agent, generation)) = known
        && revoked.get(&agent).is_some_and(|&through| generation <= through)
        && !issue.replace
    {
        return Err(StartError::Revoked { agent, host: issue.host.into() });
    }
    let key = AgentKey::generate()?;
    let agent = known.map_or_else(|| AgentId(*uuid::Uuid::new_v4().as_bytes()), |(agent, _)| agent);
    let recorded = meta.identity(agent).await?.is_some();
    let older_build = Proven { generation: 0, key_hash: garam_meta::KeyHash([0; 32]) };
    let proposal = Proposal {
        agent,
        host: issue.host.into(),
        policy: issue.policy.clone(),
        key_hash: key.hash(),
        // Of a certificate that an older build issued only the id is known.
        proven: (known.is_some() && !recorded).then_some(older_build),
        recoveries: None,
    };
    let mut made = None;
    let sign = |grant: &garam_meta::Grant| {
        let certificate = authority.sign_own(grant, &key, issue.life)?;
        let signed = signed(&certificate);
        made = Some(certificate);
        Ok::<_, PkiError>(signed)
    };
    let granted = meta.grant(&proposal, sign).await;
    let (_, signed) = granted.map_err(|error| match error {
        GrantError::Meta(error) => StartError::Meta(error),
        GrantError::Sign(error) => StartError::Pki(error),
        GrantError::Revoked(agent) | GrantError::TooManyRecoveries(agent) => {
            StartError::Revoked { agent, host: issue.host.into() }
        }
    })?;
    let Some(certificate) = made else {
        return Err(PkiError::Missing(plan.pki_dir.clone()).into());
    };
    meta.record_agent(&AgentRecord {
        agent,
        name: issue.host.into(),
        serial: certificate.serial.clone(),
        issued_us: wall_clock_us(),
        expires_us: signed.expires_us,
    })
    .await?;
    let event = Event::new("issue", Outcome::Allowed).by_this_user().with("agent", agent);
    Audit::in_folder(&plan.data_dir).record(event.with("host", issue.host)).await;
    authority.write_identity(issue.folder, &certificate, &key)?;
    let pki::AgentCertificate { serial, not_after, .. } = certificate;
    Ok(Issued { agent, again: known.is_some(), serial, not_after })
}

/// Refuses a policy that the configuration does not know.
pub fn check_policy(plan: &Plan, policy: Option<&str>) -> Result<(), StartError> {
    match policy {
        Some(name) if !plan.policies.iter().any(|policy| policy.name == name) => {
            Err(StartError::NoPolicy(name.into()))
        }
        _ => Ok(()),
    }
}

/// The agent of a host, and the newest generation of its keys; the one that was issued last, where there are several.
pub async fn known_agent(meta: &Meta, host: &str) -> Result<Option<(AgentId, u64)>, MetaError> {
    let identities = meta.identities().await?;
    let newest = identities.iter().filter(|i| i.host == host).max_by_key(|i| i.expires_us);
    if let Some(identity) = newest {
        let generation = identity.next.map_or(identity.generation, |(next, _)| next);
        return Ok(Some((identity.agent, generation)));
    }
    let issued = meta.agents().await?;
    Ok(issued.iter().rfind(|issued| issued.name == host).map(|issued| (issued.agent, 0)))
}
