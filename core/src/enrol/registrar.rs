//! Decides: who becomes an agent, whose key is changed, who may come back, who is let in and with what rights.
//!
//! ```text
//! certificate's generation   known to the record as      what happens
//!   revoked or below it      ·                           refused
//!   the bound one            its key                     let in
//!   the next one             its key                     let in; it is the bound one from now on
//!   higher                   nothing (restored record)   let in; the authority signed it: it is the bound one from now on
//!   anything else            an older or another key     refused: two hosts may be using one identity
//! ```
//!
//! An agent without a record (issued by an older build, or younger than a restored backup) is let in by its certificate alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_meta::{
    Enrolment, Grant, GrantError, Meta, MetaError, Proposal, Signed, TokenRecord, Unusable,
};
use garam_proto::AgentId;
use garam_proto::enrol::{Answer, Enrol, Issued, Recover, Refused};

use super::audit::{Audit, Event, Outcome};
use super::network::Network;
use super::rights::{Paces, Policies, Rights};
use super::token;
use crate::config::{PkiConfig, Plan};
use crate::gateway::wall_clock_us;
use crate::pki::{
    AgentCertificate, Authority, PeerIdentity, Pki, PkiError, RequestedKey, check_host,
};

/// What everybody hears whose token opens nothing, whatever the cause.
const NO_ENTRY: &str =
    "the token opens nothing: unknown, used, expired, or not for this host; ask for a new one";

/// Everything that decides.
pub struct Registrar {
    meta: Arc<Meta>,
    authority: Authority,
    pub policies: Policies,
    limits: PkiConfig,
    pub audit: Audit,
    pub stats: EnrolStats,
    pub paces: Paces,
    /// Up to which generation agents are revoked, as last read.
    revoked: Mutex<BTreeMap<AgentId, u64>>,
    /// The file as it was when they were read.
    seen: AtomicU64,
}

/// What was decided since the process started.
#[derive(Debug, Default)]
pub struct EnrolStats {
    pub enrolled: AtomicU64,
    pub renewed: AtomicU64,
    pub recovered: AtomicU64,
    pub refused: AtomicU64,
    /// Sessions, streams and claims that a certificate or a policy does not allow.
    pub denied: AtomicU64,
}

impl EnrolStats {
    /// Every counter with its name and what it means, for metrics.
    pub fn read(&self) -> [(&'static str, &'static str, u64); 5] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("enrol_enrolled", "Hosts that became agents.", get(&self.enrolled)),
            ("enrol_renewed", "Certificates renewed.", get(&self.renewed)),
            (
                "enrol_recovered",
                "Agents that came back after their certificate's end.",
                get(&self.recovered),
            ),
            ("enrol_refused", "Enrolments and recoveries refused.", get(&self.refused)),
            (
                "gateway_denied",
                "Sessions, streams, records and blocks that an agent may not open or send.",
                get(&self.denied),
            ),
        ]
    }
}

/// Why an agent is not let in.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Until somebody changes something.
    Denied(String),
    Later(String),
}

impl Registrar {
    pub async fn open(plan: &Plan, meta: Arc<Meta>, pki: &Pki) -> Result<Self, RegistrarError> {
        let revoked = meta.revocations().await?;
        Ok(Self {
            authority: pki.authority()?,
            policies: Policies::new(&plan.policies),
            limits: plan.pki.clone(),
            audit: Audit::in_folder(&plan.data_dir),
            stats: EnrolStats::default(),
            paces: Paces::default(),
            revoked: Mutex::new(revoked),
            // Whatever was written since is looked at once more.
            seen: AtomicU64::new(u64::MAX),
            meta,
        })
    }

    /// Whether an agent that TLS has verified is let in.
    pub async fn admit(
        &self,
        identity: &PeerIdentity,
        peer: IpAddr,
    ) -> Result<Rights, NotAdmitted> {
        let later = |error: MetaError| NotAdmitted::Later(error.to_string());
        let policy = match self.standing(identity).await.map_err(later)? {
            Ok(policy) => policy,
            Err(why) => {
                self.deny("session", identity, peer, &why).await;
                return Err(NotAdmitted::Denied(why));
            }
        };
        let Some(name) = policy else { return Ok(Rights::default()) };
        match self.policies.rights(&name) {
            Some(rights) => Ok(rights),
            None => {
                let why = format!("policy {name} of this agent is not in the core's configuration");
                self.deny("session", identity, peer, &why).await;
                Err(NotAdmitted::Denied(why))
            }
        }
    }

    pub fn is_revoked(&self, agent: AgentId, generation: u64) -> bool {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.get(&agent).is_some_and(|&through| generation <= through)
    }

    /// Reads anew who is revoked, when another process has written to the metadata. True when it did.
    pub async fn look_for_revocations(&self) -> Result<bool, MetaError> {
        let seen = self.meta.foreign_writes().await?.cast_unsigned();
        if self.seen.load(Ordering::Relaxed) == seen {
            return Ok(false);
        }
        let revoked = self.meta.revocations().await?;
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = revoked;
        self.seen.store(seen, Ordering::Relaxed);
        Ok(true)
    }

