//! The scenarios in which known tailers lose or repeat data, one test each, named by their number in the catalogue of
//! `docs/scenarios.md`. Each ends with every line counted by id and with a ledger that balances.
//!
//! | file | what goes on |
//! |---|---|
//! | [`identity`] | which file is it: reused inodes, equal heads, rewritten content, links |
//! | [`rotation`] | files that move, stay open, vanish |
//! | [`compressed`] | rotated files that are compressed |
//! | [`lines`] | lines without end, long lines, holes |
//! | [`state`] | kills, torn state, a core that is away, reloads |
//! | [`many`] | what is no file, and very many files |

pub(crate) mod compressed;
mod identity;
mod lines;
mod many;
mod rotation;
mod state;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use garam_proto::message::Hold;

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;
pub(crate) use compressed::compress;

/// A core, a host and the lines written on it.
pub(super) struct Trial {
    pub(super) core: Core,
    pub(super) host: Host,
    pub(super) oracle: Oracle,
}

impl Trial {
    pub(super) fn new(include: &str, extra: &str) -> Self {
        Self::with_ship(include, extra, "")
    }

    pub(super) fn with_ship(include: &str, extra: &str, ship: &str) -> Self {
        let core = Core::start();
        let host = Host::with_ship(&core, include, extra, ship);
        Self { core, host, oracle: Oracle::default() }
    }

    pub(super) fn append(&mut self, name: &str, lines: usize) {
        let path = self.host.log(name);
        self.oracle.append(&path, lines);
    }

    /// Waits until everything arrived and nothing is unread; then counts by id and checks the ledger.
    pub(super) fn settle(&self) {
        self.oracle.settle(&self.core);
        self.balance(0);
    }

    /// Every generation accounts for each of its bytes, and so many are still to be read.
    pub(super) fn balance(&self, unread: u64) {
        let mut found = None;
        eventually("the agent accounts for everything", || {
            found = self.host.status();
            found.as_ref().is_some_and(|status| {
                status.totals.unread_bytes == unread
                    && status.files.iter().all(|file| file.lag_bytes == file.unread)
            })
        });
        let status = found.unwrap();
        for file in status.files.iter().chain(&status.finished) {
            let sum = file.read + file.skipped + file.gap + file.unread;
            assert_eq!(sum, file.size, "the ledger does not balance: {file:?}");
            assert_eq!(file.skipped, file.skipped_by.values().sum::<u64>(), "{file:?}");
            assert_eq!(file.gap, file.gap_by.values().sum::<u64>(), "{file:?}");
        }
        // A file that left the globs still goes by its old name, which another may have.
        let alone = |path: &str| status.files.iter().filter(|file| file.path == path).count() == 1;
        for file in status.files.iter().filter(|file| alone(&file.path)) {
            let bytes = fs::read(&file.path).unwrap_or_default();
            // What is compressed is accounted for by what it holds.
            let packed = bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0x28, 0xb5, 0x2f]);
            let size = if packed || bytes.is_empty() { file.size } else { bytes.len() as u64 };
            assert_eq!(file.size, size, "{file:?}");
        }
    }

    /// Holds or releases the stream and waits until the agent knows.
    pub(super) fn hold(&self, held: bool) {
        let stream = garam_proto::StreamName::new("raw").unwrap();
        self.core.state().held = Some(Hold { stream, partition: None, held, why: "test".into() });
        self.core.nudge();
        eventually("the agent knows of the hold", || {
            self.host
                .status()
                .is_some_and(|s| s.files.iter().any(|file| file.state == "held") == held)
        });
    }

    /// The same for an agent that is not running.
    pub(super) fn hold_later(&self, held: bool) {
        let stream = garam_proto::StreamName::new("raw").unwrap();
        self.core.state().held = Some(Hold { stream, partition: None, held, why: "test".into() });
    }

    pub(super) fn files(&self, expected: usize) {
        eventually("so many files are known", || {
            self.host.status().is_some_and(|status| status.files.len() == expected)
        });
    }
}

pub(super) fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}
