//! Records that are known by a number alone: JSON lines with an `id`, and the rows that came of them.
//!
//! In: a pipeline's table `rows`, asked through the product's own command line. Out: the numbers. Not here: what they should be.

use serde::Deserialize;

use crate::ground::Ground;

const MOST: &str = "100000000";

/// A record, or a row.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) id: u64,
}

/// The line of a number: its last digit is `n`.
pub(super) fn line(id: u64) -> String {
    format!("{{\"id\":{id},\"n\":{}}}\n", id % 10)
}

/// Every row's number, as often as it is there.
pub(super) async fn delivered(ground: &Ground, pipeline: &str) -> anyhow::Result<Vec<u64>> {
    let sql = "select id from rows";
    let verb = ["query", "--pipeline", pipeline, sql, "--limit", MOST, "-o", "json"];
    let rows: Vec<Record> = serde_json::from_slice(&ground.garam(&verb).await?)?;
    Ok(rows.into_iter().map(|record| record.id).collect())
}
