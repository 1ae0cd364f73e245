//! What a plan into a stream was made of, so that the plan can be made again after the definition has changed: it must finish what
//! a crash cut short.
//!
//! In: a checked pipeline. Out: a text for the metadata, and from such a text refiner and target. Promise: what is made again bears the
//! plan's id, so it gives the same records, or it is refused. Not here: when it is needed (`actors::pipeline`).

use std::sync::Arc;

use garam_flow::StreamTarget;
use garam_proto::StreamName;
use garam_refine::ContractRefiner;
use garam_stage::{Contract, ContractConfig, PlanId, Snapshots};
use serde::{Deserialize, Serialize};

use super::{PipelinePlan, Refining, StreamPlan, StreamTo, Target};

/// As it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of the input. `None`: lines as they are.
    contract: Option<ContractConfig>,
    sql: Option<String>,
    to: StreamTo,
    /// Of the output.
    partitions: u32,
}

/// A plan, made again.
pub struct Remade {
    pub refining: Refining,
    pub target: StreamTarget,
    /// That its records are spread over.
    pub partitions: u32,
}

/// What names a plan: the same text, the same records in the same places.
pub fn plan_text(refining: &Refining, placement: Option<String>) -> String {
    let mut text = refining.text().to_owned();
    if let Some(placement) = placement {
        text.push_str(&placement);
        text.push('\n');
    }
    text
}

pub fn plan_id(text: &str) -> PlanId {
    PlanId(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

impl Recipe {
    /// `None`: a table takes a record again whatever the plan, so nothing has to be finished by an older one.
    pub fn of(
        pipeline: &PipelinePlan,
        from: &StreamPlan,
        partitions: impl Fn(&StreamName) -> u32,
    ) -> Option<Self> {
        let Target::Stream(StreamTarget { stream, key }) = &pipeline.to else { return None };
        Some(Self {
            contract: from.written.clone(),
            sql: pipeline.refining.sql().map(str::to_owned),
            to: StreamTo { name: stream.to_string(), key: key.clone() },
            partitions: partitions(stream),
        })
    }

    /// As [`Recipe::remake`] reads it. `None` never comes: names, texts and numbers can all be written.
    pub fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// The plan of this id, from what it was made of; or why it cannot be made any more.
    pub fn remake(text: &str, id: PlanId) -> Result<Remade, String> {
        let Self { contract, sql, to, partitions } =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let contract = match contract {
            Some(contract) => contract.check().map_err(|error| error.to_string())?,
            None => Contract::lines(),
        };
        let refiner = ContractRefiner::new(contract.clone()).map_err(|error| error.to_string())?;
        let refiner = Arc::new(refiner);
        let refining = Refining::new(&contract, refiner, sql, Vec::new(), &Snapshots::default())?;
        let stream = StreamName::new(to.name).map_err(|error| error.to_string())?;
        let target = StreamTarget { stream, key: to.key };
        let placement = Target::Stream(target.clone()).placement(|_| partitions);
        if plan_id(&plan_text(&refining, placement)) != id {
            return Err("this release of garam makes other records of the same definition".into());
        }
        Ok(Remade { refining, target, partitions })
    }
}
