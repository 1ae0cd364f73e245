//! What only PostgreSQL has, against a real server.

mod copy;
mod existing;
mod faults;
mod refusal;
pub(crate) mod server;
mod tls;
mod types;
mod values;
