//! The faults: what each one does, from its first blow to the moment when the product may recover.
//!
//! In: a planned action. Out: whether it struck: a link without a connection cannot be cut, and is not counted. Each fault
//! ends by restoring what it took away, so that the product alone decides what becomes of the records.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::clocks::{Clocks, Whose};
use super::schedule::{Action, LinkFault};
use crate::generate::Tally;
use crate::proxy::{Cut, Proxy, Weather};
use crate::rig::Rig;

/// How long a fault waits for what it needs: a connection, a rotation.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a slow link stays slow.
const SLOW: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(10);

/// What faults reach besides the processes.
pub(super) struct Striker<'a> {
    pub(super) proxy: Option<&'a Proxy>,
    pub(super) clocks: Option<&'a Clocks>,
    pub(super) tally: &'a Tally,
}

impl Striker<'_> {
    /// Does it. False when there was nothing to strike.
    pub(super) async fn strike(&self, rig: &mut Rig, action: Action) -> anyhow::Result<bool> {
        match action {
            Action::KillAgent => restart_agent(rig).await?,
            Action::KillCore => restart_core(rig).await?,
            Action::LoseState { down } => self.lose_state(rig, down).await?,
            Action::SetClock { whose, seconds, restart } => {
                self.clocks.context("there is no clock to set")?.set(whose, seconds)?;
                match (restart, whose) {
                    (false, _) => {}
                    (true, Whose::Core) => restart_core(rig).await?,
                    (true, Whose::Agent) => restart_agent(rig).await?,
                }
            }
            Action::Link(fault) => {
                let proxy = self.proxy.context("there is no proxy to strike")?;
                if !until(|| proxy.connections() > 0).await {
                    return Ok(false);
                }
                strike_link(proxy, fault).await;
            }
        }
        Ok(true)
    }

    /// The agent comes back to files that were renamed meanwhile, and knows nothing.
    async fn lose_state(&self, rig: &mut Rig, down: Duration) -> anyhow::Result<()> {
        let rotations = || self.tally.rotations.load(Ordering::Relaxed);
        rig.kill_agent().await?;
        std::fs::remove_dir_all(&rig.ground.state).context("cannot remove the agent's state")?;
        let before = rotations();
        sleep(down).await;
        let rotated = until(|| rotations() > before).await;
        anyhow::ensure!(rotated, "no file rotated within {PATIENCE:?}: raise --rate");
        rig.restart_agent()
    }
}

async fn restart_agent(rig: &mut Rig) -> anyhow::Result<()> {
    rig.kill_agent().await?;
    rig.restart_agent()
}

async fn restart_core(rig: &mut Rig) -> anyhow::Result<()> {
    rig.kill_core().await?;
    rig.restart_core()
}

async fn strike_link(proxy: &Proxy, fault: LinkFault) {
    match fault {
        LinkFault::Reset => proxy.cut(Cut::Reset),
        LinkFault::Close => proxy.cut(Cut::Close),
        LinkFault::Orphan(delay) => proxy.cut(Cut::Orphan(delay)),
        LinkFault::CutAfter(bytes) => {
            proxy.cut_after(bytes);
            // A quiet link may never carry so many: then it is cut between two frames.
            if !until(|| proxy.connections() == 0).await {
                proxy.cut(Cut::Reset);
            }
        }
        LinkFault::Stall(lasting) => {
            proxy.set(Weather::Stalled);
            sleep(lasting).await;
        }
        LinkFault::Swallow(lasting) => {
            proxy.set(Weather::Swallowing);
            sleep(lasting).await;
            proxy.cut(Cut::Reset);
            until(|| proxy.connections() == 0).await;
        }
        LinkFault::Slow(delay) => {
            proxy.set(Weather::Slow(delay));
            sleep(SLOW).await;
        }
        LinkFault::Refuse(lasting) => {
            proxy.set(Weather::Refusing);
            proxy.cut(Cut::Reset);
            sleep(lasting).await;
        }
    }
    proxy.set(Weather::Clear);
}

/// Waits for something to become true, not for ever.
async fn until(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(GLANCE).await;
    }
    true
}
