//! Something is missing for a while: room on a disk, a destination. It comes back, and everything must heal by itself.
//!
//! In: a seed, a rate. Out: a report. Promise: an outage that nobody felt is an error; no process may end; what
//! is left is judged by the oracle, each destination against its own book.
//!
//! | file | subject |
//! |---|---|
//! | [`disk_full`] | no room, then no inodes, under the core and the agent |
//! | [`destination_down`] | a destination is locked until its stream's quota is used up, beside one that is not |
//! | [`ballast`] | what takes the room |

mod ballast;
pub(crate) mod destination_down;
pub(crate) mod disk_full;
mod report;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::{self, Status};
use crate::rig::Rig;
use crate::scenario::home::Place;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Decides what is written.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second into each stream.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(500..=1_000_000))]
    rate: u32,
    #[command(flatten)]
    home: Place,
}

/// Until an outage must have been felt.
const FELT: Duration = Duration::from_secs(180);
/// Until everything must have healed. A destination is tried again after pauses that grow.
const HEALED: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(50);

/// Waits until the core's status is as it should be; false when it does not come to that in time.
async fn until(
    rig: &mut Rig,
    patience: Duration,
    mut is_so: impl FnMut(&Status) -> bool,
) -> anyhow::Result<bool> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        rig.check()?;
        if let Ok(status) = admin::status(&rig.ground.socket()).await
            && is_so(&status)
        {
            return Ok(true);
        }
        sleep(GLANCE).await;
    }
    Ok(false)
}
