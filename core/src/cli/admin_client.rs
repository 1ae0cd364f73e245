//! Asks a running core: over its socket on this machine, or over mutual TLS with an operator's certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exit::{Exit, coded};
use crate::pki::{read_certificates, read_key};

/// How long a core may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which core is asked, and how.
#[derive(Debug, Clone)]
pub(crate) enum Core {
    Here {
        socket: PathBuf,
    },
    There {
        /// `HOST:PORT`.
        address: String,
        /// Folder of `garam admin issue`.
        identity: PathBuf,
    },
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here { socket } => write!(f, "{}", socket.display()),
            Self::There { address, .. } => f.write_str(address),
        }
    }
}

impl Core {
    /// Asks for a JSON answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.in_time(self.told(Method::GET, path)).await
    }

    /// Asks for something to be done that may take its time, and for a JSON answer.
    pub(crate) async fn do_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        path: &str,
    ) -> anyhow::Result<T> {
        let asked = tokio::time::timeout(limit, self.told(Method::POST, path));
        asked.await.map_err(|_| self.late())?
    }

    async fn told<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        let response = self.send(method, path).await?;
        let body = response.into_body().collect().await;
        let body = body.context("the core's answer was cut")?.to_bytes();
        understood(&body)
    }

    /// Asks for something to be done.
    pub(crate) async fn post(&self, path: &str) -> anyhow::Result<()> {
        self.in_time(self.send(Method::POST, path)).await.map(drop)
    }

    /// Asks for something to be done that may take its time, and for what became of it.
    pub(crate) async fn post_for<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> anyhow::Result<T> {
        let asked = async {
            let response = self.send(Method::POST, path).await?;
            let body = response.into_body().collect().await;
            let body = body.context("the core's answer was cut")?.to_bytes();
            understood(&body)
        };
        self.in_time_of(patience, asked).await
    }

    /// Sends a question and checks the answer's status; the body is still to be read.
    pub(crate) async fn open(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        self.in_time(self.send(Method::GET, path)).await
    }

    async fn in_time<T>(
        &self,
        asked: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.in_time_of(TIMEOUT, asked).await
    }

    async fn in_time_of<T>(
        &self,
        patience: Duration,
        asked: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::time::timeout(patience, asked).await.map_err(|_| self.late())?
    }

    fn late(&self) -> anyhow::Error {
        coded(Exit::Unreachable, anyhow!("the core at {self} did not answer in time"))
    }

    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        match self {
            Self::Here { socket } => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| self.unreachable(&error))?;
                ask(stream, "localhost", method, path).await
            }
            Self::There { address, identity } => {
                let config = client_config(identity)?;
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.with_context(|| format!("{host:?} is no host name or address"))?;
                let stream = TcpStream::connect(address.as_str()).await;
                let stream = stream.map_err(|error| self.unreachable(&error))?;
                let session = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
                let session = session.map_err(|error| self.denied(&error.into()))?;
                ask(session, address, method, path).await.map_err(|error| self.denied(&error))
            }
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> anyhow::Error {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                let text = "only root and the core's own user may ask it: try sudo";
                return coded(Exit::Denied, anyhow!("{self}: {error}; {text}"));
            }
            _ => Exit::Unreachable,
        };
        let text = format!(
            "no core answers at {self} ({error}): is `garam run` running with this configuration?"
        );
        coded(exit, anyhow!(text))
    }

    /// TLS says in an alert that one side does not accept the other's certificate.
    fn denied(&self, error: &anyhow::Error) -> anyhow::Error {
        if error.downcast_ref::<super::exit::Coded>().is_some() {
            let text = error.to_string();
            let exit = error.downcast_ref::<super::exit::Coded>().map_or(Exit::Failed, |c| c.exit);
            return coded(exit, anyhow!(text));
        }
        coded(Exit::Denied, anyhow!("no session with the core at {self}: {error:#}"))
    }
}

fn understood<T: DeserializeOwned>(body: &Bytes) -> anyhow::Result<T> {
    serde_json::from_slice(body)
        .context("the core's answer is not understood: are both of one version?")
}

async fn ask<I>(io: I, host: &str, method: Method, path: &str) -> anyhow::Result<Response<Incoming>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "admin connection ended");
        }
    });
    let request = Request::builder().method(method).uri(path).header("host", host);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    match response.status() {
        StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
        status => {
            let body = response.into_body().collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            let exit = match status {
                StatusCode::FORBIDDEN => Exit::Denied,
                StatusCode::NOT_FOUND => Exit::NotFound,
                StatusCode::CONFLICT => Exit::Conflict,
                StatusCode::UNPROCESSABLE_ENTITY => Exit::Config,
                _ => Exit::Failed,
            };
            Err(coded(exit, anyhow!(text)))
        }
    }
}

/// The core is known by its root, and knows us by our certificate.
fn client_config(identity: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in read_certificates(&identity.join("ca.pem"))? {
        roots.add(root)?;
    }
    let certificates = read_certificates(&identity.join("cert.pem"))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, read_key(&identity.join("key.pem"))?)?;
    Ok(Arc::new(config))
}
