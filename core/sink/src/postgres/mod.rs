//! PostgreSQL as a destination: one connection per writer, one transaction per batch.
//!
//! In: `StagedBatch`. Out: rows in the table, the cursor in `_garam_cursors` beside it, both or neither.
//!
//! ```text
//! BEGIN
//!   UPDATE _garam_cursors … WHERE key, incarnation, next, epoch are what the batch begins at     must match one row
//!   COPY … FROM STDIN (FORMAT binary)                                                            append, all rows at once
//!   INSERT … SELECT * FROM unnest($1::bigint[],$2::text[],…)                                     at most 2 000 rows each
//!     ON CONFLICT (_origin, _position, _ordinal) DO NOTHING                                      append
//!     ON CONFLICT (key) DO NOTHING                                                               ignore
//!     ON CONFLICT (key) DO UPDATE SET … [WHERE t.version <= excluded.version]                    upsert
//!   UPDATE … FROM unnest(…) WHERE t.key = s.key [AND t.version <= s.version]                     update
//! COMMIT                                                  synchronous_commit is on: durable when it returns
//! ```
//!
//! COPY cannot pass over what a rewound cursor offers again, nor say which row is refused: when it fails, the batch is undone
//! and written with INSERT, and so are the next ones until a batch repeats nothing. Nothing rests on guessing whether it will.
//!
//! Stored forms:
//!
//! ```text
//! boolean, smallint, int, bigint, real, double, date       of the same name
//! decimal(p,s)              numeric(p,s)
//! text, varchar(n)          text
//! timestamp                 timestamptz
//! _origin, _version         bytea
//! _position                 numeric(39)
//! ```
//!
//! Not here: pools, several servers. A connection is owned by its writer and closed with any transaction that was cut off.
//! Reading order: [`config`] → [`writer`] → [`client`] → [`table`], [`inspect`], [`prepare`] → [`cursors`] → [`encode`] → [`copy`] → [`error`].

mod client;
mod config;
mod copy;
mod cursors;
mod encode;
mod error;
mod inspect;
mod prepare;
mod remove;
mod table;
mod writer;

pub use config::PostgresConfig;
pub use error::{OnlyPostgres, PostgresError, ServerFault};

pub use crate::address::Url;
pub use crate::mode::Mode;
pub use crate::table::TableError;
