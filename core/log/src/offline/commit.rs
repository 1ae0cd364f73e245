//! Exchanges several segment files of a partition as one step: after a crash either none or all of them count.
//!
//! In: new segments under `<base>.seg.new`, whole and synced, and the list of what is to happen. Out: the new partition;
//! what it replaces is kept aside under `<base>.seg.<tag>`. Promise: the list gets its name by one rename, which is the
//! step; whoever opens the partition next finishes what a crash left ([`finish`]), and nobody reads it half done.
//!
//! ```text
//!  REPAIR: "GARAMREP" | tag_len u8 | tag | count u32 | count × (base u64, what u8) | crc32c u32      all LE
//!  what: 0 the new file takes the name, the old one is kept aside      1 the old one is kept aside
//! ```

use std::path::Path;

use crate::api::LogError;
use crate::embedded::Env;
use crate::embedded::entry::Fields;
use crate::embedded::recovery::io;
use crate::embedded::segment;

pub(super) const JOURNAL: &str = "REPAIR";
const MAGIC: [u8; 8] = *b"GARAMREP";
/// What a segment is called until the step.
pub(crate) const NEW: &str = ".new";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Replace,
    PutAside,
}

/// Everything that happens in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Tells what is kept aside from anything kept aside before.
    pub tag: String,
    pub steps: Vec<(u64, What)>,
}

impl Exchange {
    /// Takes the step. The new files must be synced.
    pub(crate) fn commit(&self, env: &Env, folder: &Path) -> Result<(), LogError> {
        env.fs.sync_dir(folder).map_err(|e| io("sync", folder, e))?;
        let temporary = folder.join(format!("{JOURNAL}{}", segment::TEMPORARY));
        let file = env.fs.create(&temporary).map_err(|e| io("create", &temporary, e))?;
        file.write_all_at(&self.encode(), 0).map_err(|e| io("write", &temporary, e))?;
        file.sync().map_err(|e| io("sync", &temporary, e))?;
        let journal = folder.join(JOURNAL);
        env.fs.rename(&temporary, &journal).map_err(|e| io("rename", &temporary, e))?;
        env.fs.sync_dir(folder).map_err(|e| io("sync", folder, e))?;
        finish(env, folder)
    }

    /// Where a replaced segment is kept.
    pub(crate) fn aside(&self, base: u64) -> String {
        format!("{}.{}", segment::file_name(base), self.tag)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        // A tag is a word of ours, far below 256 bytes.
        bytes.push(self.tag.len() as u8);
        bytes.extend_from_slice(self.tag.as_bytes());
        bytes.extend_from_slice(&(self.steps.len() as u32).to_le_bytes());
        for (base, what) in &self.steps {
            bytes.extend_from_slice(&base.to_le_bytes());
            bytes.push(u8::from(*what == What::PutAside));
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (covered, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(covered);
        if fields.take::<8>()? != MAGIC {
            return None;
        }
        let [tag_len] = fields.take::<1>()?;
        let (tag, rest) = fields.0.split_at_checked(usize::from(tag_len))?;
        let tag = String::from_utf8(tag.to_vec()).ok()?;
        let mut fields = Fields(rest);
        let count = u32::from_le_bytes(fields.take()?);
        let mut steps = Vec::new();
        for _ in 0..count {
            let base = u64::from_le_bytes(fields.take()?);
            let [what] = fields.take::<1>()?;
            steps.push((base, if what == 1 { What::PutAside } else { What::Replace }));
        }
        fields.0.is_empty().then_some(Self { tag, steps })
    }
}

/// Finishes an exchange that was decided, if there is one. Doing it again changes nothing.
pub(crate) fn finish(env: &Env, folder: &Path) -> Result<(), LogError> {
    let journal = folder.join(JOURNAL);
    let listed = env.fs.list(folder).map_err(|e| io("list", folder, e))?;
    let there = |name: &str| listed.iter().any(|listed| listed.name == name);
    if !there(JOURNAL) {
        return Ok(());
    }
    let file = env.fs.open(&journal).map_err(|e| io("open", &journal, e))?;
    let size = file.size().map_err(|e| io("read", &journal, e))?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let read = file.read_full_at(&mut bytes, 0).map_err(|e| io("read", &journal, e))?;
    let exchange = bytes.get(..read).and_then(Exchange::decode).ok_or_else(|| {
        let why = format!(
            "{} is damaged: a repair was decided and cannot be finished; restore the partition from a backup",
            journal.display()
        );
        LogError::Invalid { why }
    })?;
    for (base, what) in &exchange.steps {
        let name = segment::file_name(*base);
        let (new, aside) = (format!("{name}{NEW}"), exchange.aside(*base));
        let decided = *what == What::PutAside || there(&new);
        if decided && there(&name) && !there(&aside) {
            rename(env, folder, &name, &aside)?;
        }
        if *what == What::Replace && there(&new) {
            rename(env, folder, &new, &name)?;
        }
    }
    env.fs.sync_dir(folder).map_err(|e| io("sync", folder, e))?;
    env.fs.remove(&journal).map_err(|e| io("remove", &journal, e))?;
    env.fs.sync_dir(folder).map_err(|e| io("sync", folder, e))
}

fn rename(env: &Env, folder: &Path, from: &str, to: &str) -> Result<(), LogError> {
    let from = folder.join(from);
    env.fs.rename(&from, &folder.join(to)).map_err(|e| io("rename", &from, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_any_flipped_bit_is_noticed() {
        let steps = vec![(7, What::Replace), (0, What::PutAside)];
        let exchange = Exchange { tag: "damaged-0a0b".into(), steps };
        let bytes = exchange.encode();
        assert_eq!(Exchange::decode(&bytes), Some(exchange));
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Exchange::decode(&altered), None);
        }
    }
}
