//! How fast a stream has grown: what lets an operator say how long its quota lasts.
//!
//! In: a log's folder, which need not exist; a stream. Out: stored bytes a second of the log clock, over the sealed segments
//! that are still there. Promise: nothing is written or locked; of each segment only the header is read.
//! Not here: what the quota is (the configuration), how much of it is used (`EmbeddedLog::stats`).

use std::path::Path;

use garam_proto::StreamName;

use crate::api::LogError;
use crate::embedded::Env;
use crate::embedded::recovery::{self, io};

/// Stored bytes a second, summed over the partitions. `None` while none has a sealed segment, or none took any time.
pub fn pace(dir: &Path, stream: &StreamName) -> Result<Option<f64>, LogError> {
    let env = Env::default();
    let dir = dir.join(stream.as_str());
    let mut sum = None;
    for partition in env.fs.list(&dir).map_err(|e| io("list", &dir, e))? {
        if let Some(pace) = pace_of(&env, &dir.join(&partition.name))? {
            *sum.get_or_insert(0.0) += pace;
        }
    }
    Ok(sum)
}

/// From the base of the oldest segment to that of the newest.
fn pace_of(env: &Env, dir: &Path) -> Result<Option<f64>, LogError> {
    let segments = recovery::list(env, dir)?;
    let [(_, first), .., (_, last)] = segments.as_slice() else { return Ok(None) };
    let clocks = recovery::clock_of(env, first).zip(recovery::clock_of(env, last));
    let Some((began_ms, ended_ms)) = clocks else { return Ok(None) };
    let mut bytes = 0;
    for (_, path) in segments.iter().take(segments.len() - 1) {
        bytes += env.fs.open(path).and_then(|file| file.size()).map_err(|e| io("read", path, e))?;
    }
    let took_ms = ended_ms.saturating_sub(began_ms);
    Ok((took_ms > 0).then(|| bytes as f64 * 1000.0 / took_ms as f64))
}
