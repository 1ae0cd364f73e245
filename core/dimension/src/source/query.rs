//! What all queries have alike: a row of a database becomes a record of format `tsv`, so that it is read like one of a file.

use std::time::Duration;

use garam_stage::Failure;

use crate::error::DimensionError;
use crate::gather::{Counted, Gatherer, Limits};
use crate::shape::Shape;

/// How long opening a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server stops a query at its own limit; one that says nothing at all for so much longer is gone.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A row as text. Reused.
#[derive(Default)]
pub(super) struct Record {
    text: String,
    cells: usize,
}

impl Record {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.cells = 0;
    }

    pub(super) fn push(&mut self, cell: Option<&str>) {
        if self.cells > 0 {
            self.text.push('\t');
        }
        self.cells += 1;
        let Some(cell) = cell else {
            self.text.push_str("\\N");
            return;
        };
        for c in cell.chars() {
            match c {
                '\t' => self.text.push_str("\\t"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\\' => self.text.push_str("\\\\"),
                c => self.text.push(c),
            }
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Takes the rows of a query whose columns have these names.
pub(super) fn gatherer<'a>(
    place: &'a str,
    shape: &Shape,
    limits: Limits,
    names: Vec<String>,
) -> Result<Gatherer<'a>, DimensionError> {
    let refiner = shape.by_names(place, names)?;
    let counted = Counted { what: "row", first: 1 };
    Ok(Gatherer::new(place, refiner, shape.dimension().schema.clone(), limits, counted))
}

/// Waits, but not for ever: a connection can die without a word.
pub(super) async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, Failure>> + Send,
    silent: impl FnOnce() -> Failure,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(silent()))
}