    /// Makes an agent of whoever holds a token.
    pub async fn enrol(&self, question: &Enrol, peer: IpAddr) -> Answer {
        let event = |outcome| {
            let event = Event::new("enrol", outcome).with("token", &question.token);
            event.with("peer", peer).with("host", &question.host)
        };
        match self.try_enrol(question, peer).await {
            Ok(enrolled) => {
                self.stats.enrolled.fetch_add(1, Ordering::Relaxed);
                let event = event(Outcome::Allowed).with("agent", enrolled.agent);
                self.audit.record(event.with("again", enrolled.again)).await;
                tracing::info!(%peer, agent = %enrolled.agent, host = enrolled.host, token = question.token, "agent enrolled");
                self.issued(enrolled.agent, enrolled.host, enrolled.chain)
            }
            Err(NotEnrolled { why, said, later }) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                self.audit.record(event(Outcome::Refused).with("why", &why)).await;
                tracing::warn!(%peer, token = question.token, why, "enrolment refused");
                refused(said.unwrap_or_else(|| NO_ENTRY.into()), later)
            }
        }
    }

    /// The certificate of an agent that is let in is changed for one with another key.
    pub async fn renew(
        &self,
        identity: &PeerIdentity,
        csr: &[u8],
        peer: IpAddr,
    ) -> Result<String, String> {
        let renewed = self.change_key(identity, csr, None).await;
        self.stats.renewed.fetch_add(u64::from(renewed.is_ok()), Ordering::Relaxed);
        self.note("renew", identity, peer, &renewed).await;
        renewed.map_err(|error| error.to_string())
    }

    /// An agent whose certificate has ended shows that it still has the key.
    pub async fn recover(
        &self,
        identity: &PeerIdentity,
        question: &Recover,
        peer: IpAddr,
    ) -> Answer {
        let recovered = match self.may_recover(identity).await {
            Ok(()) => self.change_key(identity, &question.csr, Some(self.limits.recoveries)).await,
            Err(error) => Err(error),
        };
        self.note("recover", identity, peer, &recovered).await;
        match recovered {
            Ok(chain) => {
                self.stats.recovered.fetch_add(1, Ordering::Relaxed);
                self.issued(identity.agent, identity.host.clone(), chain)
            }
            Err(error) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                let later = matches!(error, ChangeError::Meta(_));
                refused(error.to_string(), later)
            }
        }
    }

    /// What a certificate stands for: the name of its policy, or why it does not count.
    async fn standing(
        &self,
        identity: &PeerIdentity,
    ) -> Result<Result<Option<String>, String>, MetaError> {
        let (agent, generation) = (identity.agent, identity.generation);
        if self.is_revoked(agent, generation) {
            return Ok(Err("this agent is revoked".into()));
        }
        let Some(record) = self.meta.identity(agent).await? else {
            return Ok(Ok(identity.policy.clone()));
        };
        let next = record.next.filter(|next| *next == (generation, identity.key_hash));
        let newest = record.next.map_or(record.generation, |(next, _)| next);
        if next.is_some() || generation > newest {
            self.meta.settle(agent, identity.proven()).await?;
            let event = Event::new("key-changed", Outcome::Allowed).with("agent", agent);
            self.audit.record(event.with("generation", generation)).await;
            return Ok(Ok(record.policy));
        }
        // Generation 0 is of an older build, which kept no keys.
        let is_bound = identity.key_hash == record.key_hash || generation == 0;
        if generation == record.generation && is_bound {
            return Ok(Ok(record.policy));
        }
        Ok(Err(format!(
            "this certificate (generation {generation}) was replaced by another (generation {}): two hosts may be \
             using one identity; enrol this one with a token made with --replace, or as an agent of its own",
            record.generation
        )))
    }

    async fn may_recover(&self, identity: &PeerIdentity) -> Result<(), ChangeError> {
        let ended = SystemTime::now().duration_since(identity.not_after).unwrap_or_default();
        if ended > self.limits.recover_within {
            return Err(ChangeError::TooLate(self.limits.recover_within));
        }
        self.standing(identity).await?.map_err(ChangeError::Denied)?;
        Ok(())
    }

    async fn change_key(
        &self,
        identity: &PeerIdentity,
        csr: &[u8],
        recoveries: Option<u32>,
    ) -> Result<String, ChangeError> {
        let key = RequestedKey::of(csr)?;
        let proposal = Proposal {
            agent: identity.agent,
            host: identity.host.clone(),
            policy: identity.policy.clone(),
            key_hash: key.hash(),
            proven: Some(identity.proven()),
            recoveries,
        };
        let (_, signed) = self.meta.grant(&proposal, |grant| self.sign(grant, &key)).await?;
        Ok(signed.chain)
    }

    async fn try_enrol(
        &self,
        question: &Enrol,
        peer: IpAddr,
    ) -> Result<garam_meta::Enrolled, NotEnrolled> {
        let key = RequestedKey::of(&question.csr).map_err(|error| NotEnrolled::saying(&error))?;
        let record = self.meta.token(&question.token).await.map_err(NotEnrolled::later)?;
        // An unknown token takes the same way as a known one.
        let known = record.as_ref().map_or(token::secret_hash(""), |r| r.token.secret_hash);
        let opens = token::are_equal(known, token::secret_hash(&question.secret));
        let Some(record) = record.filter(|_| opens) else {
            return Err(NotEnrolled::because(Unusable::Unknown));
        };
        if !is_near(&record, peer) {
            return Err(NotEnrolled::because("the token is not for this address"));
        }
        let host = named(&record, &question.host)
            .ok_or_else(|| NotEnrolled::because("the token is for other hosts"))?;
        let enrolment = Enrolment {
            token: question.token.clone(),
            host,
            key_hash: key.hash(),
            now_us: wall_clock_us(),
        };
        match self.meta.enrol(&enrolment, |grant| self.sign(grant, &key)).await {
            Ok(Ok(enrolled)) => Ok(enrolled),
            Ok(Err(unusable)) => Err(NotEnrolled::because(unusable)),
            Err(error) => Err(NotEnrolled::later(error)),
        }
    }

    fn sign(&self, grant: &Grant, key: &RequestedKey) -> Result<Signed, PkiError> {
        let made = self.authority.sign(grant, key, self.limits.agent_life)?;
        Ok(signed(&made))
    }

    async fn note(
        &self,
        what: &'static str,
        identity: &PeerIdentity,
        peer: IpAddr,
        result: &Result<String, ChangeError>,
    ) {
        let outcome = if result.is_ok() { Outcome::Allowed } else { Outcome::Refused };
        let event = Event::new(what, outcome).with("agent", identity.agent).with("peer", peer);
        let event = event.with("host", &identity.host).with("generation", identity.generation);
        let (host, agent) = (&identity.host, identity.agent);
        let event = match result {
            Ok(_) => {
                tracing::info!(%peer, host, %agent, what, "certificate issued");
                event
            }
            Err(error) => {
                tracing::warn!(%peer, host, %agent, what, %error, "certificate refused");
                event.with("why", error)
            }
        };
        self.audit.record(event).await;
    }

    fn issued(&self, agent: AgentId, host: String, chain: String) -> Answer {
        let root = self.authority.root().to_owned();
        Answer::Issued(Issued { agent, host, root, chain, time_us: wall_clock_us() })
    }
}

