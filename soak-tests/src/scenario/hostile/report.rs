//! What each attack did, and whether the honest agent noticed.

use std::fmt;

use serde::Serialize;

use crate::scenario::Verdict;
use crate::scenario::findings::{self, Errors};

/// One attack.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) tries: u64,
    /// Tries that got nothing.
    pub(super) refused: u64,
    /// Lines of the audit log about this attacker; of a flood only some are written.
    pub(super) audited: u64,
    /// Payload bytes that came into the log meanwhile, of all but the honest agent.
    pub(super) bytes_in_log: u64,
    pub(super) ok: bool,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(super) scenario: &'static str,
    pub(super) seed: u64,
    pub(super) attacks: Vec<Part>,
    pub(super) tries: u64,
    pub(super) refused: u64,
    pub(super) audited: u64,
    /// Of the honest agent.
    pub(super) generated: u64,
    pub(super) delivered: u64,
    pub(super) quarantined: u64,
    #[serde(flatten)]
    pub(super) errors: Errors,
    /// Records of bad peers that reached a destination.
    pub(super) foreign_delivered: u64,
    /// Blocks of bad peers that did not decode, each put aside whole.
    pub(super) foreign_quarantined: u64,
    /// How far delivery was behind the writers, before and during the attacks.
    pub(super) behind_quiet_p99_ms: u64,
    pub(super) behind_p99_ms: u64,
    /// Most memory of the core during the attacks, beyond what it had before.
    pub(super) core_growth_mib: f64,
    pub(super) ok: bool,
    pub(super) why: Vec<String>,
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "hostile  seed {}  {verdict}", self.seed)?;
        for part in &self.attacks {
            let Part { name, tries, refused, audited, bytes_in_log, ok } = part;
            let mark = if *ok { ' ' } else { '!' };
            writeln!(
                f,
                "{mark} {name:<24} tries {tries:>4}  refused {refused:>4}  audited {audited:>4}  in the log {bytes_in_log:>8} B"
            )?;
        }
        let mut rows = vec![
            ("generated", self.generated),
            ("delivered", self.delivered),
            ("quarantined", self.quarantined),
            ("foreign delivered", self.foreign_delivered),
            ("foreign aside", self.foreign_quarantined),
            ("behind before ms", self.behind_quiet_p99_ms),
            ("behind ms", self.behind_p99_ms),
        ];
        rows.extend(self.errors.rows());
        writeln!(f, "  core grew by     {:>8.1} MiB", self.core_growth_mib)?;
        findings::table(f, &rows, &self.why)
    }
}
