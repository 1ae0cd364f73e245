//! MySQL and MariaDB as destinations: one connection per writer, one transaction per batch.
//!
//! In: `StagedBatch`. Out: rows in the table, the cursor in `_garam_cursors` beside it, both or neither.
//!
//! ```text
//! START TRANSACTION                                                    READ COMMITTED
//!   UPDATE _garam_cursors … WHERE key, incarnation, next, epoch are what the batch begins at     must match one row
//!   INSERT INTO t (…) VALUES (?,…),(?,…),…                             prepared, of 512, 64, 8 or 1 rows
//!                                                                      append, insert, ignore: as it is
//!     ON DUPLICATE KEY UPDATE id = IF(t.id = n.id, n.id, NULL),        upsert: the row that is met must be the key's own
//!       a = n.a, … [each IF(version is not older), the version last]
//!   UPDATE t SET … WHERE key = ? [AND version <= ?]                    update: row by row
//! COMMIT                                                               innodb_flush_log_at_trx_commit is 1: durable
//! ```
//!
//! A statement that fails is undone by the server alone and the transaction goes on, except after a deadlock or a full lock
//! table, which end it. `IGNORE` is never used: it would turn errors of every kind into changed values.
//!
//! Stored forms:
//!
//! ```text
//! boolean, smallint, int, bigint       of the same name (boolean is tinyint(1))
//! real, double              float, double; NaN and infinity are refused
//! decimal(p,s)              decimal(p,s)
//! text, varchar(n)          longtext; varchar(n) in a key, as long as an index allows
//! date, timestamp           date, datetime(6) in UTC; years 1000 to 9999
//! _origin, _version         binary(32), binary(20)
//! _position                 decimal(39)
//! ```
//!
//! Not here: pools, several servers. A connection is owned by its writer and closed with any transaction that was cut off.
//! Reading order: [`config`] → [`writer`] → [`client`], [`dialect`] → [`table`], [`inspect`], [`prepare`] → [`cursors`] → [`encode`] →
//! [`error`].

mod client;
mod config;
mod cursors;
mod dialect;
mod encode;
mod error;
mod inspect;
mod prepare;
mod remove;
mod table;
mod writer;

pub use config::MySqlConfig;
pub use error::{MySqlError, OnlyMySql, ServerFault};

pub use crate::address::Url;
pub use crate::mode::Mode;
pub use crate::table::TableError;
