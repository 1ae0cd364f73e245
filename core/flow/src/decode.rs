//! From a log entry to a piece of a batch: decompressed, split into records, the bound ones left out.
//!
//! In: entries as received and the names that bind. Out: one [`Piece`] per entry, with what it adds to the counters.
//! Promise: foreign bytes never panic here and never grow beyond the limits; a block that does not decode, or whose
//! bytes are not what its header says, becomes `Undecodable` as a whole, with its payload kept as it came. An entry of the
//! requeue lane is the record that it holds, as if it stood where it was put aside.
//! Not here: what a record means.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use garam_log::{Entry, EntryBody, OriginState};
use garam_proto::block::{BadBlock, BadRecords};
use garam_proto::{
    BlockHeader, Codec, DecodeError, DecodeLimits, LogOffset, Malformed, Record, decompress,
    records,
};
use garam_stage::records::Provenance;
use garam_stage::{QuarantinedRecord, RawBlock, RecordRef};

use crate::binding::Binding;
use crate::config::Lane;

/// One entry of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) offset: LogOffset,
    /// Of this entry: what a cursor at `offset + 1` carries.
    pub(crate) fingerprint: u64,
    pub(crate) records_in: u64,
    /// Of these, how many were put aside before this run.
    pub(crate) bound: u64,
    pub(crate) gap_units: Option<u64>,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Nothing to deliver: a claim, a gap, an advance, or a block that is bound as a whole.
    Quiet,
    /// Records to refine.
    Block(RawBlock),
    /// To be put aside as a whole.
    Undecodable(Box<Undecodable>),
}

#[derive(Debug, Clone)]
pub(crate) struct Undecodable {
    pub(crate) provenance: Arc<Provenance>,
    pub(crate) header: BlockHeader,
    pub(crate) payload: Bytes,
    pub(crate) why: String,
    /// Records not put aside one by one before.
    pub(crate) records: u32,
}

