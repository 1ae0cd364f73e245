//! `[pipeline.NAME.to.KIND]` of an SQL server: what every kind of server is told alike.

use std::path::PathBuf;
use std::time::Duration;

use garam_stage::contract::OneOrMany;
use serde::Deserialize;

use crate::address::{Address, Place, Url};
use crate::changes::Truncate;
use crate::mode::Mode;
use crate::server_error::{OwnError, ServerError};
use crate::sqlite::Create;
use crate::table::TableError;

/// Which server and table, and how rows meet those already there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// A file whose only line is `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full` or
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=VERIFY_IDENTITY`. Read at each connect, so that a password can
    /// change. Exactly one of `url_file` and `url`.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// The same in place, for addresses without a secret, or as `"${env:NAME}"`.
    #[serde(default)]
    pub url: Option<Url>,
    /// A file whose only line is the password; it wins over one in the address.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The table, `NAME`, `SCHEMA.NAME` or MySQL's `DATABASE.NAME`: each 1 to 63 letters, digits and `_`.
    pub table: String,
    /// How rows meet those already there. Default: `upsert` when `key` is given, else `append`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The column or columns that identify a row; they must be `not null`. For every mode but `append`.
    #[serde(default)]
    pub key: Option<OneOrMany>,
    /// The guard, for `upsert` and `update`: a column that grows with every change of a row. A record never overwrites a
    /// row with a larger one; with an equal one it may. Default: none, the last record in log order wins.
    #[serde(default)]
    pub version: Option<String>,
    /// For rows that are changes, in `upsert` and `update`: what happens when the source's table is emptied. `pause` stops the
    /// pipeline until a person says more (default), `apply` empties the table too, `ignore` drops and counts it.
    #[serde(default)]
    pub truncate: Option<Truncate>,
    /// `missing` creates the table when it is absent (default), `never` leaves that to the operator, and neither alters a table
    /// that is there. `evolve` creates it too, and at a start adds the columns that the contract has and the table lacks; they
    /// may be null. Nothing else is ever altered.
    #[serde(default)]
    pub create: Create,
    /// How long the server may work on one statement (MySQL: may wait for the next one). Default `60s`; 1s to 1h. A lock is
    /// waited for a sixth of it; at MySQL and MariaDB, at least a second.
    #[serde(default = "default_statement_timeout", with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// More databases of the same kind, for a part of the keys each. Not for mode `append`. Default: none.
    #[serde(default)]
    pub shard: Vec<ServerShard>,
}

/// `[[pipeline.NAME.to.KIND.shard]]`: another database. What it does not say is as of the destination itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerShard {
    /// What the slot map calls it: 1 to 63 letters, digits, `-` and `_`; not `main`, which is the destination itself.
    pub name: String,
    /// As of the destination. Exactly one of `url_file` and `url`.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    #[serde(default)]
    pub url: Option<Url>,
    /// As of the destination. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Its table. Default: that of the destination.
    #[serde(default)]
    pub table: Option<String>,
}

fn default_statement_timeout() -> Duration {
    Duration::from_secs(60)
}

impl ServerConfig {
    /// One shard as a destination of its own.
    pub(crate) fn of_shard(&self, shard: &ServerShard) -> Self {
        let ServerShard { name: _, url_file, url, password_file, table } = shard.clone();
        let table = table.unwrap_or_else(|| self.table.clone());
        Self { url_file, url, password_file, table, shard: Vec::new(), ..self.clone() }
    }

    /// Whether records that are delivered again leave the table as it is: not where an old row would cover a newer one, or
    /// be refused.
    pub(crate) fn survives_rewind(&self) -> bool {
        self.mode().survives_rewind(self.version.is_some())
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::usual(self.key.is_some()))
    }

    pub(crate) fn key(&self) -> Vec<String> {
        self.key.clone().map(OneOrMany::into_vec).unwrap_or_default()
    }

    /// The limit of one statement, within its bounds.
    pub(crate) fn statement_timeout(&self) -> Result<Duration, TableError> {
        let found = self.statement_timeout;
        if found < Duration::from_secs(1) || found > Duration::from_secs(3600) {
            return Err(TableError::StatementTimeout { found });
        }
        Ok(found)
    }

    pub(crate) fn address<P: Place, O: OwnError>(&self) -> Result<Address<P>, ServerError<O>> {
        Address::of(self.url_file.as_deref(), self.url.as_ref())
    }

    /// Which database, without secrets: server, port and name, or the file that says so.
    pub(crate) fn place<P: Place, O: OwnError>(&self) -> String {
        match self.address::<P, O>() {
            Ok(address) => address.place(),
            Err(_) => "nowhere".to_owned(),
        }
    }
}
