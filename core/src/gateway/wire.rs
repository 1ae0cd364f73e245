//! A connection's two directions as messages: frames in under limits, messages out as they come.

use bytes::BytesMut;
use garam_proto::message::{self as m, ByeReason, Message};
use garam_proto::{Frame, FrameLimits, FrameReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

/// How much the read buffer grows at a time.
const READ_STEP: usize = 128 * 1024;

/// What an agent did that no agent may do, or that this core cannot serve.
pub(super) struct Broken {
    pub(super) reason: ByeReason,
    pub(super) text: String,
}

pub(super) fn broken(text: impl Into<String>) -> Broken {
    Broken { reason: ByeReason::Protocol, text: text.into() }
}

/// Reads frames off the socket.
pub(super) struct Incoming {
    reader: ReadHalf<TlsStream<TcpStream>>,
    frames: FrameReader,
    buffer: BytesMut,
}

impl Incoming {
    pub(super) fn new(reader: ReadHalf<TlsStream<TcpStream>>) -> Self {
        let frames = FrameReader::new(FrameLimits::GREETING);
        Self { reader, frames, buffer: BytesMut::new() }
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

    /// The next frame; `None` at an orderly end. Cancel-safe: bytes read stay in the buffer.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Broken> {
        loop {
            if let Some(frame) =
                self.frames.next(&mut self.buffer).map_err(|e| broken(e.to_string()))?
            {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_STEP);
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // A cut connection is everyday life: the agent comes back.
                Err(error) => {
                    tracing::debug!(%error, "connection lost");
                    return Ok(None);
                }
            }
        }
    }
}

/// Writes messages as they come, flushing when none is waiting.
pub(super) async fn write_messages(
    mut writer: WriteHalf<TlsStream<TcpStream>>,
    mut messages: mpsc::Receiver<Message>,
) {
    while let Some(message) = messages.recv().await {
        let mut next = Some(message);
        while let Some(message) = next {
            if let Err(error) = write_message(&mut writer, &message).await {
                tracing::debug!(%error, message = message.name(), "cannot write to the agent");
                return;
            }
            next = messages.try_recv().ok();
        }
        if writer.flush().await.is_err() {
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
