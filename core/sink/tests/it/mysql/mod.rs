//! What only MySQL and MariaDB have, against a real server of each.

mod existing;
mod faults;
mod refusal;
pub(crate) mod server;
mod tls;
mod types;
mod values;
