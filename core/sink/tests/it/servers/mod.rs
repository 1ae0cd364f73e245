//! What every SQL server must do alike: each test here runs at PostgreSQL, MySQL and MariaDB, in a module of that name.

use std::time::Duration;

use garam_sink::mysql::{Mode, Url};
use garam_sink::sqlite::Create;
use garam_sink::{ServerConfig, SinkConfig};
use garam_stage::contract::OneOrMany;
use garam_stage::{Cursor, Destination};

use crate::fixture::{Row, first_cursor, schema};
use crate::testbed::{Kind, Server, shared};

/// Declares the tests of a module for every server: each is a function that is given a [`Base`].
macro_rules! at_every_server {
    ($($test:ident),* $(,)?) => {
        at_every_server!(in postgres: crate::postgres::server::PgBase, Postgres, $($test),*);
        at_every_server!(in mysql: crate::mysql::server::MySqlBase, MySql, $($test),*);
        at_every_server!(in mariadb: crate::mysql::server::MySqlBase, MariaDb, $($test),*);
    };
    (in $server:ident: $base:ty, $kind:ident, $($test:ident),*) => {
        mod $server {
            use crate::servers::Base as _;
            use crate::testbed::{Kind, shared};
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(<$base>::on(shared(Kind::$kind)).await).await;
                }
            )*
        }
    };
}

mod changes;
mod config;
mod cursor;
mod evolve;
mod faults;
mod guard;
mod modes;
mod refusal;
mod shards;
mod trips;
pub(crate) mod types;
mod write;

/// A schema or database of its own for one test, and how its server differs from the others.
pub(crate) trait Base: Sized {
    type Connection;

    /// Who owns the server.
    const OWNER: &str;
    /// How many rows to write: none, one, and the edges of the statements they go in with.
    const COUNTS: &[i64];
    /// How many statements write so many rows that are new.
    fn statements(mode: Mode, rows: usize) -> usize;
    /// Allows null in column `id` of table `orders`.
    const LET_ID_BE_NULL: &str;
    /// Gives a column of `orders` another type.
    fn retype(&self, column: &str, kind: &str) -> String;
    /// What is said of a date that the server does not hold in column `day`, and of a timestamp in column `at`.
    const NO_SUCH_DATE: &str;
    const NO_SUCH_TIMESTAMP: &str;

    async fn on(server: &Server) -> Self;
    fn kind(&self) -> Kind;
    fn port(&self) -> u16;
    /// The schema or database that is the test's own.
    fn name(&self) -> &str;
    /// The database that the address names.
    fn database(&self) -> &str;
    fn url(&self, port: u16) -> String;
    fn sink(&self, config: &ServerConfig) -> SinkConfig;
    async fn connection_as(&self, user: &str) -> Self::Connection;
    async fn run(connection: &mut Self::Connection, sql: &str);
    /// A query's rows as lines of text, as the server writes them.
    async fn lines(&self, sql: &str) -> String;
    /// Waits until another session waits for a lock.
    async fn somebody_waits(&self);
    /// Closes the connections of the destinations, which do nothing at the moment.
    async fn close_idle(&self);
    /// Fails the test unless `detail` says that the primary key of `orders` is there already.
    fn assert_duplicate(detail: &str);
    /// Fails the test unless `detail` says that constraint `low` of `orders` is violated.
    fn assert_violates_low(detail: &str);
    /// Gives a row what the server's types do not hold; returns what is said about it.
    fn spoil(row: &mut Row) -> &'static str;

    /// Another one at the same server.
    async fn another(&self) -> Self {
        Self::on(shared(self.kind())).await
    }

    fn config(&self, mode: Mode) -> ServerConfig {
        ServerConfig {
            url_file: None,
            url: Some(Url(self.url(self.port()))),
            password_file: None,
            table: "orders".into(),
            mode: Some(mode),
            key: (mode != Mode::Append).then(|| OneOrMany::One("id".into())),
            version: None,
            truncate: None,
            create: Create::Missing,
            statement_timeout: Duration::from_secs(60),
            shard: Vec::new(),
        }
    }

    fn destination(&self, mode: Mode) -> Box<dyn Destination> {
        self.sink(&self.config(mode)).build(&schema()).unwrap()
    }

    /// A prepared destination and its first cursor.
    async fn ready(&self, mode: Mode) -> (Box<dyn Destination>, Cursor) {
        self.ready_with(&self.config(mode)).await
    }

    async fn ready_with(&self, config: &ServerConfig) -> (Box<dyn Destination>, Cursor) {
        self.ready_for(config, schema()).await
    }

    /// The same for rows of another schema.
    async fn ready_for(
        &self,
        config: &ServerConfig,
        schema: arrow_schema::SchemaRef,
    ) -> (Box<dyn Destination>, Cursor) {
        let mut destination = self.sink(config).build(&schema).unwrap();
        destination.prepare().await.unwrap();
        let cursor = first_cursor();
        destination.begin(&cursor).await.unwrap();
        (destination, cursor)
    }

    /// Another one's connection.
    async fn connection(&self) -> Self::Connection {
        self.connection_as("garam").await
    }

    /// Runs SQL as somebody else would.
    async fn execute(&self, sql: &str) {
        Self::run(&mut self.connection().await, sql).await;
    }

    /// Runs SQL as the server's owner.
    async fn execute_as_owner(&self, sql: &str) {
        Self::run(&mut self.connection_as(Self::OWNER).await, sql).await;
    }

    async fn count(&self) -> usize {
        self.lines("select count(*) from orders").await.parse().unwrap()
    }

    async fn cursors(&self) -> Vec<Cursor> {
        self.sink(&self.config(Mode::Append)).read_cursors().await.unwrap()
    }
}
