//! The compressor: one thread between engine and connection, so that neither the reactor nor the reader waits for zstd.
//!
//! ```text
//! engine ─ Job ─► [ compress, count, checksum ] ─ Outgoing ─► writer
//!    ▲──────────────── Event::Compressed ◄┘
//! ```
//!
//! In: jobs in the order in which they must reach the wire; messages pass through in their place. Out: encoded frames.
//! Promise: order is kept; a job of a connection that is gone is dropped; buffers are reused, so a steady stream allocates
//! nothing large. Not here: what to read, windows.

use std::sync::{Arc, Mutex, PoisonError};

use garam_proto::{BlockHeader, Codec, Compressor, Message, message};
use tokio::sync::mpsc;

use crate::engine::Event;

/// Something for the wire, in order.
#[derive(Debug)]
pub enum Job {
    /// From here on jobs belong to this connection.
    Connection {
        wire: mpsc::Sender<Outgoing>,
        max_part: usize,
    },
    Message(Message),
    /// From here on blocks are compressed with this.
    Codec(Codec, i32),
    Block(RawBlock),
}

/// A block as read. The header's codec, lengths, checksum and, if absent, record count are filled in here.
#[derive(Debug)]
pub struct RawBlock {
    pub slot: u32,
    pub answer: u64,
    pub header: BlockHeader,
    pub records: Option<u32>,
    pub raw: Vec<u8>,
}

/// Frames for the writer: heads with the piece of the payload that follows each.
#[derive(Debug)]
pub struct Outgoing {
    pub frames: Vec<Head>,
    pub payload: Vec<u8>,
}

/// An encoded frame head and how many payload bytes follow it.
#[derive(Debug)]
pub struct Head {
    pub bytes: Vec<u8>,
    pub payload_len: usize,
}

/// Buffers that wait to be used again: few, and none larger than a usual block needs.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

const POOLED: usize = 12;
const POOLED_BYTES: usize = 2 * 1024 * 1024;

impl Pool {
    /// A buffer with whatever bytes its last use left in it.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub fn give(&self, buffer: Vec<u8>) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < POOLED && buffer.capacity() <= POOLED_BYTES {
            pool.push(buffer);
        }
    }

    /// Frees what is kept: nothing has moved for a while.
    pub fn shrink(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The thread's state.
pub struct Worker {
    compressor: Compressor,
    pool: Pool,
    events: mpsc::Sender<Event>,
    connection: Option<(mpsc::Sender<Outgoing>, usize)>,
}

impl Worker {
    pub fn new(
        codec: Codec,
        level: i32,
        pool: Pool,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<Self> {
        Ok(Self { compressor: Compressor::new(codec, level)?, pool, events, connection: None })
    }

    /// Works until the engine drops its end.
    pub fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Connection { wire, max_part } => self.connection = Some((wire, max_part)),
                Job::Message(message) => self.send(encode(&message)),
                Job::Codec(codec, level) => match Compressor::new(codec, level) {
                    Ok(compressor) => self.compressor = compressor,
                    Err(error) => tracing::warn!(%error, "keeping the codec that is in use"),
                },
                Job::Block(block) => self.block(block),
            }
        }
    }

    fn block(&mut self, block: RawBlock) {
        let Some((_, max_part)) = self.connection else { return };
        let RawBlock { slot, answer, mut header, records, raw } = block;
        let mut payload = self.pool.take();
        payload.clear();
        header.records = records.unwrap_or_else(|| garam_proto::block::count_lines(&raw));
        header.raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        header.codec = match self.compressor.compress(&raw, &mut payload) {
            Ok(codec) => codec,
            Err(error) => {
                // Bytes that do not compress still travel.
                tracing::warn!(%error, "cannot compress block, sending it plain");
                payload.clear();
                payload.extend_from_slice(&raw);
                Codec::None
            }
        };
        header.payload_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        header.payload_crc = crc32c::crc32c(&payload);
        let compressed = Event::Compressed {
            slot,
            answer,
            to: header.to,
            payload_len: payload.len() as u64,
            records: header.records,
        };
        self.pool.give(raw);
        // Told before the block is on its way, so that its acknowledgement cannot come first.
        if self.events.blocking_send(compressed).is_err() {
            return;
        }
        self.send(encode_push(slot, answer, header, payload, max_part));
    }

    fn send(&mut self, outgoing: Result<Outgoing, garam_proto::Malformed>) {
        let Some((wire, _)) = &self.connection else { return };
        match outgoing {
            Ok(outgoing) => {
                if wire.blocking_send(outgoing).is_err() {
                    self.connection = None;
                }
            }
            Err(error) => tracing::error!(
                %error,
                action = "report this: the agent built a message it cannot encode",
                "cannot encode message"
            ),
        }
    }
}

/// A message without payload, as frames.
pub fn encode(message: &Message) -> Result<Outgoing, garam_proto::Malformed> {
    let head = Head { bytes: message.encode(0)?, payload_len: 0 };
    Ok(Outgoing { frames: vec![head], payload: Vec::new() })
}

/// A `Push`, followed by as many `Part`s as its payload needs.
fn encode_push(
    slot: u32,
    answer: u64,
    block: BlockHeader,
    payload: Vec<u8>,
    max_part: usize,
) -> Result<Outgoing, garam_proto::Malformed> {
    let first = payload.len().min(max_part);
    let push = Message::from(message::Push { slot, answer, block });
    let mut frames = vec![head(&push, first)?];
    let mut sent = first;
    while sent < payload.len() {
        let len = (payload.len() - sent).min(max_part);
        frames.push(head(&Message::from(message::Part { slot }), len)?);
        sent += len;
    }
    Ok(Outgoing { frames, payload })
}

fn head(message: &Message, payload_len: usize) -> Result<Head, garam_proto::Malformed> {
    let bytes = message.encode(u32::try_from(payload_len).unwrap_or(u32::MAX))?;
    Ok(Head { bytes, payload_len })
}
