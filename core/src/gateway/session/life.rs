//! The life of a session's certificate: when it ends, when the agent is told to renew it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garam_proto::message as m;
use tokio::time::Instant;

use crate::pki::PeerIdentity;

/// How the life of a session's certificate goes on.
pub(super) struct Life {
    not_after: SystemTime,
    pub(super) ends: Instant,
    pub(super) renewal: Instant,
    whole: Duration,
}

impl Life {
    /// Renewal is due when 70 to 90 % have passed: a fleet that was enrolled at once is not renewed at once.
    pub(super) fn of(identity: &PeerIdentity) -> Self {
        let (now, instant) = (SystemTime::now(), Instant::now());
        let whole = identity.not_after.duration_since(identity.issued).unwrap_or_default();
        let left = identity.not_after.duration_since(now).unwrap_or_default();
        let after = whole.mul_f64(0.7 + 0.2 * fastrand::f64());
        let renewal = (identity.issued + after).duration_since(now).unwrap_or_default();
        let not_after = identity.not_after;
        Self { not_after, ends: instant + left, renewal: instant + renewal, whole }
    }

    /// When an agent that did not renew is told again.
    pub(super) fn again(&self) -> Instant {
        Instant::now() + (self.whole / 50).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }

    pub(super) fn due(&self) -> m::RenewDue {
        let ends = self.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        m::RenewDue { not_after_us: i64::try_from(ends.as_micros()).unwrap_or(i64::MAX) }
    }
}
