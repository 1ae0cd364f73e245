//! Which calls go wrong, and how: those a test names, those that fall to chance, and all after the disk has died.

use std::io;
use std::path::Path;

use crate::random::Random;

pub const EIO: i32 = 5;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;

/// A call that may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Create,
    Open,
    Read,
    Write,
    SetLen,
    Allocate,
    Sync,
    Rename,
    Remove,
    MakeDir,
    SyncDir,
    List,
    Lock,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The error with this number. A write has stored any part of its bytes before; a sync has forgotten which pages it
    /// still owes the disk.
    Error(i32),
    /// A read returns less than there is.
    Short,
    /// A read returns one wrong bit.
    Flip,
}

/// One thing that goes wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    pub on: Call,
    /// Only paths that contain this.
    pub path: String,
    pub effect: Effect,
    /// Calls that still go well first.
    pub after: u32,
    /// Calls that go wrong then.
    pub times: u32,
}

/// How many calls in a thousand go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    pub short_reads: u32,
    pub flipped_reads: u32,
    /// Any call but a read: `EIO`.
    pub io_errors: u32,
    /// Writes, creations and new folders: `ENOSPC`.
    pub full: u32,
}

/// What becomes of a call that is let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub effect: Option<Effect>,
    /// The disk dies in this call: what it changes is changed, nobody learns it, and it is not durable.
    last: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    named: Vec<Fault>,
    pub odds: Odds,
    calls: u64,
    dies_at: Option<u64>,
    dead: bool,
}

impl Fault {
    /// This call always fails on paths that contain `path`.
    pub fn always(on: Call, path: &str, effect: Effect) -> Self {
        Self { on, path: path.to_owned(), effect, after: 0, times: u32::MAX }
    }

    /// This call fails once, after `after` that do not.
    pub fn once(on: Call, path: &str, effect: Effect, after: u32) -> Self {
        Self { on, path: path.to_owned(), effect, after, times: 1 }
    }
}

impl Call {
    /// Whether a crash in this call may leave something else than a crash before it.
    fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List)
    }
}

impl Verdict {
    /// Ends a call that has done what it does.
    pub(crate) fn end(self) -> io::Result<()> {
        match (self.effect, self.last) {
            (Some(Effect::Error(number)), _) => Err(error(number)),
            (_, true) => Err(dead()),
            _ => Ok(()),
        }
    }

    pub(crate) fn fails(self) -> bool {
        self.last || matches!(self.effect, Some(Effect::Error(_)))
    }

    pub(crate) fn is_last(self) -> bool {
        self.last
    }
}

impl Faults {
    pub(crate) fn meets(
        &mut self,
        call: Call,
        path: &Path,
        random: &mut Random,
    ) -> io::Result<Verdict> {
        if self.dead {
            return Err(dead());
        }
        if call.changes() {
            self.calls += 1;
            self.dead = self.dies_at == Some(self.calls);
        }
        let effect = self.named_effect(call, path).or_else(|| self.chance(call, random));
        // Only a write, a sync and a read are in part done when they fail.
        if let Some(Effect::Error(number)) = effect
            && !self.dead
            && !matches!(call, Call::Write | Call::Sync | Call::Read)
        {
            return Err(error(number));
        }
        Ok(Verdict { effect, last: self.dead })
    }

    fn named_effect(&mut self, call: Call, path: &Path) -> Option<Effect> {
        let path = path.to_string_lossy();
        let met = |fault: &&mut Fault| {
            fault.on == call && fault.times > 0 && path.contains(fault.path.as_str())
        };
        let fault = self.named.iter_mut().find(met)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        Some(fault.effect)
    }

    fn chance(&self, call: Call, random: &mut Random) -> Option<Effect> {
        let odds = self.odds;
        let choices = match call {
            Call::Read => [(odds.short_reads, Effect::Short), (odds.flipped_reads, Effect::Flip)],
            Call::Write | Call::Create | Call::MakeDir | Call::Allocate => {
                [(odds.full, Effect::Error(ENOSPC)), (odds.io_errors, Effect::Error(EIO))]
            }
            _ => [(0, Effect::Error(EIO)), (odds.io_errors, Effect::Error(EIO))],
        };
        // A chance of nothing draws nothing, so that a quiet disk's numbers depend on its crashes alone.
        let happens = |&(odds, _): &(u32, Effect)| odds > 0 && random.happens(odds);
        choices.into_iter().find(happens).map(|(_, effect)| effect)
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.named.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.named.clear();
        self.odds = Odds::default();
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    pub(crate) fn die_at(&mut self, call: u64) {
        self.dies_at = Some(call);
    }

    pub(crate) fn die(&mut self) {
        self.dead = true;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }
}

pub(crate) fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn dead() -> io::Error {
    io::Error::other("the disk is dead")
}
