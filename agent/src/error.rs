//! What the agent as a program can fail with, and the exit code each failure ends in.
//!
//! Rooms have their own errors; here they meet. Exit codes: 0 ok · 1 failed · 2 usage · 4 unreachable or timed out ·
//! 5 denied · 6 conflict · 78 configuration · 130 interrupted.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::enrol::EnrolError;
use crate::tls::IdentityError;

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "state folder {path} is in use by another agent: stop it, or give this one a state_dir of its own"
    )]
    Locked { path: PathBuf },
    #[error("no agent answers at {path}: is it running, and may you read its state folder?")]
    NotRunning { path: PathBuf, source: std::io::Error },
    #[error("cannot start the {what} thread: {source}")]
    Thread { what: &'static str, source: std::io::Error },
    #[error("the {what} thread ended unexpectedly; the service manager should restart the agent")]
    ThreadEnded { what: &'static str },
}

impl AgentError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Identity(_) => 78,
            Self::Checkpoint(CheckpointError::Newer { .. }) => 78,
            Self::Enrol(error) => error.exit_code(),
            Self::Locked { .. } => 6,
            Self::NotRunning { .. } => 4,
            Self::Checkpoint(_)
            | Self::Io { .. }
            | Self::Thread { .. }
            | Self::ThreadEnded { .. } => 1,
        }
    }
}
