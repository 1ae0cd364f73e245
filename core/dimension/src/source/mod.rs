//! What a dimension is read from: files, and queries on databases.
//!
//! A query's row is read like a line of a file: its values as the database writes them, under the names of the query's columns.

mod file;
mod json;
mod lines;
pub(crate) mod mysql;
pub(crate) mod postgres;
mod query;
pub(crate) mod sqlite;

pub use file::FileSource;
pub(crate) use mysql::MySql;
pub(crate) use postgres::Postgres;
pub(crate) use query::{Source, label};
