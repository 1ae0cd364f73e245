//! What a failure means: the one place that maps its kind to when it is tried again and what the operator is told.
//!
//! Three answers. [`Retry::After`]: again, after a pause that grows. [`Retry::OnceFixed`]: a person must act, so trying
//! again only makes noise; the unit is parked. [`Retry::Never`]: somebody else does this work now.
//! What a destination refuses may be granted meanwhile, so such a fault is marked ([`super::Fault::probed`]): the unit is
//! parked with one error all the same, and tried again by itself at intervals that grow to five minutes.
//! Of the first kind, those that heal by themselves do not count towards the restart intensity: a destination may be down
//! for a weekend and must be found again on Monday without anybody's hand.

use garam_stage::FailureKind;

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    After,
    OnceFixed,
    Never,
}

/// What a kind of failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub retry: Retry,
    /// Whether a restart for it counts towards the intensity.
    pub counted: bool,
    /// To the operator: what to do.
    pub advice: &'static str,
}

/// The policy for a kind; `None` for what nobody classified.
pub fn policy(kind: Option<FailureKind>) -> Policy {
    use FailureKind as Kind;
    let Some(kind) = kind else { return policy(Some(Kind::Internal)) };
    match kind {
        Kind::Unreachable => {
            heals("see that the other side runs and can be reached; it continues by itself")
        }
        Kind::Contention => heals("nothing to do unless it lasts; then see who else writes there"),
        Kind::Unknown => {
            heals("nothing to do; the cursor is read again before anything is written")
        }
        Kind::Full => heals("make room; it continues by itself"),
        Kind::Data => {
            heals("nothing to do; the record that causes it is isolated and put into quarantine")
        }
        Kind::Refused => {
            once_fixed("give the rights or the quota that the message names, then resume")
        }
        Kind::Schema => once_fixed("make contract and destination fit together, then resume"),
        Kind::Corrupt => {
            once_fixed("keep the files, run `garam log inspect`, restore or repair, then resume")
        }
        Kind::Cursor => {
            once_fixed("the cursor does not fit the log: decide where to start, then resume")
        }
        Kind::Config => once_fixed("correct the configuration, run `garam check`, then restart"),
        Kind::Fenced => Policy {
            retry: Retry::Never,
            counted: true,
            advice: "another writer has taken over: see that only one core delivers here",
        },
        Kind::Internal => Policy {
            retry: Retry::After,
            counted: true,
            advice: "a fault in Garam itself: keep the log around this time and report it",
        },
    }
}

/// To the operator, about what is put aside and tried again by itself, at growing intervals.
pub fn advice_while_probed(kind: Option<FailureKind>) -> &'static str {
    match kind {
        Some(FailureKind::Schema) => {
            "make contract and destination fit together; it is tried again by itself within 5 minutes, by resume at once"
        }
        _ => {
            "give the rights or the quota that the message names; it is tried again by itself within 5 minutes, by resume at once"
        }
    }
}

/// The kind as it stands in logs, metrics and JSON.
pub fn kind_name(kind: Option<FailureKind>) -> &'static str {
    use FailureKind as Kind;
    match kind {
        None => "unclassified",
        Some(Kind::Unreachable) => "unreachable",
        Some(Kind::Refused) => "refused",
        Some(Kind::Schema) => "schema",
        Some(Kind::Data) => "data",
        Some(Kind::Full) => "full",
        Some(Kind::Corrupt) => "corrupt",
        Some(Kind::Fenced) => "fenced",
        Some(Kind::Cursor) => "cursor",
        Some(Kind::Contention) => "contention",
        Some(Kind::Unknown) => "unknown",
        Some(Kind::Config) => "config",
        Some(Kind::Internal) => "internal",
    }
}

fn heals(advice: &'static str) -> Policy {
    Policy { retry: Retry::After, counted: false, advice }
}

fn once_fixed(advice: &'static str) -> Policy {
    Policy { retry: Retry::OnceFixed, counted: true, advice }
}
