//! Garam's own way: a block of the log into rows.
//!
//! In: blocks as the log holds them. Out: a batch of rows with their provenance. Each batch is checked and decompressed, split into
//! records, parsed and checked by the contract, and refined by the SQL, as `flow` and the refiners do it.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use garam_proto::{DecodeLimits, LogOffset, decompress, records};
use garam_refine::ContractRefiner;
use garam_refine_sql::{Dimensions, SqlRefiner};
use garam_stage::records::Provenance;
use garam_stage::{
    ContractConfig, Dimension, Missing, RawBlock, Refined, Refiner, Snapshot, SnapshotId, Snapshots,
};

use super::Pass;
use super::records::{CONTRACT, SQL, Shipped, USERS, user};

/// One of our refiners.
pub(super) struct Own {
    refiner: Arc<dyn Refiner>,
}

impl Own {
    /// The contract alone.
    pub(super) fn contract() -> anyhow::Result<Self> {
        Ok(Self { refiner: contract()? })
    }

    /// The contract, then the SQL.
    pub(super) fn whole() -> anyhow::Result<Self> {
        let rows = users()?;
        let fields = rows.schema_ref().fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let nullable = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let nulls = nullable.fields().iter().map(|field| new_null_array(field.data_type(), 1));
        let default_row = RecordBatch::try_new(Arc::clone(&nullable), nulls.collect())?;
        let key = vec!["user_id".to_owned()];
        let table = Dimension {
            name: "users".into(),
            schema: rows.schema(),
            key: key.clone(),
            missing: Missing::Null,
            default_row,
        };
        let snapshots = Snapshots::default();
        let snapshot = Snapshot { id: SnapshotId(1), rows, key, loaded_us: 0, source_us: None };
        snapshots.put("users", Arc::new(snapshot));
        let dimensions = Dimensions { tables: vec![table], snapshots };
        Ok(Self { refiner: Arc::new(SqlRefiner::joining(contract()?, SQL, &dimensions)?) })
    }

    pub(super) fn batch(&self, blocks: &[Shipped]) -> anyhow::Result<RecordBatch> {
        let blocks = blocks.iter().map(decode).collect::<anyhow::Result<Vec<_>>>()?;
        let Refined { rows, bad, .. } = self.refiner.refine(&blocks)?;
        ensure!(bad.is_empty(), "{} records were put aside: {:?}", bad.len(), bad.first());
        Ok(rows)
    }
}

impl super::Side for Own {
    fn pass<'a>(&'a self, blocks: &'a [Shipped], per_batch: usize) -> anyhow::Result<Pass<'a>> {
        Ok(Box::new(move || {
            let mut rows = 0;
            for blocks in blocks.chunks(per_batch) {
                rows += self.batch(blocks)?.num_rows();
            }
            Ok(rows)
        }))
    }
}

/// The contract's own columns.
pub(super) fn schema() -> anyhow::Result<SchemaRef> {
    let fields = contract()?
        .schema()
        .fields()
        .iter()
        .take(super::records::COLUMNS)
        .cloned()
        .collect::<Vec<_>>();
    Ok(Arc::new(Schema::new(fields)))
}

/// The table that is joined.
pub(super) fn users() -> anyhow::Result<RecordBatch> {
    let fields =
        [("user_id", DataType::Int64), ("country", DataType::Utf8), ("plan", DataType::Utf8)];
    let fields = fields.map(|(name, kind)| Field::new(name, kind, name != "user_id"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..USERS)),
        Arc::new(StringArray::from_iter_values((0..USERS).map(|id| user(id).0))),
        Arc::new(StringArray::from_iter_values((0..USERS).map(|id| user(id).1))),
    ];
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns)?)
}

fn contract() -> anyhow::Result<Arc<ContractRefiner>> {
    let config: ContractConfig = serde_json::from_str(CONTRACT).context("the contract")?;
    Ok(Arc::new(ContractRefiner::new(config.check()?)?))
}

fn decode(block: &Shipped) -> anyhow::Result<RawBlock> {
    let Shipped { header, payload, .. } = block;
    let limits = DecodeLimits::default();
    header.check(&limits)?;
    header.check_payload(payload)?;
    let raw: Bytes = decompress(header.codec, payload, header.raw_len, &limits)?.into();
    let records = records(header, &raw)?;
    let provenance = Provenance {
        origin: header.origin,
        host: "web-17.example".into(),
        path: "/var/log/shop/access.json".into(),
        source_epoch: 1,
    };
    let (provenance, header) = (Arc::new(provenance), header.clone());
    Ok(RawBlock { offset: LogOffset(0), provenance, header, records })
}
