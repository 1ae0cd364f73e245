//! Peers without a certificate of this core's authority: noise, floods, slowness, and certificates of somebody else.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use garam_proto::message::Message;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Tally;
use super::arena::Arena;
use super::peer::{Identity, hello, is_closed, tcp};
use super::watch::Suspect;

/// Half a TLS record: it goes on, and nothing comes.
const HALF_A_HELLO: [u8; 8] = [22, 3, 1, 2, 0, 1, 0, 1];
/// More than one address may have on its way in, in this run's configuration.
pub(super) const FLOOD: usize = 100;

/// Bytes that are no TLS: random ones, HTTP, the largest length.
pub(super) async fn plain(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut rng = fastrand::Rng::with_seed(arena.seed);
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(4096).collect();
    speak(arena, who, &[&noise, b"garam\r\n", &[0; 512]]).await
}

pub(super) async fn http(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    speak(arena, who, &[b"GET / HTTP/1.1\r\nHost: core\r\n\r\n", b"POST /v1 HTTP/1.0\r\n\r\n"])
        .await
}

pub(super) async fn lengths(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    speak(
        arena,
        who,
        &[&[0xff; 64], &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], &[22, 3, 3, 0xff, 0xff]],
    )
    .await
}

async fn speak(arena: &Arena, who: &Suspect, said: &[&[u8]]) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for port in [arena.gateway, arena.enrol] {
        for bytes in said {
            let mut stream = tcp(who.address, port).await?;
            // A core that has closed already is seen below.
            let _closed = stream.write_all(bytes).await.is_err();
            tally.note(is_closed(&mut stream).await);
        }
    }
    Ok(tally)
}

/// Many that stall in the middle of their handshake, all at once; one that says nothing.
pub(super) async fn slowloris(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut stalled = JoinSet::new();
    for number in 0..30 {
        let mut stream = tcp(who.address, arena.gateway).await?;
        if number > 0 {
            stream.write_all(&HALF_A_HELLO).await?;
        }
        stalled.spawn(async move { drip(&mut stream).await });
    }
    Tally::of(stalled).await
}

/// A byte every fifth of a second, until the core closes. True when it did.
async fn drip(stream: &mut TcpStream) -> bool {
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if stream.write_all(&[0]).await.is_err() {
            return true;
        }
    }
    false
}

/// More connections of one address than may be on their way in.
pub(super) async fn flood(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut crowd = JoinSet::new();
    for _ in 0..FLOOD {
        let mut stream = tcp(who.address, arena.gateway).await?;
        crowd.spawn(async move { is_closed(&mut stream).await });
    }
    Tally::of(crowd).await
}

/// Certificates that another authority made, that are for servers, and none at all.
pub(super) async fn foreign(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let other = Identity::at(&arena.foreign);
    tally.note(arena.keeps_out(who, other.config()?).await?);
    let pki = arena.ground.data_dir.join("pki");
    let server = Identity {
        root: arena.root(),
        certificate: pki.join("server.pem"),
        key: pki.join("server.key"),
    };
    tally.note(arena.keeps_out(who, server.config()?).await?);
    tally.note(arena.keeps_out(who, super::peer::anonymous(&arena.root())?).await?);
    Ok(tally)
}

/// What an agent said on the wire, said again by somebody who has no key.
pub(super) async fn replayed(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let config = arena.identity(who).await?.config()?;
    let (from, to) = (who.address, arena.gateway);
    let said = tokio::task::spawn_blocking(move || record(from, to, config)).await??;
    let mut tally = Tally::default();
    for _ in 0..3 {
        let mut stream = tcp(who.address, arena.gateway).await?;
        let _closed = stream.write_all(&said).await.is_err();
        tally.note(is_closed(&mut stream).await);
    }
    Ok(tally)
}

/// Has a session begin, and gives every byte its agent sent.
fn record(
    from: std::net::IpAddr,
    to: std::net::SocketAddr,
    config: Arc<rustls::ClientConfig>,
) -> anyhow::Result<Vec<u8>> {
    let tcp = std::net::TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let name = rustls::pki_types::ServerName::try_from("localhost")?;
    let connection = rustls::ClientConnection::new(config, name)?;
    let wire = Tapped { tcp, said: Arc::clone(&said) };
    let mut stream = rustls::StreamOwned::new(connection, wire);
    stream.write_all(&Message::from(hello()).encode(0).context("a hello fits")?)?;
    stream.flush()?;
    anyhow::ensure!(stream.read(&mut [0; 256])? > 0, "{from} is not welcomed");
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(said.clone())
}

struct Tapped {
    tcp: std::net::TcpStream,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Read for Tapped {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.tcp.read(buffer)
    }
}

impl Write for Tapped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.tcp.write(bytes)?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend(bytes.iter().take(written));
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}
