//! A connection's two directions as messages: frames in under limits and deadlines, messages out as they come.

use std::time::Duration;

use bytes::BytesMut;
use garam_proto::message::{self as m, ByeReason, Message};
use garam_proto::{Frame, FrameLimits, FrameReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::config::GatewayConfig;

/// How much the read buffer grows at a time: as much as has come, within these bounds. So it never holds more than twice that.
const READ_STEP: (usize, usize) = (8 * 1024, 128 * 1024);
/// A buffer that grew beyond this is let go when it is empty.
const RESTING_BUFFER: usize = 32 * 1024;
/// Bytes a second that a frame must come with beyond its grace.
const SLOWEST: f64 = 64.0 * 1024.0;

/// What an agent did that no agent may do, or that this core cannot serve.
pub(super) struct Broken {
    pub(super) reason: ByeReason,
    pub(super) text: String,
    /// As what it is noted in the audit log, if it still is to be.
    pub(super) note: Option<&'static str>,
}

/// The agent broke the protocol.
pub(super) fn broken(text: impl Into<String>) -> Broken {
    Broken { note: Some("protocol"), ..ends(ByeReason::Protocol, text) }
}

/// The session ends, and nobody is to blame.
pub(super) fn ends(reason: ByeReason, text: impl Into<String>) -> Broken {
    Broken { reason, text: text.into(), note: None }
}

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// Until a frame begins.
    pub(super) idle: Duration,
    /// For a frame, whatever its size.
    pub(super) frame: Duration,
}

impl Deadlines {
    pub(super) fn of(config: &GatewayConfig) -> Self {
        Self { idle: config.idle_timeout, frame: config.frame_timeout }
    }

    /// For something that began so long ago with `bytes` of it come.
    pub(super) fn of_arriving(&self, bytes: usize) -> Duration {
        self.frame + Duration::from_secs_f64(bytes as f64 / SLOWEST)
    }
}

/// Reads frames off the socket.
pub(super) struct Incoming {
    reader: ReadHalf<TlsStream<TcpStream>>,
    frames: FrameReader,
    buffer: BytesMut,
    deadlines: Deadlines,
    /// Since when the frame that comes next is waited for, or has been coming.
    since: Option<Instant>,
}

impl Incoming {
    pub(super) fn new(reader: ReadHalf<TlsStream<TcpStream>>, deadlines: Deadlines) -> Self {
        let frames = FrameReader::new(FrameLimits::GREETING);
        Self { reader, frames, buffer: BytesMut::new(), deadlines, since: None }
    }

    /// The first frame, which must be a `Hello` under tight limits.
    pub(super) async fn hello(&mut self) -> Result<m::Hello, String> {
        let frame = self.next().await.map_err(|broke| broke.text)?;
        let frame = frame.ok_or("closed before a greeting")?;
        let Message::Hello(hello) = Message::decode(&frame).map_err(|e| e.to_string())? else {
            return Err("the first message is not a greeting".into());
        };
        if hello.magic != m::MAGIC {
            return Err("the greeting is not Garam's".into());
        }
        self.frames.set_limits(FrameLimits::SESSION);
        Ok(hello)
    }

    /// The next frame; `None` at an orderly end. Cancel-safe: bytes read stay in the buffer, and the deadline goes on.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Broken> {
        let mut since = *self.since.get_or_insert_with(Instant::now);
        loop {
            if let Some(frame) =
                self.frames.next(&mut self.buffer).map_err(|e| broken(e.to_string()))?
            {
                self.since = None;
                if self.buffer.is_empty() && self.buffer.capacity() > RESTING_BUFFER {
                    self.buffer = BytesMut::new();
                }
                return Ok(Some(frame));
            }
            let come = self.buffer.len();
            let (least, most) = READ_STEP;
            self.buffer.reserve(come.clamp(least, most));
            let due = match come {
                0 => since + self.deadlines.idle,
                come => since + self.deadlines.of_arriving(come),
            };
            match timeout_at(due, self.reader.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_)) if come == 0 => {
                    since = Instant::now();
                    self.since = Some(since);
                }
                Ok(Ok(_)) => {}
                // A cut connection is everyday life: the agent comes back.
                Ok(Err(error)) => {
                    tracing::debug!(%error, "connection lost");
                    return Ok(None);
                }
                Err(_) if come == 0 => {
                    return Err(ends(ByeReason::Idle, "nothing was heard in time"));
                }
                Err(_) => return Err(too_slow(come)),
            }
        }
    }
}

/// Something began and did not come to its end in time.
pub(super) fn too_slow(come: usize) -> Broken {
    let text = format!("of a frame or block {come} bytes came, and not the rest in time");
    Broken { note: Some("slow"), ..ends(ByeReason::Idle, text) }
}

/// Writes messages as they come, flushing when none is waiting. Ends when one cannot be written within `patience`: the agent does not
/// read.
pub(super) async fn write_messages(
    mut writer: WriteHalf<TlsStream<TcpStream>>,
    mut messages: mpsc::Receiver<Message>,
    patience: Duration,
) {
    while let Some(message) = messages.recv().await {
        let mut next = Some(message);
        while let Some(message) = next {
            let written = timeout(patience, write_message(&mut writer, &message)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, message = message.name(), "cannot write to the agent");
                    return;
                }
                Err(_) => return,
            }
            next = messages.try_recv().ok();
        }
        if !matches!(timeout(patience, writer.flush()).await, Ok(Ok(()))) {
            return;
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "connection was already closed");
    }
}

async fn write_message(
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    message: &Message,
) -> std::io::Result<()> {
    let bytes = message.encode(0).map_err(std::io::Error::other)?;
    writer.write_all(&bytes).await
}

/// A goodbye before there is a session.
pub(super) async fn say_bye(
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    reason: ByeReason,
    text: &str,
) {
    let bye = Message::Bye(m::Bye { reason, text: text.into() });
    let said = async {
        write_message(writer, &bye).await?;
        writer.flush().await?;
        writer.shutdown().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "the agent was gone before the goodbye");
    }
}
