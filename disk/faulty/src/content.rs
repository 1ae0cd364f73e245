//! A file's bytes: as reads see them, as they are durable, and every change in between.
//!
//! Promise: `after_crash` keeps each durable byte that no later change covers, and for the rest picks among what the disk
//! may have written, by sectors, by bytes, or not at all.

use crate::random::Random;

const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    cache: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Room taken ahead.
    allocated: u64,
}

#[derive(Debug, Clone)]
struct Change {
    kind: Kind,
    /// A sync that should have made it durable failed: no later one will.
    doomed: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Write { at: usize, bytes: Vec<u8> },
    Len(usize),
}

impl Content {
    /// As if it had always been there.
    pub(crate) fn lasting(bytes: &[u8]) -> Self {
        Self { cache: bytes.to_vec(), durable: bytes.to_vec(), ..Self::default() }
    }

    pub(crate) fn cache(&self) -> &[u8] {
        &self.cache
    }

    /// Bytes on the disk.
    pub(crate) fn room(&self) -> u64 {
        self.allocated.max(self.cache.len() as u64)
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.change(Kind::Write { at, bytes: bytes.to_vec() });
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.allocated = self.allocated.min(len as u64);
        self.change(Kind::Len(len));
    }

    pub(crate) fn allocate(&mut self, len: usize) {
        self.change(Kind::Len(len.max(self.cache.len())));
        self.allocated = self.allocated.max(len as u64);
    }

    fn change(&mut self, kind: Kind) {
        apply(&mut self.cache, &kind);
        self.changes.push(Change { kind, doomed: false });
    }

    pub(crate) fn sync(&mut self) {
        for change in self.changes.iter().filter(|change| !change.doomed) {
            apply(&mut self.durable, &change.kind);
        }
        self.changes.retain(|change| change.doomed);
    }

    pub(crate) fn fail_sync(&mut self) {
        self.changes.iter_mut().for_each(|change| change.doomed = true);
    }

    pub(crate) fn flip(&mut self, byte: usize, bit: u8) {
        for bytes in [&mut self.cache, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// What the disk may hold when the power comes back.
    pub(crate) fn after_crash(&self, random: &mut Random) -> Self {
        let bytes = match random.up_to(3) {
            _ if self.changes.is_empty() => self.durable.clone(),
            0 => self.durable.clone(),
            1 => self.cache.clone(),
            2 => self.torn(random),
            _ => self.sectors(random),
        };
        Self::lasting(&bytes)
    }

    /// Everything up to one change, which is torn at a byte.
    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let whole = random.up_to(self.changes.len() - 1);
        let mut bytes = self.version(whole);
        match self.changes.get(whole).map(|change| &change.kind) {
            Some(Kind::Write { at, bytes: written }) => {
                let kept = random.up_to(written.len());
                let part = written.get(..kept).unwrap_or(written).to_vec();
                apply(&mut bytes, &Kind::Write { at: *at, bytes: part });
            }
            Some(Kind::Len(_)) | None => {}
        }
        bytes
    }

    /// Each sector in one of the versions it had, or torn between two of them, under a length of its own choice.
    fn sectors(&self, random: &mut Random) -> Vec<u8> {
        let versions: Vec<Vec<u8>> = (0..=self.changes.len()).map(|n| self.version(n)).collect();
        let shortest = versions.iter().map(Vec::len).min().unwrap_or(0);
        let longest = versions.iter().map(Vec::len).max().unwrap_or(0);
        let len = shortest + random.up_to(longest - shortest);
        let mut bytes = vec![0; len];
        let at = |version: usize, byte: usize| {
            versions.get(version).and_then(|bytes| bytes.get(byte)).copied().unwrap_or(0)
        };
        for (sector, bytes) in bytes.chunks_mut(SECTOR).enumerate() {
            let (one, other) = (random.up_to(versions.len() - 1), random.up_to(versions.len() - 1));
            let torn_at = if random.happens(125) { random.up_to(SECTOR) } else { SECTOR };
            for (i, byte) in bytes.iter_mut().enumerate() {
                let version = if i < torn_at { one } else { other };
                *byte = at(version, sector * SECTOR + i);
            }
        }
        bytes
    }

    /// The durable bytes with the first `n` changes.
    fn version(&self, n: usize) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.changes.iter().take(n).for_each(|change| apply(&mut bytes, &change.kind));
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::Len(len) => bytes.resize(*len, 0),
        Kind::Write { at, bytes: written } => {
            let end = at + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes.iter_mut().skip(*at).zip(written).for_each(|(to, from)| *to = *from);
        }
    }
}
