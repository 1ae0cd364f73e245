//! What a `[[syslog]]` table may listen on.
//!
//! In: `udp://ADDRESS:PORT`, `tcp://ADDRESS:PORT`, `unix:///PATH` (datagrams), `unix-stream:///PATH`. Out: a bound socket.
//! Promise: a Unix socket that a dead process left behind is replaced, one that somebody listens on is not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};

/// Room for datagrams in the kernel, as far as it grants that.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
    UnixStream(PathBuf),
}

/// A socket that listens.
pub(super) enum Bound {
    Udp(UdpSocket),
    Tcp(TcpListener),
    Unix(UnixDatagram),
    UnixStream(UnixListener),
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str =
            "is none of udp://ADDRESS:PORT, tcp://ADDRESS:PORT, unix:///PATH, unix-stream:///PATH";
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        let address = || rest.parse().map_err(|_| "has no IP address and port");
        let path = || {
            let path = PathBuf::from(rest);
            path.is_absolute().then_some(path).ok_or("has no absolute path")
        };
        match scheme {
            "udp" => address().map(Self::Udp),
            "tcp" => address().map(Self::Tcp),
            "unix" => path().map(Self::Unix),
            "unix-stream" => path().map(Self::UnixStream),
            _ => Err(FORMS),
        }
    }
}

impl Listen {
    pub(super) async fn bind(&self, mode: u32) -> io::Result<Bound> {
        match self {
            Self::Udp(address) => {
                let socket = UdpSocket::bind(address).await?;
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
                Ok(Bound::Udp(socket))
            }
            Self::Tcp(address) => Ok(Bound::Tcp(TcpListener::bind(address).await?)),
            Self::Unix(path) => {
                make_way(path, std::os::unix::net::UnixDatagram::unbound()?.connect(path))?;
                let socket = UnixDatagram::bind(path)?;
                permit(path, mode)?;
                Ok(Bound::Unix(socket))
            }
            Self::UnixStream(path) => {
                make_way(path, std::os::unix::net::UnixStream::connect(path).map(drop))?;
                let listener = UnixListener::bind(path)?;
                permit(path, mode)?;
                Ok(Bound::UnixStream(listener))
            }
        }
    }

    /// Removes the name of a Unix socket that is closed.
    pub(super) fn release(&self) {
        let (Self::Unix(path) | Self::UnixStream(path)) = self else { return };
        if let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "socket was not removed");
        }
    }
}

/// Removes a socket nobody answers on, and nothing else: connecting to a regular file is refused too.
fn make_way(path: &Path, connected: io::Result<()>) -> io::Result<()> {
    let refused = connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    // Whatever else lies there, binding will say.
    if refused && std::fs::symlink_metadata(path)?.file_type().is_socket() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Whoever may write to the socket may log.
fn permit(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::UnixStream(path) => write!(f, "unix-stream://{}", path.display()),
        }
    }
}

/// Where it listens really: port 0 became another.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(listener) => listener.local_addr(),
            Self::Unix(_) | Self::UnixStream(_) => return f.write_str("-"),
        };
        match address {
            Ok(address) => write!(f, "{address}"),
            Err(_) => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_written_the_same() {
        for text in
            ["udp://127.0.0.1:514", "tcp://[::1]:6514", "unix:///dev/log", "unix-stream:///run/a"]
        {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["udp://host:514", "tcp://127.0.0.1", "unix://dev/log", "http://1.1.1.1:1", "x"]
        {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for scheme in ["unix", "unix-stream"] {
            let path = folder.path().join(scheme);
            let listen: Listen = format!("{scheme}://{}", path.display()).parse().unwrap();
            std::fs::write(&path, "a file").unwrap();
            assert!(listen.bind(0o600).await.is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
            std::fs::remove_file(&path).unwrap();
            let bound = listen.bind(0o600).await.unwrap();
            assert!(listen.bind(0o600).await.is_err(), "somebody listens");
            drop(bound);
            drop(listen.bind(0o600).await.unwrap());
            listen.release();
            assert!(!path.try_exists().unwrap());
        }
    }
}
