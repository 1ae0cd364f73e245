//! Shows records as they pass, by reading the log beside the pipeline: nothing is taken from it, nothing slows it down.

use std::sync::Arc;

use bytes::Bytes;
use garam_flow::{Name, taken_origin};
use garam_log::{EmbeddedLog, Entry, EntryBody, Log, LogReader};
use garam_proto::{DecodeLimits, PartitionId, PipelineId, Record, decompress, records};
use garam_stage::records::Provenance;
use garam_stage::{QuarantinedRecord, RawBlock, Refiner};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::rows::row_as_json;
use crate::admin::{TapFrom, TapRequest, TapStage};

/// Lines waiting for whoever listens.
const WAITING: usize = 256;

/// Opens a tap on partitions: those that a pipeline reads, or its quarantine. It ends at the limit, or when the receiver is dropped.
pub(super) async fn open(
    log: Arc<EmbeddedLog>,
    partitions: Vec<PartitionId>,
    refiner: Arc<dyn Refiner>,
    request: TapRequest,
) -> Result<mpsc::Receiver<String>, String> {
    let (send, lines) = mpsc::channel(WAITING);
    let left = Arc::new(std::sync::atomic::AtomicU64::new(match request.limit {
        0 => u64::MAX,
        limit => limit,
    }));
    for partition in partitions {
        let bounds = log.bounds(&partition).map_err(|e| e.to_string())?;
        let from = match request.from {
            TapFrom::End => bounds.end,
            TapFrom::Earliest => bounds.start,
        };
        let reader = log.reader(&partition, from).await.map_err(|e| e.to_string())?;
        let lens = Lens { partition, refiner: Arc::clone(&refiner), stage: request.stage };
        let one = Tap { reader, lens: Arc::new(lens) };
        tokio::spawn(one.run(send.clone(), Arc::clone(&left)));
    }
    Ok(lines)
}

struct Tap {
    reader: Box<dyn LogReader>,
    lens: Arc<Lens>,
}

/// How entries are shown; used on blocking threads, since decoding and refining take their time.
struct Lens {
    partition: PartitionId,
    refiner: Arc<dyn Refiner>,
    stage: TapStage,
}

impl Tap {
    async fn run(mut self, send: mpsc::Sender<String>, left: Arc<std::sync::atomic::AtomicU64>) {
        loop {
            let entry = tokio::select! {
                entry = self.reader.next() => entry,
                () = send.closed() => return,
            };
            let lines = match entry {
                Ok(entry) => {
                    let lens = Arc::clone(&self.lens);
                    let shown = tokio::task::spawn_blocking(move || lens.show(&entry)).await;
                    shown.unwrap_or_else(|panic| vec![json!({ "error": panic.to_string() })])
                }
                Err(error) => {
                    // The reader stands where it cannot go on; asking again would only repeat this line.
                    let _told_or_gone =
                        send.send(json!({ "error": error.to_string() }).to_string()).await.is_ok();
                    return;
                }
            };
            for line in lines {
                use std::sync::atomic::Ordering::Relaxed;
                let taken = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
                if taken.is_err() || send.send(line.to_string()).await.is_err() {
                    return;
                }
                if left.load(Relaxed) == 0 {
                    return;
                }
            }
        }
    }
}

impl Lens {
    fn show(&self, entry: &Entry) -> Vec<Value> {
        let EntryBody::Block { header, payload } = &entry.body else { return Vec::new() };
        let raw = match decompress(header.codec, payload, header.raw_len, &DecodeLimits::default())
        {
            Ok(raw) => Bytes::from(raw),
            Err(error) => return vec![self.problem(entry, &error.to_string())],
        };
        let records = match records(header, &raw) {
            Ok(records) => records,
            Err(error) => return vec![self.problem(entry, &error.to_string())],
        };
        let path = entry.origin.descriptor.label();
        if self.stage == TapStage::Quarantined {
            // The quarantine also says there what was taken out of it.
            let origin = entry.origin.origin;
            if origin == taken_origin(PipelineId(origin.agent.0)) {
                return Vec::new();
            }
            return records.iter().map(|record| self.aside(entry, record)).collect();
        }
        if self.stage == TapStage::Before {
            let raw = records.iter().map(|record| {
                json!({
                    "partition": self.partition.to_string(),
                    "offset": entry.offset.0,
                    "index": record.index,
                    "host": entry.origin.host,
                    "path": path,
                    "position": record.position.to_string(),
                    "record": String::from_utf8_lossy(&record.bytes),
                })
            });
            return raw.collect();
        }
        let provenance = Arc::new(Provenance {
            origin: entry.origin.origin,
            host: entry.origin.host.clone(),
            path,
            source_epoch: entry.origin.source_epoch,
        });
        let block = RawBlock { offset: entry.offset, provenance, header: header.clone(), records };
        match self.refiner.refine(&[block]) {
            Ok(refined) => {
                let rows = (0..refined.rows.num_rows()).map(|row| row_as_json(&refined.rows, row));
                let bad = refined.bad.iter().map(|bad| {
                    json!({
                        "quarantined": bad.reason.name(),
                        "detail": bad.detail,
                        "offset": bad.at.offset.0,
                        "index": bad.at.index,
                    })
                });
                rows.chain(bad).collect()
            }
            Err(failure) => vec![self.problem(entry, &failure.to_string())],
        }
    }

    /// A record that was put aside, by the name that `garam dlq` has for it.
    fn aside(&self, entry: &Entry, record: &Record) -> Value {
        let (aside, bytes) = match QuarantinedRecord::decode(&record.bytes) {
            Ok(found) => found,
            Err(error) => return self.problem(entry, &error.to_string()),
        };
        json!({
            "id": Name { offset: entry.offset, index: record.index }.to_string(),
            "quarantined": aside.reason.name(),
            "detail": aside.detail,
            "partition": format!("{}/{}", aside.stream, aside.partition),
            "offset": aside.offset,
            "index": aside.index,
            "host": aside.host,
            "path": aside.path,
            "position": aside.position.to_string(),
            "record": String::from_utf8_lossy(bytes),
        })
    }

    fn problem(&self, entry: &Entry, why: &str) -> Value {
        json!({ "partition": self.partition.to_string(), "offset": entry.offset.0, "undecodable": why })
    }
}
