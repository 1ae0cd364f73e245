//! Sockets that send at once: `TCP_NODELAY` on the connections to a server.
//!
//! In: the port of a server that this process has just connected to. Out: whether its connections there send at once.
//! sqlx 0.9 opens its sockets without the option and shows them to nobody. A short message behind another one then waits until
//! the server acknowledges the first, up to 40 ms: so ends every COPY, and so goes every statement of more than one TLS record.
//! The process finds its own sockets by the server's port (`/proc/self/fd`, `pidfd_getfd` on itself) and sets it there.
//! Promise: only a setting of sockets changes; where the kernel or a sandbox refuses the call, nothing does and `false` says so.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{getpeername, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Has every TCP connection of this process to a server's port send at once.
pub(crate) async fn send_at_once(port: u16) -> bool {
    let set = move || {
        let sockets = sockets_to(port)?;
        sockets.iter().try_for_each(|socket| sockopt::set_tcp_nodelay(socket, true))?;
        Ok::<_, std::io::Error>(!sockets.is_empty())
    };
    // A process with very many files takes some milliseconds for it.
    matches!(tokio::task::spawn_blocking(set).await, Ok(Ok(true)))
}

/// Second handles of the sockets of this process whose peer has this port.
fn sockets_to(port: u16) -> std::io::Result<Vec<OwnedFd>> {
    let myself = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // A file may be closed meanwhile by another thread.
        let is_socket = std::fs::read_link(&path)
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(number) = number.filter(|_| is_socket) else { continue };
        match pidfd_getfd(&myself, number, PidfdGetfdFlags::empty()) {
            Ok(socket) if peer_port(&socket) == Some(port) => sockets.push(socket),
            Ok(_) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sockets)
}

fn peer_port(socket: &OwnedFd) -> Option<u16> {
    let peer = getpeername(socket).ok()??;
    SocketAddr::try_from(peer).ok().map(|peer| peer.port())
}

#[cfg(test)]
mod tests {
    use super::send_at_once;

    #[tokio::test]
    async fn the_sockets_to_a_port_are_found_and_set() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!send_at_once(port).await, "nobody is connected");
        let client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert!(send_at_once(port).await);
        assert!(client.nodelay().unwrap());
        assert!(!server.nodelay().unwrap(), "another port's socket was touched");
    }
}
