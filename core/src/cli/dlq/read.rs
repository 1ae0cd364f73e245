//! A pipeline's quarantine as it lies on disk, and what became of each record.

use std::collections::BTreeMap;

use bytes::Bytes;
use garam_flow::{Name, Taken, TakenFor, quarantine_stream, taken_origin};
use garam_log::{EntryBody, inspect};
use garam_proto::{DecodeLimits, LogOffset, PartitionId, PipelineId, decompress, records};
use garam_stage::QuarantinedRecord;
use garam_stage::quarantine::WHOLE_BLOCK;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::{PipelinePlan, Plan};

/// A quarantined record with its name in the pipeline's quarantine.
pub(super) struct Aside {
    pub(super) pipeline: String,
    pub(super) name: Name,
    pub(super) record: QuarantinedRecord,
    pub(super) bytes: Bytes,
    /// The request that took it; `None`: it waits.
    pub(super) taken: Option<(TakenFor, Uuid)>,
}

impl Aside {
    pub(super) fn state(&self) -> &'static str {
        match self.taken {
            None => "waiting",
            Some((TakenFor::Requeue, _)) => "requeued",
            Some((TakenFor::Purge, _)) => "purged",
        }
    }

    pub(super) fn as_json(&self) -> Value {
        let record = &self.record;
        json!({
            "id": self.name.to_string(),
            "pipeline": self.pipeline,
            "state": self.state(),
            "request": self.taken.map(|(_, request)| request.to_string()),
            "reason": record.reason.name(),
            "detail": record.detail,
            "records": record.records,
            "host": record.host,
            "path": record.path,
            "stream": record.stream.as_str(),
            "partition": record.partition,
            "offset": record.offset,
            "index": if record.index == WHOLE_BLOCK { Value::Null } else { json!(record.index) },
            "agent": record.origin.agent.to_string(),
            "generation": record.origin.generation.to_string(),
            "position": record.position.to_string(),
            "time_us": record.time_us,
            "record": String::from_utf8_lossy(&self.bytes),
        })
    }
}

/// Everything in a pipeline's quarantine, oldest first.
pub(super) fn read(plan: &Plan, pipeline: &PipelinePlan) -> anyhow::Result<Vec<Aside>> {
    let Some(id) = pipeline_id(plan, &pipeline.name)? else { return Ok(Vec::new()) };
    let dir = plan.log_dir();
    let partition = PartitionId { stream: quarantine_stream(id), index: 0 };
    if !inspect::partitions_in(&dir)?.contains(&partition) {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<Name, Aside> = BTreeMap::new();
    for entry in inspect::entries(&dir, &partition, None)? {
        let entry = entry?;
        let EntryBody::Block { header, payload } = entry.body else { continue };
        let raw = decompress(header.codec, &payload, header.raw_len, &DecodeLimits::default())?;
        for record in records(&header, &Bytes::from(raw))? {
            if header.origin == taken_origin(id) {
                note(&Taken::decode(&record.bytes)?, &mut found);
                continue;
            }
            let (quarantined, bytes) = QuarantinedRecord::decode(&record.bytes)?;
            let name = Name { offset: entry.offset, index: record.index };
            let (pipeline, bytes) = (pipeline.name.clone(), record.bytes.slice_ref(bytes));
            let aside = Aside { pipeline, name, record: quarantined, bytes, taken: None };
            found.insert(name, aside);
        }
    }
    Ok(found.into_values().collect())
}

fn note(taken: &Taken, found: &mut BTreeMap<Name, Aside>) {
    for &(offset, index) in &taken.names {
        let name = Name { offset: LogOffset(offset), index };
        if let Some(aside) = found.get_mut(&name) {
            aside.taken.get_or_insert((taken.what, Uuid::from_bytes(taken.request)));
        }
    }
}

/// The pipeline's identity; `None` when it has never run.
pub(super) fn pipeline_id(plan: &Plan, name: &str) -> anyhow::Result<Option<PipelineId>> {
    if !plan.meta_path().try_exists()? {
        return Ok(None);
    }
    crate::cli::block_on(async {
        let meta = garam_meta::Meta::open(&plan.meta_path()).await?;
        let known = meta.pipelines().await?;
        Ok(known.into_iter().find(|pipeline| pipeline.name == name).map(|pipeline| pipeline.id))
    })
}
