//! `garam pause`: lets a pipeline wait at its cursor until `garam resume`.
//!
//! The pause is kept in the metadata: a running core obeys within a second, another one when it starts. The log keeps what
//! comes meanwhile, within the stream's quota.

use anyhow::anyhow;
use garam_meta::Meta;
use garam_proto::PipelineId;
use serde_json::json;

use super::exit::{Exit, coded};
use super::output::{self, Format};
use super::query::choose;
use crate::config::Plan;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: garam pause orders-to-db --reason \"the table is being rebuilt\"\n\n\
The pipeline finishes what is in its hands and waits at its cursor, also over restarts; its stream's log keeps what comes, within the quota.\n\
`garam status` shows the reason, `garam resume PIPELINE` lets it go on. The core may run or not."
)]
pub(crate) struct Args {
    pipeline: String,
    /// Why, for whoever looks at `garam status`.
    #[arg(long)]
    reason: String,
}

pub(crate) fn pause(plan: &Plan, args: &Args, format: Format) -> anyhow::Result<Exit> {
    let pipeline = choose(plan, Some(&args.pipeline))?;
    if args.reason.trim().is_empty() || args.reason.len() > 500 {
        return Err(coded(Exit::Usage, anyhow!("a reason has 1 to 500 bytes")));
    }
    super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        let id = known(&meta, &pipeline.name).await?;
        meta.pause(id, args.reason.trim()).await?;
        Ok(())
    })?;
    let value = json!({ "pipeline": pipeline.name, "paused": args.reason.trim() });
    output::print_text(format, &value, "a running core lets it wait within a second\n")?;
    Ok(Exit::Ok)
}

/// Lets a paused pipeline go on. `false`: it was not paused.
pub(super) fn end(plan: &Plan, pipeline: &str) -> anyhow::Result<bool> {
    if !plan.meta_path().try_exists()? {
        return Ok(false);
    }
    super::block_on(async {
        let meta = Meta::open(&plan.meta_path()).await?;
        let known = meta.pipelines().await?;
        match known.iter().find(|known| known.name == pipeline) {
            Some(known) => Ok(meta.go_on(known.id).await?),
            None => Ok(false),
        }
    })
}

async fn known(meta: &Meta, name: &str) -> anyhow::Result<PipelineId> {
    let known = meta.pipelines().await?;
    let found = known.into_iter().find(|known| known.name == name);
    found.map(|known| known.id).ok_or_else(|| {
        coded(Exit::NotFound, anyhow!("pipeline {name} has never run: there is nothing to pause"))
    })
}
