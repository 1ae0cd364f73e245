//! Far more files than descriptors: all arrive, a few hot ones flow, and the idle ones cost next to nothing.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::sleep;

use super::ManyArgs;
use super::report::Idle;
use super::trial::Trial;

const HOT: u32 = 5;
/// Files are taken in a hundred at a time, so that the records of one batch lie in memory.
const BATCH: u32 = 100;

pub(super) async fn many(trial: &mut Trial, many: &ManyArgs) -> anyhow::Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(many.descriptors), maximum: hard };
    // Both programs raise their own limit as far as they may.
    let strict = Rlimit { maximum: Some(many.descriptors), ..limit };
    setrlimit(Resource::Nofile, strict).context("cannot limit descriptors")?;
    trial.begin("*/*.log", "").await?;
    let folder = |number: u32| format!("{}", number / BATCH);
    let name = |number: u32| format!("{}/{number}.log", folder(number));
    for number in 0..many.files {
        if number % BATCH == 0 {
            std::fs::create_dir_all(trial.log(&folder(number)))?;
        }
        trial.append(&name(number), number, 5)?;
    }
    trial.rig.start_agent()?;
    let files = many.files as usize;
    trial.until("all files are met", |ledger| ledger.files.len() == files).await?;
    trial.settle().await?;
    let intake = trial.rig.agent()?.usage()?;
    for _ in 0..3 {
        for hot in 0..HOT {
            trial.append(&name(hot), hot, 2_000)?;
        }
        trial.settle().await?;
    }
    // Until files count as idle they are looked at more often.
    sleep(Duration::from_secs(35)).await;
    let before = trial.rig.agent()?.usage()?;
    sleep(Duration::from_secs(many.idle_seconds)).await;
    let after = trial.rig.agent()?.usage()?;
    let descriptors = trial.rig.agent()?.descriptors()?;
    trial.complain(descriptors <= many.descriptors, "more descriptors than allowed");
    trial.idle = Some(Idle {
        files: u64::from(many.files),
        descriptors,
        resident_mib: after.resident_mib,
        peak_mib: after.peak_mib,
        cpu_percent: (after.cpu_s - before.cpu_s) / many.idle_seconds as f64 * 100.0,
        intake_cpu_s: intake.cpu_s,
    });
    Ok(())
}
