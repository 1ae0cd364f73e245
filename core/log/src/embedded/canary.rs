//! Two broken promises, on purpose: the tests of power loss must see each of them, or they see nothing.
//!
//! In: `GARAM_CANARY` in the environment, `ack-before-sync` or `read-beyond-end`. Out: a log that answers before anything
//! is durable, or shows readers what is not; each long enough for a disk to be taken away meanwhile.
//! Promise: exists in builds with debug assertions alone, never in a release; it says loudly that it is at work, and an
//! unknown name ends the process. Not here: seeing it (`garam-soak run power_loss --canary`).

use std::sync::OnceLock;
use std::time::Duration;

use super::request::Waiting;
use super::writer::Writer;

/// How long a broken promise stays broken.
const UNSYNCED: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Canary {
    AckBeforeSync,
    ReadBeyondEnd,
}

/// Answers what is not durable yet, when that is the canary. Gives what is still to be answered.
pub(crate) fn answer_early(waiting: Vec<Waiting>) -> Vec<Waiting> {
    if chosen() != Some(Canary::AckBeforeSync) {
        return waiting;
    }
    waiting.into_iter().for_each(|decided| Writer::answer(decided, &[]));
    stay_unsynced();
    Vec::new()
}

/// Publishes what is not durable yet, when that is the canary.
pub(crate) fn publish_early(publish: impl FnOnce()) {
    if chosen() == Some(Canary::ReadBeyondEnd) {
        publish();
        stay_unsynced();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the writer is a thread of its own, and has to stand still"
)]
fn stay_unsynced() {
    std::thread::sleep(UNSYNCED);
}

fn chosen() -> Option<Canary> {
    static CHOSEN: OnceLock<Option<Canary>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var_os("GARAM_CANARY")?;
        let canary = match name.to_str() {
            Some("ack-before-sync") => Canary::AckBeforeSync,
            Some("read-beyond-end") => Canary::ReadBeyondEnd,
            _ => panic!("GARAM_CANARY names no canary: {}", name.display()),
        };
        tracing::error!(?canary, action = "unset GARAM_CANARY", "this log loses data on purpose");
        Some(canary)
    })
}
