//! What the core says of itself: whether it is ready and what it counts, over plain HTTP; how far its pipeline is, over its
//! socket.
//!
//! In: an address or the socket's path. Out: a status, or that nobody answers, which is normal while the core is being killed. HTTP/1.1 as far
//! as these questions need it: the harness shares no code with the product.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::database::Counters;

/// A core that does not answer within this time is taken as not there.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of `/v1/status` that is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) why: Vec<String>,
    /// Those that are connected.
    pub(crate) agents: Vec<Agent>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) reload: Option<Reload>,
}

/// How the newest reading of the configuration went.
#[derive(Debug, Deserialize)]
pub(crate) struct Reload {
    pub(crate) at_us: i64,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Agent {
    pub(crate) host: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Stream {
    pub(crate) name: String,
    /// `ok`, or what is wrong.
    pub(crate) state: String,
    /// First offset that is still held, summed over the partitions.
    pub(crate) start: u64,
    /// Entries that are durable, summed over the partitions.
    pub(crate) end: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    lag_entries: u64,
    records_in: u64,
    delivered: u64,
    quarantined: u64,
    dropped: u64,
    gap: u64,
}

impl Status {
    /// Over all pipelines.
    pub(crate) fn counters(&self) -> Counters {
        self.pipelines.iter().fold(Counters::default(), |sum, pipeline| {
            let pipeline = pipeline.counters();
            Counters {
                records_in: sum.records_in + pipeline.records_in,
                delivered: sum.delivered + pipeline.delivered,
                quarantined: sum.quarantined + pipeline.quarantined,
                dropped: sum.dropped + pipeline.dropped,
                gap: sum.gap + pipeline.gap,
            }
        })
    }

    /// Everything in the log has been delivered, and nothing is wrong.
    pub(crate) fn is_drained(&self) -> bool {
        self.why.is_empty() && self.pipelines.iter().all(|pipeline| pipeline.lag_entries == 0)
    }
}

impl Pipeline {
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            records_in: self.records_in,
            delivered: self.delivered,
            quarantined: self.quarantined,
            dropped: self.dropped,
            gap: self.gap,
        }
    }
}

pub(crate) async fn is_ready(admin: SocketAddr) -> bool {
    get(admin, "/readyz").await.is_ok_and(|(code, _)| code == 200)
}

pub(crate) async fn status(socket: &Path) -> anyhow::Result<Status> {
    let asked = async { ask(UnixStream::connect(socket).await?, "/v1/status").await };
    let (code, body) = in_time(asked).await?;
    anyhow::ensure!(code == 200, "/v1/status answers {code}: {body}");
    serde_json::from_str(&body).context("/v1/status is not what it was")
}

/// How many records were made durable since the core started, over all partitions.
pub(crate) async fn appended_records(admin: SocketAddr) -> anyhow::Result<u64> {
    sum(admin, "garam_log_appended_records_total{").await
}

/// How many payload bytes of a stream were made durable since the core started.
pub(crate) async fn appended_bytes(admin: SocketAddr, stream: &str) -> anyhow::Result<u64> {
    sum(admin, &format!("garam_log_appended_bytes_total{{stream=\"{stream}\"")).await
}

/// The values of all lines that begin like this.
async fn sum(admin: SocketAddr, beginning: &str) -> anyhow::Result<u64> {
    let (code, body) = get(admin, "/metrics").await?;
    anyhow::ensure!(code == 200, "/metrics answers {code}");
    let values = body.lines().filter(|line| line.starts_with(beginning));
    values.map(|line| line.rsplit(' ').next().unwrap_or_default().parse()).try_fold(0, |sum, n| {
        let n: u64 = n.context("/metrics is not what it was")?;
        Ok(sum + n)
    })
}

/// What plain HTTP answers, whatever its code.
pub(crate) async fn plainly(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    get(admin, path).await.map(|(code, body)| format!("{code}\n{body}"))
}

async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    in_time(async { ask(TcpStream::connect(admin).await?, path).await }).await
}

async fn in_time<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, asked).await.context("the core is silent")?
}

async fn ask<I>(mut stream: I, path: &str) -> anyhow::Result<(u16, String)>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
    let code = head.split(' ').nth(1).context("the answer has no status code")?;
    Ok((code.parse()?, body.to_owned()))
}
