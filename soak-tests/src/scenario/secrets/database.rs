//! A PostgreSQL server as far as its door: asks for the password in clear text, notes it, and refuses with words of its own.
//!
//! Format: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The request for TLS in the place of a version.
const SSL_REQUEST: u32 = 80_877_103;

pub(super) struct Refusing {
    pub(super) address: SocketAddr,
    told: Arc<Mutex<Vec<Vec<u8>>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Refusing {
    /// In how many connections this password was told.
    pub(super) fn passwords_seen(&self, password: &str) -> u64 {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|told| **told == password.as_bytes()).count() as u64
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) async fn refusing() -> anyhow::Result<Refusing> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever leaves early has told nothing.
            if let Ok(password) = refuse(stream).await {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(password);
            }
        }
    });
    Ok(Refusing { address, told, serving })
}

/// From the first byte to the refusal; the password that was told.
async fn refuse(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    loop {
        let length = stream.read_u32().await?;
        let version = stream.read_u32().await?;
        let mut rest = vec![0; (length as usize).saturating_sub(8).min(64 * 1024)];
        stream.read_exact(&mut rest).await?;
        if version != SSL_REQUEST {
            break;
        }
        stream.write_all(b"N").await?;
    }
    stream.write_all(&message(b'R', &3_u32.to_be_bytes())).await?;
    let _kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut password = vec![0; (length as usize).saturating_sub(4).min(64 * 1024)];
    stream.read_exact(&mut password).await?;
    password.pop();
    // What a server says is foreign text too.
    let said =
        "SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\u{1b}[2J\u{202e} for user\0\0";
    stream.write_all(&message(b'E', said.as_bytes())).await?;
    stream.shutdown().await?;
    Ok(password)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 4;
    [&[kind], &length.to_be_bytes()[..], body].concat()
}
