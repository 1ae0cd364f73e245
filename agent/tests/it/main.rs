//! The agent's integration tests: the real binary, real files, and a scripted core over real TLS on 127.0.0.1.

mod agent;
mod core;
mod oracle;
mod pki;

mod command_line;
mod connection;
mod random;
mod rotation;
mod state;
mod tailing;
