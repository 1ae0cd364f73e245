//! Asks a running core over its admin port.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::exit::{Exit, coded};

/// How long a core may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for a JSON answer.
pub(crate) async fn get<T: DeserializeOwned>(admin: SocketAddr, path: &str) -> anyhow::Result<T> {
    let asked = async {
        let response = open(admin, path).await?;
        let body =
            response.into_body().collect().await.context("the core's answer was cut")?.to_bytes();
        serde_json::from_slice(&body)
            .context("the core's answer is not understood: are both of one version?")
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(coded(
            Exit::Unreachable,
            anyhow::anyhow!("the core at {admin} did not answer in time"),
        )),
    }
}

/// Asks for something to be done.
pub(crate) async fn post(admin: SocketAddr, path: &str) -> anyhow::Result<()> {
    match tokio::time::timeout(TIMEOUT, send(admin, Method::POST, path)).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(coded(
            Exit::Unreachable,
            anyhow::anyhow!("the core at {admin} did not answer in time"),
        )),
    }
}

/// Sends a request and checks its status; the body is still to be read.
pub(crate) async fn open(admin: SocketAddr, path: &str) -> anyhow::Result<Response<Incoming>> {
    send(admin, Method::GET, path).await
}

async fn send(admin: SocketAddr, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
    let unreachable = |error: std::io::Error| {
        let text = format!(
            "no core answers at {admin} ({error}): is `garam run` running with this configuration?"
        );
        coded(Exit::Unreachable, anyhow::anyhow!(text))
    };
    let stream = TcpStream::connect(admin).await.map_err(unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "admin connection ended");
        }
    });
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", admin.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
        status => {
            let body = response.into_body().collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            let exit = match status {
                StatusCode::NOT_FOUND => Exit::NotFound,
                StatusCode::CONFLICT => Exit::Conflict,
                _ => Exit::Failed,
            };
            Err(coded(exit, anyhow::anyhow!(text)))
        }
    }
}