/// The form that the metadata keeps.
pub fn signed(made: &AgentCertificate) -> Signed {
    let ends = made.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires_us = i64::try_from(ends.as_micros()).unwrap_or(i64::MAX);
    Signed { chain: made.chain.clone(), expires_us }
}

/// An answer that says no.
pub(super) fn refused(why: String, later: bool) -> Answer {
    Answer::Refused(Refused { why, later, time_us: wall_clock_us() })
}

fn is_near(record: &TokenRecord, peer: IpAddr) -> bool {
    let networks = &record.token.networks;
    let near = |text: &String| text.parse().is_ok_and(|network: Network| network.contains(peer));
    networks.is_empty() || networks.iter().any(near)
}

/// The name that a host gets: the token's, or its own where the token holds a pattern that it fits.
fn named(record: &TokenRecord, claimed: &str) -> Option<String> {
    if check_host(&record.token.host).is_ok() {
        return Some(record.token.host.clone());
    }
    check_host(claimed).ok()?;
    let pattern = globset::Glob::new(&record.token.host).ok()?.compile_matcher();
    pattern.is_match(claimed).then(|| claimed.to_owned())
}

/// Why the registrar cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Why a key was not changed. The agent is told: it has proven who it is.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Request(#[from] crate::pki::CsrError),
    #[error(transparent)]
    Grant(#[from] GrantError<PkiError>),
    #[error("{0}")]
    Denied(String),
    #[error("the certificate ended more than {} ago: enrol this host anew with a token made with --replace", humantime::format_duration(*.0))]
    TooLate(Duration),
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// Why nobody was enrolled: for the audit log, and for the host where that tells a stranger nothing.
struct NotEnrolled {
    why: String,
    said: Option<String>,
    later: bool,
}

impl NotEnrolled {
    fn because(why: impl ToString) -> Self {
        Self { why: why.to_string(), said: None, later: false }
    }

    fn saying(why: &impl ToString) -> Self {
        Self { why: why.to_string(), said: Some(why.to_string()), later: false }
    }

    fn later(why: impl ToString) -> Self {
        let said = "the core cannot enrol anybody now: try again".to_owned();
        Self { why: why.to_string(), said: Some(said), later: true }
    }
}
