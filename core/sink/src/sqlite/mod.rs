//! SQLite as a destination: one file, one connection, one transaction per batch.
//!
//! In: `StagedBatch`. Out: rows in the table, the cursor in `_garam_cursors` beside it, both or neither.
//!
//! ```text
//! BEGIN IMMEDIATE
//!   UPDATE _garam_cursors … WHERE key, incarnation, next, epoch are what the batch begins at     must match one row
//!   INSERT … ON CONFLICT (_origin, _position, _ordinal) DO NOTHING                               append
//!   DELETE … WHERE (key) IN (…)                                                                  upsert of row changes
//!   INSERT … ON CONFLICT (key) DO UPDATE SET …                                                   upsert
//! COMMIT                                                             WAL, synchronous = FULL: durable when it returns
//! ```
//!
//! Stored forms, in a STRICT table:
//!
//! ```text
//! boolean                   INTEGER 0 or 1
//! smallint, int, bigint     INTEGER
//! real, double              REAL
//! decimal(p,s)              TEXT with exactly s digits behind the point: SQLite has no exact fraction of its own
//! text, varchar(n)          TEXT
//! date                      TEXT 2026-11-23
//! timestamp                 TEXT 2026-11-23T23:24:04.123456Z
//! _origin, _version         BLOB
//! _position                 INTEGER up to 2^63-1, TEXT of 39 digits above: SQLite sorts every INTEGER before every TEXT,
//!                           so ORDER BY _position is the order of the log
//! ```
//!
//! Not here: several files, pools. A connection is owned by its writer and closed with any transaction that was cut off.
//! Reading order: [`config`] → [`writer`] → [`client`] → [`table`], [`inspect`] → [`remove`] → [`cursors`] → [`encode`] → [`query`] →
//! [`error`].

mod client;
mod config;
mod cursors;
mod encode;
mod error;
mod inspect;
mod query;
mod remove;
mod table;
mod writer;

pub use config::{Create, Readiness, SqliteConfig, SqliteShard};
pub use cursors::read_cursors;
pub use error::{SqliteError, TableError};
pub use query::{QueryLimits, QueryResult, QueryValue, has_second_statement, read_only_query};
