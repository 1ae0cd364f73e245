//! What every table with a spool may say: its name, its stream, how large the spool may be, how soon it is synced.

use std::time::Duration;

use bytesize::ByteSize;
use garam_proto::{SourceName, StreamName};

use super::ConfigError;
use super::keys::Keys;
use crate::source::spool::SpoolPlan;

pub(super) fn default_size() -> ByteSize {
    ByteSize::mib(64)
}

pub(super) fn default_sync() -> Duration {
    Duration::from_millis(100)
}

pub(super) fn plan(
    at: &Keys<'_>,
    kind: &str,
    name: String,
    stream: String,
    size: ByteSize,
    sync: Duration,
) -> Result<SpoolPlan, ConfigError> {
    let table = name.clone();
    let key = |field: &str| format!("{kind}.{table}.{field}");
    let name =
        SourceName::new(name).map_err(|e| at.bad(&key("name"), &e.to_string(), "rename it"))?;
    let stream =
        StreamName::new(stream).map_err(|e| at.bad(&key("stream"), &e.to_string(), "rename it"))?;
    at.size(&key("spool"), size, ByteSize::mib(1), ByteSize::tib(1))?;
    at.duration(&key("sync"), sync, Duration::ZERO, Duration::from_secs(10))?;
    Ok(SpoolPlan { name, stream, limit: size.as_u64(), sync })
}
