//! What a room's errors become at its door: a dozen kinds at most, so that one policy can decide what happens next.

/// Why something failed, seen by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The other side cannot be reached, or went away. Heals by itself.
    Unreachable,
    /// The other side answered and said no: rights, quota, read-only. Needs a person.
    Refused,
    /// Contract and destination do not fit together. Needs a person.
    Schema,
    /// A record's content caused it: counts as an attempt of that range.
    Data,
    /// No space left: waits for somebody to make room.
    Full,
    /// Bytes on disk or wire are not what was written. Stops; never skipped.
    Corrupt,
    /// Another writer with a newer epoch owns this cursor: stop at once.
    Fenced,
    /// The cursor does not fit the log: stop, and let the operator choose.
    Cursor,
    /// Contention (deadlock, busy, serialisation): the whole transaction is run again.
    Contention,
    /// The outcome of a write is unknown: take over again, then read the cursor.
    Unknown,
    /// The configuration cannot work.
    Config,
    /// A broken invariant or panic inside Garam.
    Internal,
}

/// A failure as the supervisor and the operator see it: what could not be done, to what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", .source.as_ref().map(|s| format!(": {s}")).unwrap_or_default())]
pub struct Failure {
    pub kind: FailureKind,
    /// What could not be done to which thing, lowercase, without a full stop.
    pub what: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    pub fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}
