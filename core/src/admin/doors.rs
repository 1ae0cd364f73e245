//! The three doors to the same routes: a socket for this machine's operator, mutual TLS for other machines, and plain HTTP on
//! loopback for probes and Prometheus.
//!
//! Promise: who asks is settled per connection, before the first byte of a question is read; a peer that is slow or silent
//! holds one of a few places and is closed after ten seconds; a socket that a dead core left behind is replaced, anything
//! else that lies there is not.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::routes::{Behind, router};
use super::{Caller, Observe};
use crate::config::AdminPlan;
use crate::enrol::{Audit, Event, Outcome};
use crate::gateway::{acceptor, told};
use crate::pki::ServerCertificate;

/// How long a peer may take for its handshake, and for each request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may go on after the core was asked to stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// Connections at once, for each door.
const PLACES: usize = 64;
/// Bytes of a request's head; no route reads a body.
const MAX_HEAD: usize = 16 * 1024;

/// Bound, and not yet served.
#[derive(Debug)]
pub struct Doors {
    local: UnixListener,
    socket: PathBuf,
    plain: TcpListener,
    remote: Option<TcpListener>,
}

/// A door that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {error}")]
pub struct Shut {
    pub at: String,
    pub error: io::Error,
}

impl Doors {
    /// Binds all doors; a taken one is reported before anything runs.
    pub async fn open(plan: &AdminPlan) -> Result<Self, Shut> {
        let shut = |at: String| move |error| Shut { at, error };
        let plain = TcpListener::bind(plan.listen).await.map_err(shut(plan.listen.to_string()))?;
        let remote = match plan.remote_listen {
            Some(listen) => {
                Some(TcpListener::bind(listen).await.map_err(shut(listen.to_string()))?)
            }
            None => None,
        };
        let socket = plan.socket.clone();
        let local = bind_socket(&socket).map_err(shut(socket.display().to_string()))?;
        Ok(Self { local, socket, plain, remote })
    }

    pub fn plain_addr(&self) -> io::Result<SocketAddr> {
        self.plain.local_addr()
    }

    pub fn remote_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.remote.as_ref().map(TcpListener::local_addr).transpose()
    }
}

/// What the doors lead to, and what the one for other machines needs.
#[derive(Clone)]
pub struct House {
    pub observe: Arc<dyn Observe>,
    pub audit: Audit,
    pub certificate: Arc<ServerCertificate>,
}

/// Serves until `stop` turns true.
pub async fn serve(doors: Doors, house: House, mut stop: watch::Receiver<bool>) {
    let Doors { local, socket, plain, remote } = doors;
    let every = router(Arc::clone(&house.observe), &house.audit, Behind::EveryDoor);
    let open = router(Arc::clone(&house.observe), &house.audit, Behind::PlainHttp);
    let visits = |router| Visits { router, house: house.clone(), stop: stop.clone() };
    let mut listeners = JoinSet::new();
    listeners.spawn(serve_local(local, visits(every.clone())));
    listeners.spawn(serve_plain(plain, visits(open)));
    if let Some(remote) = remote {
        listeners.spawn(serve_remote(remote, visits(every)));
    }
    told(&mut stop).await;
    while listeners.join_next().await.is_some() {}
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(%error, "the admin socket was gone already");
    }
}

async fn serve_local(listener: UnixListener, visits: Visits) {
    let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
    let visit = |stream: UnixStream, visits: Visits| async move {
        match stream.peer_cred() {
            Ok(credentials) => visits.talk(stream, Caller::local(&credentials)).await,
            Err(error) => tracing::warn!(%error, "cannot tell who opened the admin socket"),
        }
    };
    serve_each(accept, visits, visit).await;
}

async fn serve_plain(listener: TcpListener, visits: Visits) {
    let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
    let visit = |stream: TcpStream, visits: Visits| async move {
        visits.talk(stream, Caller::Anybody).await;
    };
    serve_each(accept, visits, visit).await;
}

async fn serve_remote(listener: TcpListener, visits: Visits) {
    let accept = || listener.accept();
    let visit = |(stream, peer): (TcpStream, SocketAddr), visits: Visits| async move {
        if let Err(why) = visits.talk_over_tls(stream, peer).await {
            tracing::warn!(%peer, why, "no session at the admin port");
            let event = Event::new("admin", Outcome::Refused).with("by", peer.ip().to_canonical());
            visits.house.audit.record(event.with("why", why)).await;
        }
    };
    serve_each(accept, visits, visit).await;
}

/// Accepts until told to stop, each visitor in a task of its own while there are places.
async fn serve_each<S, A, V>(accept: impl Fn() -> A, visits: Visits, visit: impl Fn(S, Visits) -> V)
where
    A: Future<Output = io::Result<S>>,
    V: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(PLACES));
    let mut guests = JoinSet::new();
    let mut stop = visits.stop.clone();
    loop {
        tokio::select! {
            () = told(&mut stop) => break,
            Some(ended) = guests.join_next(), if !guests.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an answer of the admin port panicked");
                }
            }
            accepted = accept() => match (accepted, Arc::clone(&places).try_acquire_owned()) {
                (Ok(stream), Ok(place)) => {
                    let visit = visit(stream, visits.clone());
                    guests.spawn(async move {
                        visit.await;
                        drop(place);
                    });
                }
                // All places are taken: whoever comes now is closed unanswered.
                (Ok(_), Err(_)) => {}
                (Err(error), _) => {
                    tracing::warn!(%error, "cannot accept a connection at the admin port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    while guests.join_next().await.is_some() {}
}

/// What a visit needs.
#[derive(Clone)]
struct Visits {
    router: Router,
    house: House,
    stop: watch::Receiver<bool>,
}

impl Visits {
    /// The root is read for each visitor, so that only this visitor is refused where that fails.
    async fn talk_over_tls(&self, stream: TcpStream, peer: SocketAddr) -> Result<(), String> {
        let tls = acceptor(&self.house.certificate).map_err(|error| error.to_string())?;
        let session = tokio::time::timeout(PATIENCE, tls.accept(stream)).await;
        let session = session.map_err(|_| "no handshake in time")?;
        let session = session.map_err(|error| format!("TLS: {error}"))?;
        let (_, connection) = session.get_ref();
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        let caller = Caller::remote(shown, peer);
        self.talk(session, caller).await;
        Ok(())
    }

    /// Answers one connection's questions.
    async fn talk<I>(&self, io: I, caller: Caller)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(caller)));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD);
        let connection = builder.serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(FAREWELL, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended");
        }
    }
}

/// Binds the socket, mode 0600, in the place of one that nobody answers at any more.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                }
                Err(error) => return Err(error),
                Ok(_) => {
                    return Err(io::Error::new(ErrorKind::AddrInUse, "another core answers there"));
                }
            }
        }
        Ok(_) => {
            let text = "something that is no socket lies there: move it away";
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // Whoever comes in before this is refused all the same: the kernel says who it is.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