/// Why a block cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecoded {
    #[error(transparent)]
    Header(#[from] BadBlock),
    #[error(transparent)]
    Codec(#[from] DecodeError),
    #[error(transparent)]
    Records(#[from] BadRecords),
    #[error(transparent)]
    Aside(#[from] Malformed),
    #[error("an entry of the requeue lane holds one record")]
    NotOne,
    #[error("decoding panicked")]
    Panic,
}

/// Decodes one entry. CPU work: call it on a blocking thread.
pub(crate) fn decode(entry: Entry, binding: &Binding, limits: &DecodeLimits, lane: Lane) -> Piece {
    let Entry { offset, fingerprint, origin, body } = entry;
    let piece = Piece {
        offset,
        fingerprint: fingerprint.0,
        records_in: 0,
        bound: 0,
        gap_units: None,
        content: Content::Quiet,
    };
    match body {
        EntryBody::Block { header, payload } => {
            let whole = Whole { origin: &origin, header, payload, lane };
            block(piece, whole, binding, limits)
        }
        EntryBody::Gap { from, to, .. } => {
            let units = u64::try_from(to.saturating_sub(from)).unwrap_or(u64::MAX);
            Piece { gap_units: Some(units), ..piece }
        }
        EntryBody::Claim | EntryBody::Advance { .. } | EntryBody::Retire => piece,
    }
}

/// The records of a block, or why it is not what it says.
pub(crate) fn split(
    header: &BlockHeader,
    payload: &Bytes,
    limits: &DecodeLimits,
) -> Result<Vec<Record>, Undecoded> {
    header.check(limits)?;
    header.check_payload(payload)?;
    let raw = match header.codec {
        Codec::None if header.raw_len == header.payload_len => payload.clone(),
        codec => decompress(codec, payload, header.raw_len, limits)?.into(),
    };
    Ok(records(header, &raw)?)
}

/// A block as it lies in the log.
struct Whole<'e> {
    origin: &'e OriginState,
    header: BlockHeader,
    payload: Bytes,
    lane: Lane,
}

fn block(piece: Piece, whole: Whole<'_>, binding: &Binding, limits: &DecodeLimits) -> Piece {
    let Whole { origin, header, payload, lane } = whole;
    let offset = piece.offset;
    // What the header claims stands for a block that cannot be read, and a block that cannot be read holds something.
    let claimed = u64::from(header.records.max(1));
    if binding.masks_block(offset) {
        let records_in = claimed.max(binding.singles(offset));
        return Piece { records_in, bound: records_in, ..piece };
    }
    let provenance = Provenance {
        origin: origin.origin,
        host: origin.host.clone(),
        path: origin.descriptor.label(),
        source_epoch: origin.source_epoch,
    };
    // A decoder that panics on foreign bytes is a bug, but one that must not stop the river.
    let split = catch_unwind(AssertUnwindSafe(|| {
        let records = split(&header, &payload, limits)?;
        match lane {
            Lane::Input => Ok((header.clone(), provenance.clone(), records)),
            Lane::Requeue => unwrap(&header, records),
        }
    }));
    match split.unwrap_or(Err(Undecoded::Panic)) {
        Ok((header, provenance, mut records)) => {
            let records_in = records.len() as u64;
            records.retain(|record| !binding.masks(RecordRef { offset, index: record.index }));
            let bound = records_in - records.len() as u64;
            let block = RawBlock { offset, provenance: Arc::new(provenance), header, records };
            Piece { records_in, bound, content: Content::Block(block), ..piece }
        }
        Err(why) => {
            let bound = binding.singles(offset);
            let records_in = claimed.max(bound);
            if records_in == bound {
                return Piece { records_in, bound, ..piece };
            }
            let records = u32::try_from(records_in - bound).unwrap_or(u32::MAX);
            let (why, provenance) = (why.to_string(), Arc::new(provenance));
            let whole = Undecodable { provenance, header, payload, why, records };
            let content = Content::Undecodable(Box::new(whole));
            Piece { records_in, bound, content, ..piece }
        }
    }
}

/// The record that an entry of the requeue lane holds, where it came from first.
fn unwrap(
    header: &BlockHeader,
    records: Vec<Record>,
) -> Result<(BlockHeader, Provenance, Vec<Record>), Undecoded> {
    let [record] = <[Record; 1]>::try_from(records).map_err(|_| Undecoded::NotOne)?;
    let (aside, bytes) = QuarantinedRecord::decode(&record.bytes)?;
    let bytes = record.bytes.slice_ref(bytes);
    let provenance = Provenance {
        origin: aside.origin,
        host: aside.host,
        path: aside.path,
        source_epoch: aside.source_epoch,
    };
    let header = BlockHeader {
        origin: aside.origin,
        ingest_time_us: aside.ingest_time_us,
        ..header.clone()
    };
    let record = Record { position: aside.position, bytes, ..record };
    Ok((header, provenance, vec![record]))
}

#[cfg(test)]
mod tests {
    use garam_proto::{
        AgentId, BlockKind, Descriptor, Generation, LineageId, OriginId, SessionId, SourceName,
    };
    use garam_stage::quarantine::WHOLE_BLOCK;

    use super::*;

    fn entry(payload: &[u8], change: impl FnOnce(&mut BlockHeader)) -> Entry {
        let origin = OriginId { agent: AgentId([1; 16]), generation: Generation([2; 16]) };
        let len = u32::try_from(payload.len()).unwrap();
        let mut header = BlockHeader {
            origin,
            session: SessionId(1),
            from: 100,
            to: 100 + u128::from(len),
            records: garam_proto::block::count_lines(payload),
            kind: BlockKind::Lines,
            flags: 0,
            codec: Codec::None,
            raw_len: len,
            payload_len: len,
            payload_crc: crc32c::crc32c(payload),
            ingest_time_us: 0,
            tail_hash: 0,
            resume: None,
        };
        change(&mut header);
        let state = OriginState {
            origin,
            host: "h".into(),
            source: SourceName::new("s").unwrap(),
            descriptor: Descriptor::Producer { key: Vec::new() },
            lineage: LineageId(1),
            source_epoch: 1,
            mark: header.to,
            tail_hash: 0,
            claim: SessionId(1),
            resume: None,
            retired: false,
        };
        Entry {
            offset: LogOffset(5),
            fingerprint: garam_log::Fingerprint(9),
            origin: Arc::new(state),
            body: EntryBody::Block { header, payload: Bytes::copy_from_slice(payload) },
        }
    }

    fn bind(indices: &[u32]) -> Binding {
        let mut binding = Binding::default();
        indices.iter().for_each(|&index| binding.add(RecordRef { offset: LogOffset(5), index }));
        binding
    }

    fn check(entry: Entry, binding: &Binding, records_in: u64, bound: u64, left: Option<usize>) {
        let piece = decode(entry, binding, &DecodeLimits::default(), Lane::Input);
        let found = match &piece.content {
            Content::Block(block) => Some(block.records.len()),
            Content::Undecodable(whole) => {
                assert_eq!(u64::from(whole.records) + piece.bound, piece.records_in);
                None
            }
            Content::Quiet => Some(0),
        };
        assert_eq!((piece.records_in, piece.bound, found), (records_in, bound, left));
    }

    #[test]
    fn bound_records_are_counted_and_left_out() {
        check(entry(b"a\nb\nc\n", |_| {}), &bind(&[]), 3, 0, Some(3));
        check(entry(b"a\nb\nc\n", |_| {}), &bind(&[1]), 3, 1, Some(2));
        check(entry(b"a\nb\nc\n", |_| {}), &bind(&[WHOLE_BLOCK]), 3, 3, Some(0));
    }

    #[test]
    fn a_block_that_lies_is_put_aside_whole() {
        check(entry(b"a\nb\n", |header| header.payload_crc ^= 1), &bind(&[]), 2, 0, None);
        check(entry(b"a\nb\n", |header| header.records = 7), &bind(&[]), 7, 0, None);
        check(entry(b"a\nb\n", |header| header.codec = Codec::Zstd), &bind(&[]), 2, 0, None);
        check(entry(b"a\nb\n", |header| header.records = 0), &bind(&[]), 1, 0, None);
        // One of its records was put aside by an earlier build that could read it: counted once.
        check(entry(b"a\nb\n", |header| header.payload_crc ^= 1), &bind(&[1]), 2, 1, None);
    }
}
