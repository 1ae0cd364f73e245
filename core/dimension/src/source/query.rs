//! What all queries have alike: a row of a database becomes a record of format `tsv`, so that it is read like one of a file; and a
//! server is asked over a connection of its own, within limits.

use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use garam_stage::{DimensionSource, Failure, Told, Wanted};

use crate::config::ServerQuery;
use crate::error::DimensionError;
use crate::gather::{Counted, Gatherer, Limits};
use crate::shape::Shape;

/// How long opening a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server stops a query at its own limit; one that says nothing at all for so much longer is gone.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A kind of server.
#[async_trait]
pub(crate) trait Server: Send + Sync + 'static {
    const KIND: &'static str;
    type Connection: Send;

    /// Where the server is, for people: never a secret.
    fn place(query: &ServerQuery) -> String;

    /// A new connection, and where it leads.
    async fn open(query: &ServerQuery) -> Result<(Self::Connection, String), Failure>;

    /// All rows, of one state of the database.
    async fn ask(asked: &Asked, connection: Self::Connection, place: &str)
    -> Result<Told, Failure>;

    /// Nothing was heard for so long.
    fn silent(action: &'static str, place: &str, limit: Duration) -> Failure;
}

/// A query, and what its rows must be like.
pub(crate) struct Asked {
    pub(super) query: ServerQuery,
    pub(super) shape: Shape,
    pub(super) limits: Limits,
}

/// A query at a server as a source of rows.
pub(crate) struct Source<S> {
    asked: Asked,
    server: PhantomData<S>,
}

impl<S: Server> Source<S> {
    pub(crate) fn new(query: ServerQuery, shape: Shape, limits: Limits) -> Self {
        Self { asked: Asked { query, shape, limits }, server: PhantomData }
    }
}

/// What the operator calls a query at such a server.
pub(crate) fn label<S: Server>(query: &ServerQuery) -> String {
    format!("{} {}", S::KIND, S::place(query))
}

#[async_trait]
impl<S: Server> DimensionSource for Source<S> {
    fn label(&self) -> String {
        label::<S>(&self.asked.query)
    }

    /// Whether something has changed only the query can tell.
    async fn read(&mut self, _wanted: Wanted) -> Result<Told, Failure> {
        let (connection, place) = S::open(&self.asked.query).await?;
        let limit = self.asked.query.statement_timeout + GRACE;
        let late = || S::silent("read a dimension", &place, limit);
        within(limit, S::ask(&self.asked, connection, &place), late).await
    }
}

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
