//! The MySQL destination against a real MySQL and a real MariaDB server, each started once for all tests.

mod cursor;
mod existing;
mod faults;
mod guard;
mod modes;
mod refusal;
mod server;
mod tls;
mod types;
mod write;
