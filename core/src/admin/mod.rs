//! Health, metrics and the command line's questions, over HTTP on loopback.
//!
//! In: requests. Out: text or JSON (`answers`). Promise: it never takes the data path down, and the data path never waits
//! for it; it only reads, but for one thing: a parked pipeline may be tried again. What it does then was decided by whoever
//! may write the data folder. Not here: what the answers are made of ([`Observe`], implemented by the wiring), and verbs that
//! change more (those come with roles, over mutual TLS).
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 when everything runs, 503 with the reasons otherwise |
//! | `/metrics` | Prometheus text, version 0.0.4 (`metrics`) |
//! | `/v1/tree`, `/v1/status`, `/v1/lag` | JSON |
//! | `POST /v1/resume/PIPELINE` | 204 when it is started again, 409 when it is not parked; refused with an `Origin` header |
//! | `/v1/tap/PIPELINE?limit=N&from=end\|earliest&stage=before\|after` | one JSON object a line, until the limit |

pub mod answers;
pub mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::supervise::Snapshot;
use answers::{LagAnswer, StatusAnswer};

/// Where a tap begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TapFrom {
    #[default]
    End,
    Earliest,
}

/// Which side of refining a tap shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TapStage {
    Before,
    #[default]
    After,
}

/// What a tap asks for. `limit` 0 means no limit.
#[derive(Debug, Clone, Deserialize)]
pub struct TapRequest {
    #[serde(default)]
    pub limit: u64,
    #[serde(default)]
    pub from: TapFrom,
    #[serde(default)]
    pub stage: TapStage,
}

/// What became of a pipeline that was to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    Started,
    NotParked,
}

/// Everything the admin port can be asked.
#[async_trait]
pub trait Observe: Send + Sync + 'static {
    async fn tree(&self) -> Result<Snapshot, String>;
    async fn status(&self) -> Result<StatusAnswer, String>;
    async fn lag(&self) -> Result<LagAnswer, String>;
    async fn metrics(&self) -> Result<String, String>;
    /// Starts a parked pipeline again; `None` when it does not exist.
    async fn resume(&self, pipeline: &str) -> Result<Option<Resumed>, String>;
    /// Lines of JSON as records pass; `None` when the pipeline does not exist. The reader ends by dropping the receiver.
    async fn tap(
        &self,
        pipeline: &str,
        request: TapRequest,
    ) -> Result<Option<mpsc::Receiver<String>>, String>;
}

type Observed = Arc<dyn Observe>;

/// Binds the port; a taken one is reported before anything runs.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` turns true.
pub async fn serve(
    socket: TcpListener,
    observe: Observed,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(prometheus))
        .route("/v1/tree", get(tree))
        .route("/v1/status", get(status))
        .route("/v1/lag", get(lag))
        .route("/v1/resume/{pipeline}", post(resume))
        .route("/v1/tap/{pipeline}", get(tap))
        .with_state(observe);
    let stopped = async move {
        // A sender that went away means the same.
        let _stopped_or_gone = stop.wait_for(|&stop| stop).await.is_ok();
    };
    axum::serve(socket, router).with_graceful_shutdown(stopped).await
}

async fn ready(State(observe): State<Observed>) -> Response {
    match observe.status().await {
        Ok(status) if status.why.is_empty() => "ready\n".into_response(),
        Ok(status) => {
            (StatusCode::SERVICE_UNAVAILABLE, status.why.join("\n") + "\n").into_response()
        }
        Err(why) => unavailable(why),
    }
}

async fn prometheus(State(observe): State<Observed>) -> Response {
    match observe.metrics().await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(why) => unavailable(why),
    }
}

async fn tree(State(observe): State<Observed>) -> Response {
    observe.tree().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn status(State(observe): State<Observed>) -> Response {
    observe.status().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn lag(State(observe): State<Observed>) -> Response {
    observe.lag().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn resume(
    State(observe): State<Observed>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
) -> Response {
    // Only browsers send it, on behalf of a page that has no business here.
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not for web pages").into_response();
    }
    match observe.resume(&pipeline).await {
        Ok(Some(Resumed::Started)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(Resumed::NotParked)) => {
            let text =
                format!("pipeline {pipeline} is not parked: it runs, or tries again by itself");
            (StatusCode::CONFLICT, text).into_response()
        }
        Ok(None) => not_configured(&pipeline),
        Err(why) => unavailable(why),
    }
}

async fn tap(
    State(observe): State<Observed>,
    Path(pipeline): Path<String>,
    Query(request): Query<TapRequest>,
) -> Response {
    match observe.tap(&pipeline, request).await {
        Ok(Some(lines)) => {
            let lines = futures_util::stream::unfold(lines, |mut lines| async move {
                let line = lines.recv().await?;
                Some((Ok::<_, std::convert::Infallible>(line + "\n"), lines))
            });
            Body::from_stream(lines).into_response()
        }
        Ok(None) => not_configured(&pipeline),
        Err(why) => unavailable(why),
    }
}

fn not_configured(pipeline: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("pipeline {pipeline} is not configured")).into_response()
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
