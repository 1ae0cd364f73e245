//! Health, metrics and operators' questions, over HTTP through three doors.
//!
//! In: requests. Out: text or JSON (`answers`). Promise: it never takes the data path down, and the data path never waits
//! for it; nobody gets an answer that is not theirs: each route stands in one table with the role it needs (`routes`), who
//! asks is proven by the door (`caller`), and what changes something or shows records is in the audit log with who asked.
//! Not here: what the answers are made of ([`Observe`], implemented by the wiring); verbs that work on the data folder itself.
//!
//! | door | who | role |
//! |---|---|---|
//! | socket `DATA_DIR/admin.sock`, mode 0600 | the core's user and root, by the kernel's word | admin |
//! | `admin.remote_listen`, TLS 1.3 | the holder of a certificate of `garam admin issue` | the one in the certificate |
//! | `admin.listen`, plain HTTP on loopback | everybody on this machine | none: health and metrics only |
//!
//! | path | role | answer |
//! |---|---|---|
//! | `/healthz` | – | 200 while the process lives |
//! | `/readyz` | – | 200 when everything runs, 503 otherwise; the reasons only to those with a role |
//! | `/metrics` | – | Prometheus text, version 0.0.4 (`metrics`) |
//! | `/v1/tree`, `/v1/status`, `/v1/lag` | viewer | JSON |
//! | `/v1/tap/PIPELINE?limit=N&from=end\|earliest&stage=before\|after\|quarantined` | operator | one JSON object a line, until the limit |
//! | `/v1/dimensions`, `/v1/dimensions/NAME` | viewer | JSON |
//! | `POST /v1/dimensions/NAME/refresh` | operator | JSON once it was read, 503 with the reason when it cannot be |
//! | `/v1/definition` | admin | what the core runs by, as JSON |
//! | `POST /v1/reload` | admin | reads the configuration again: 200 with the changes, 409 when refused, 422 when it cannot be read |
//! | `POST /v1/resume/PIPELINE` | operator | 204 when it is started again, 409 when it is not parked; refused with an `Origin` header |

pub mod answers;
mod caller;
mod doors;
pub mod metrics;
mod routes;

use async_trait::async_trait;
use garam_proto::AgentId;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::config::change::{Changes, Definition};
use crate::supervise::Snapshot;
use answers::{DimensionAnswer, LagAnswer, RefreshAnswer, StatusAnswer};

pub use caller::Caller;
pub use doors::{Doors, House, Shut, serve};
pub use routes::{ROUTES, Route};

/// Where a tap begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TapFrom {
    #[default]
    End,
    Earliest,
}

/// What a tap shows: records before refining, rows after it, or what was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TapStage {
    Before,
    #[default]
    After,
    Quarantined,
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

/// Why a changed configuration is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unapplied {
    /// It cannot be read, or contradicts itself.
    Config(String),
    /// It is not for a core that runs.
    Refused(String),
    Unavailable(String),
}

/// Everything the admin port can be asked.
#[async_trait]
pub trait Observe: Send + Sync + 'static {
    async fn tree(&self) -> Result<Snapshot, String>;
    async fn status(&self) -> Result<StatusAnswer, String>;
    async fn lag(&self) -> Result<LagAnswer, String>;
    fn dimensions(&self) -> Vec<DimensionAnswer>;
    /// Has a dimension's source read now; `None` when it does not exist.
    async fn refresh(&self, dimension: &str) -> Result<Option<RefreshAnswer>, String>;
    async fn metrics(&self) -> Result<String, String>;
    /// Whether a person's certificate counts no longer.
    async fn is_revoked(&self, admin: AgentId) -> Result<bool, String>;
    /// What the core runs by.
    async fn definition(&self) -> Result<Definition, String>;
    /// Reads the configuration again and carries out what changed.
    async fn reload(&self) -> Result<Changes, Unapplied>;
    /// Starts a parked pipeline again; `None` when it does not exist.
    async fn resume(&self, pipeline: &str) -> Result<Option<Resumed>, String>;
    /// Lines of JSON as records pass; `None` when the pipeline does not exist. The reader ends by dropping the receiver.
    async fn tap(
        &self,
        pipeline: &str,
        request: TapRequest,
    ) -> Result<Option<mpsc::Receiver<String>>, String>;
}
