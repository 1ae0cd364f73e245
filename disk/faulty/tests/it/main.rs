//! The disk that fails, seen as a room sees it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
