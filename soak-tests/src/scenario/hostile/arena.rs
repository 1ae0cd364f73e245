//! Where attacks happen: the core's two ports, identities of every kind, and an address of its own for each attacker.
//!
//! In: the ground with a running core. Out: attackers. Promise: identities and tokens are made by the product's own command line; each
//! attacker has another loopback address and another host's name, by which the audit log tells them apart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use tokio::time::{Instant, sleep};

use super::peer::{Identity, Peer};
use super::watch::Suspect;
use crate::admin;
use crate::ground::Ground;

/// What bad agents carry: their own stream and nothing else.
pub(super) const POLICY: &str = "bad";
/// Their stream.
pub(super) const STREAM: &str = "hostile";

const PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(20);

pub(super) struct Arena {
    pub(super) ground: Ground,
    pub(super) gateway: SocketAddr,
    pub(super) enrol: SocketAddr,
    /// A core that nobody trusts.
    pub(super) foreign: PathBuf,
    pub(super) seed: u64,
    attackers: AtomicU8,
}

impl Arena {
    /// With another authority's identity beside the real one's.
    pub(super) async fn prepare(
        ground: &Ground,
        enrol: SocketAddr,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let mut other = ground.clone();
        other.data_dir = ground.dir.join("other-core");
        other.core_config = ground.dir.join("other-core.toml");
        other.write_log_only_core()?;
        other.garam(&["ca", "init", "--label", "other"]).await?;
        let foreign = ground.dir.join("other-identity");
        issue(&other, "soak-host", &foreign, &[]).await?;
        // Its owner knows this core's root: only the certificate is foreign.
        std::fs::copy(ground.identity().join("ca.pem"), foreign.join("ca.pem"))?;
        let (ground, gateway) = (ground.clone(), ground.gateway);
        Ok(Self { ground, gateway, enrol, foreign, seed, attackers: AtomicU8::new(1) })
    }

    /// Somebody new.
    pub(super) fn suspect(&self, name: &str) -> Suspect {
        let number = self.attackers.fetch_add(1, Ordering::Relaxed);
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 13, number));
        Suspect { address, host: format!("bad-{name}").replace('_', "-") }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.ground.identity().join("ca.pem")
    }

    /// An identity that the operator gave.
    pub(super) async fn identity(&self, who: &Suspect) -> anyhow::Result<Identity> {
        let folder = self.ground.dir.join(&who.host);
        issue(&self.ground, &who.host, &folder, &["--policy", POLICY]).await?;
        Ok(Identity::at(&folder))
    }

    /// A session that the core has welcomed, as an agent that the operator trusts with its own stream.
    pub(super) async fn insider(&self, who: &Suspect) -> anyhow::Result<Peer> {
        let config = self.identity(who).await?.config()?;
        self.welcomed(who, config).await
    }

    pub(super) async fn welcomed(
        &self,
        who: &Suspect,
        config: Arc<ClientConfig>,
    ) -> anyhow::Result<Peer> {
        let peer = Peer::connect(who.address, self.gateway, config).await?;
        peer.ok().with_context(|| format!("{} is not let in at all", who.host))
    }

    /// Waits until an attacker's session is over, so that the next one takes nobody's place.
    pub(super) async fn left(&self, who: &Suspect) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = admin::status(&self.ground.socket()).await?;
            if !status.agents.iter().any(|agent| agent.host == who.host) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} is still connected", who.host);
            sleep(GLANCE).await;
        }
    }

    /// Payload bytes of the bad peers' stream that the log has taken.
    pub(super) async fn bytes_in_log(&self) -> anyhow::Result<u64> {
        admin::appended_bytes(self.ground.admin, STREAM).await
    }

    /// Whether a certificate gets nobody in.
    pub(super) async fn keeps_out(
        &self,
        who: &Suspect,
        config: Arc<ClientConfig>,
    ) -> anyhow::Result<bool> {
        Ok(Peer::connect(who.address, self.gateway, config).await?.is_err())
    }
}

async fn issue(
    ground: &Ground,
    host: &str,
    folder: &std::path::Path,
    more: &[&str],
) -> anyhow::Result<()> {
    let folder = folder.to_str().context("the work folder's name is no UTF-8")?;
    let verb = ["agent", "issue", host, "--out", folder];
    ground.garam(&[&verb[..], more].concat()).await?;
    Ok(())
}
