//! Shows the oracle what one pipeline left behind: its rows, and its quarantine.
//!
//! In: a destination nobody writes to any more, the book of what was written. Out: a [`Judgement`]. Promise: the quarantine
//! is read through the product's own command line, as an operator would.

use std::path::Path;

use crate::book::Book;
use crate::database;
use crate::ground::Ground;
use crate::oracle::{Judge, Judgement};

pub(crate) async fn judge(
    ground: &Ground,
    pipeline: &str,
    database: &Path,
    book: &Book,
) -> anyhow::Result<Judgement> {
    let mut judge = Judge::new(book);
    database::read_rows(database, &mut judge).await?;
    for aside in ground.quarantined(pipeline).await? {
        match aside.index {
            Some(_) => judge.aside(&aside.record),
            // A block that was put aside whole holds one record a line.
            None => aside.record.lines().for_each(|line| judge.aside(line)),
        }
    }
    Ok(judge.finish())
}
