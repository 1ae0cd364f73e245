//! A running session: frames out in order, answers in, signs of life in between.
//!
//! In: [`Outgoing`] from the compressor. Out: answers for the engine, and at last why the session ended.
//! Promise: head and payload go out together without a copy; a ping may pass between the parts of one large block, nothing
//! else does; 10 s without a word from the core is a ping, 30 s the end. Not here: what the answers mean.

use std::fmt;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use garam_proto::message::{Bye, ByeReason, Ping, Pong, Renew, RenewOutcome, Renewed};
use garam_proto::{FrameLimits, FrameReader, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::client::TlsStream;

use crate::compress::{Outgoing, Pool};
use crate::engine::Event;
use crate::identity::IdentityFolder;

const QUIET: Duration = Duration::from_secs(10);
const SILENT: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
pub const GOODBYE: Duration = Duration::from_secs(1);

pub struct Session {
    pub outgoing: mpsc::Receiver<Outgoing>,
    pub pool: Pool,
    pub events: mpsc::Sender<Event>,
    pub stop: watch::Receiver<bool>,
    pub identity: IdentityFolder,
}

/// Why a session ended.
#[derive(Debug)]
pub enum Ended {
    /// As asked.
    Stopped,
    /// To go on with a new certificate.
    Renewed,
    Bye {
        bye: Bye,
        progress: bool,
    },
    Lost {
        why: String,
        progress: bool,
    },
}

impl Ended {
    pub fn is_progress(&self) -> bool {
        matches!(self, Self::Bye { progress: true, .. } | Self::Lost { progress: true, .. })
    }

    pub fn bye(&self) -> Option<ByeReason> {
        match self {
            Self::Bye { bye, .. } => Some(bye.reason),
            _ => None,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Renewed => f.write_str("changing to a new certificate"),
            Self::Bye { bye, .. } => {
                let meaning = match bye.reason {
                    ByeReason::TakenOver => {
                        "a newer connection with this certificate took over: if that is another host, give each its own"
                    }
                    ByeReason::TakeoverStorm => {
                        "two agents with one certificate keep pushing each other out: stop one of them"
                    }
                    ByeReason::Denied => "the core does not allow this agent: ask its operator",
                    ByeReason::Version => "no protocol version in common: upgrade the older side",
                    ByeReason::Protocol => "the core says that this agent broke the protocol",
                    ByeReason::Shutdown => "the core is stopping",
                    ByeReason::Idle => "the core heard nothing for too long",
                    ByeReason::Unavailable => "the core cannot serve now",
                };
                write!(f, "{meaning} ({})", bye.text)
            }
            Self::Lost { why, .. } => write!(f, "connection lost: {why}"),
        }
    }
}

impl Session {
    /// Runs until one side ends it. `buffer` holds what was received behind the `Welcome`.
    pub async fn run(mut self, stream: TlsStream<TcpStream>, mut buffer: BytesMut) -> Ended {
        let (mut receiver, sender) = tokio::io::split(stream);
        let (control, controls) = mpsc::channel(4);
        let writer = Writer { sender, outgoing: self.outgoing, controls, pool: self.pool.clone() };
        let mut writer = tokio::spawn(writer.run());
        let mut frames = FrameReader::new(FrameLimits { max_payload: 0, ..FrameLimits::SESSION });
        let mut heard = Instant::now();
        let mut progress = false;
        let mut pulse = tokio::time::interval(Duration::from_secs(5));
        let ended = loop {
            match receive(&mut frames, &mut buffer) {
                Ok(Some(Message::Bye(bye))) => break Ended::Bye { bye, progress },
                Ok(Some(Message::Pong(_))) => continue,
                Ok(Some(Message::Ping(ping))) => {
                    // A full queue means that frames are flowing: they are sign of life enough.
                    drop(control.try_send(Message::from(Pong { nonce: ping.nonce })));
                    continue;
                }
                Ok(Some(Message::RenewDue(_))) => {
                    ask_for_renewal(&self.identity, &control);
                    continue;
                }
                Ok(Some(Message::Renewed(renewed))) => {
                    if !keep(&self.identity, renewed) {
                        continue;
                    }
                    let text = "changing to a new certificate".into();
                    say_bye(control, Bye { reason: ByeReason::Shutdown, text }, &mut writer).await;
                    break Ended::Renewed;
                }
                Ok(Some(message)) => {
                    progress |= matches!(message, Message::Ack(_) | Message::ClaimAck(_));
                    if self.events.send(Event::Message(message)).await.is_err() {
                        break Ended::Stopped;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(why) => break Ended::Lost { why, progress },
            }
            tokio::select! {
                read = fill(&mut receiver, &mut buffer) => match read {
                    Ok(0) => break Ended::Lost { why: "closed by the core".into(), progress },
                    Ok(_) => heard = Instant::now(),
                    Err(error) => break Ended::Lost { why: error.to_string(), progress },
                },
                written = &mut writer => {
                    let why = match written {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(())) => "nothing more to write".into(),
                        Err(error) => error.to_string(),
                    };
                    break Ended::Lost { why, progress };
                }
                _ = pulse.tick() => {
                    if heard.elapsed() >= SILENT {
                        let why = format!("nothing heard for {SILENT:?}");
                        break Ended::Lost { why, progress };
                    }
                    if heard.elapsed() >= QUIET {
                        let nonce = fastrand::u64(..);
                        drop(control.try_send(Message::from(Ping { nonce })));
                    }
                }
                asked = asked_to_stop(&mut self.stop) => {
                    if asked {
                        let text = "agent is stopping".into();
                        say_bye(control, Bye { reason: ByeReason::Shutdown, text }, &mut writer).await;
                    }
                    break Ended::Stopped;
                }
            }
        };
        writer.abort();
        ended
    }
}

/// Makes a new key and asks the core to sign it. What fails is tried again when the core says so again.
fn ask_for_renewal(identity: &IdentityFolder, control: &mpsc::Sender<Message>) {
    match identity.request(false) {
        // A full queue means the same: the core will say so again.
        Ok(csr) => drop(control.try_send(Message::from(Renew { csr }))),
        Err(error) => tracing::error!(
            %error, action = "let the agent write its identity_dir, or replace the certificate by hand",
            "cannot renew the certificate"
        ),
    }
}

/// Keeps a renewed certificate; false when there is none.
fn keep(identity: &IdentityFolder, renewed: Renewed) -> bool {
    let kept = match renewed.outcome {
        RenewOutcome::Issued { chain } => identity.keep(&chain).map_err(|e| e.to_string()),
        RenewOutcome::Refused { why } => Err(why),
    };
    if let Err(why) = &kept {
        tracing::warn!(why, "the certificate was not renewed");
    }
    kept.is_ok()
}

/// Says goodbye behind what is on its way. Whatever comes of it, the session ends.
async fn say_bye(
    control: mpsc::Sender<Message>,
    bye: Bye,
    writer: &mut tokio::task::JoinHandle<io::Result<()>>,
) {
    if control.send(Message::from(bye)).await.is_ok() {
        drop(control);
        drop(tokio::time::timeout(GOODBYE, writer).await);
    }
}

/// Waits for the stop; false when the agent is gone without one.
async fn asked_to_stop(stop: &mut watch::Receiver<bool>) -> bool {
    stop.wait_for(|stop| *stop).await.is_ok()
}

fn receive(frames: &mut FrameReader, buffer: &mut BytesMut) -> Result<Option<Message>, String> {
    match frames.next(buffer) {
        Ok(Some(frame)) => Message::decode(&frame).map(Some).map_err(|e| e.to_string()),
        Ok(None) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

async fn fill<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(8 * 1024);
    reader.read_buf(buffer).await
}

struct Writer<W> {
    sender: W,
    outgoing: mpsc::Receiver<Outgoing>,
    controls: mpsc::Receiver<Message>,
    pool: Pool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until the controls end or the connection breaks.
    async fn run(mut self) -> io::Result<()> {
        let mut blocks_end = false;
        loop {
            tokio::select! {
                biased;
                control = self.controls.recv() => match control {
                    Some(message) => self.control(&message).await?,
                    None => break,
                },
                outgoing = self.outgoing.recv(), if !blocks_end => match outgoing {
                    Some(outgoing) => self.block(outgoing).await?,
                    None => blocks_end = true,
                },
            }
            self.sender.flush().await?;
        }
        self.sender.shutdown().await
    }

    async fn control(&mut self, message: &Message) -> io::Result<()> {
        let head = message.encode(0).map_err(io::Error::other)?;
        self.sender.write_all(&head).await
    }

    async fn block(&mut self, outgoing: Outgoing) -> io::Result<()> {
        let mut rest = outgoing.payload.as_slice();
        for frame in &outgoing.frames {
            let (part, behind) = rest.split_at(frame.payload_len.min(rest.len()));
            write_both(&mut self.sender, &frame.bytes, part).await?;
            rest = behind;
            while let Ok(control) = self.controls.try_recv() {
                self.control(&control).await?;
            }
        }
        self.pool.give(outgoing.payload);
        Ok(())
    }
}

/// Writes two slices as if they were one, so that a head and its payload share TLS records.
async fn write_both<W: AsyncWrite + Unpin>(
    writer: &mut W,
    head: &[u8],
    payload: &[u8],
) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(payload)];
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match writer.write_vectored(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}
