//! What the engine asks of files.
//!
//! In: handles and positions. Out: answers of the [`Source`] trait. Not here: the files themselves ([`super`]), what a search sees (`sight`).

use std::io;
use std::time::Instant;

use garam_proto::message::GapReason;
use garam_proto::{Descriptor, FileMatch};

use super::copies::Sought;
use super::open::OpenFile;
use super::{FileSet, Files, identity, plain};
use crate::source::spool::SpoolStatus;
use crate::source::{
    Copied, CutLimits, Expected, Fit, Handle, Known, Met, Place, Read, Seen, Source, Tail,
};

/// How often one search walks at most: files may be rotated faster than they can be walked over.
const MOST_WALKS: u32 = 5;

impl Source for Files {
    /// A walk is no picture of one moment: of a rotation under way it may show the new file and miss the old one, under
    /// either name. So it is walked again until nothing new is found, and nothing of it is read before.
    fn discover(&mut self) -> Vec<Met> {
        let mut met = std::mem::take(&mut self.late);
        self.copies.begin_round();
        self.watch.begin_search();
        self.named_twice = false;
        for _ in 0..MOST_WALKS {
            let before = met.len();
            self.walk(&mut met);
            // Whatever an earlier walk missed is read whole rather than not at all.
            self.at_end = false;
            if met.len() == before {
                break;
            }
        }
        self.watch.end_search();
        let now = Instant::now();
        for file in self.open.values_mut() {
            file.plain.end_search(now);
        }
        self.tend_copies(&mut met, now);
        // Birth times are as coarse as the kernel's tick: of two files of one tick the one written last is the younger.
        met.sort_by_cached_key(|met| {
            (met.age, self.open.get(&met.handle).map(|file| file.plain.tie()))
        });
        met
    }

    fn seek(&mut self, wanted: &Descriptor) -> Option<Met> {
        let Descriptor::File(wanted) = wanted else { return None };
        let path = identity::path_of(wanted);
        let set = self.sets.iter().position(|set| set.matches(&path))?;
        let found = identity::find_sibling(wanted, &path)?;
        let met = match self.seek_packed(set, &found).ok()? {
            Sought::Ordinary => self.take(set, &found).ok().flatten()?,
            Sought::Packed(met) => *met,
            Sought::Waiting => return None,
        };
        let file = &mut self.open.get_mut(&met.handle)?.plain;
        if !self.sets.iter().any(|set| set.matches(&found)) {
            file.begin_search();
            file.end_search(Instant::now());
        }
        let lineage_key = self.sets.get(set)?.lineage_path(&path);
        Some(Met { lineage_key: lineage_key.into_os_string().into_encoded_bytes(), ..met })
    }

    fn is_reachable(&self, wanted: &Descriptor) -> bool {
        let Descriptor::File(wanted) = wanted else { return false };
        // Of a path that no table names any more, absence means nothing.
        let path = identity::path_of(wanted);
        self.sets.iter().any(|set| set.matches(&path))
            && !self.copies.may_hold(&path)
            && identity::folder_is_there(wanted)
    }

    fn fit(&mut self, handle: Handle, known: Known<'_>) -> io::Result<Fit> {
        let Descriptor::File(registered) = known.descriptor else { return Ok(Fit::No) };
        let file = self.opened(handle)?;
        let now = file.describe()?;
        let head_matches = file.head_matches(registered)?;
        let packed = file.packed.is_some();
        let fit = match (identity::same_file(registered, &now, known.own), head_matches) {
            (true, false) => return Ok(Fit::Rewritten),
            (true, true) => {
                if let (Some(packed), Ok(seen)) = (&mut file.packed, u64::try_from(known.seen)) {
                    packed.was_as_long_as(seen);
                }
                Fit::Exact
            }
            (false, _) if packed => {
                let entry = Expected::of(registered, &known);
                let copy = self.is_copy_of(handle, &entry, known.own)?;
                return Ok(if copy { Fit::ByContent } else { Fit::No });
            }
            (false, _) => match registered.compare(&now, head_matches) {
                FileMatch::ByContent if known.mark >= plain::FULL_TAIL => Fit::ByContent,
                _ => return Ok(Fit::No),
            },
        };
        // The core has no hash where nothing was shipped yet.
        let unknown = known.tail_hash == 0 && known.mark > 0;
        match (self.check_tail(handle, known.mark, known.tail_hash)?, fit) {
            (Tail::Same, fit) => Ok(fit),
            (Tail::Differs, Fit::Exact) if unknown => Ok(Fit::Exact),
            (_, Fit::Exact) => Ok(Fit::Rewritten),
            _ => Ok(Fit::No),
        }
    }

    fn describe(&mut self, handle: Handle) -> io::Result<Descriptor> {
        Ok(Descriptor::File(self.opened(handle)?.describe()?))
    }

    fn check_tail(&mut self, handle: Handle, position: u128, tail_hash: u64) -> io::Result<Tail> {
        match self.known_tail(handle, position) {
            Some(known) if known == tail_hash => Ok(Tail::Same),
            Some(_) => Ok(Tail::Differs),
            None => self.view(handle, |bytes| bytes.check_tail(position, tail_hash)),
        }
    }

    fn tail_hash(&mut self, handle: Handle, position: u128) -> io::Result<u64> {
        match self.known_tail(handle, position) {
            Some(known) => Ok(known),
            None => self.view(handle, |bytes| bytes.tail_hash(position)),
        }
    }

    fn look(&mut self, handle: Handle, position: u128, tail_hash: u64) -> io::Result<Seen> {
        let hold = self.hold;
        if let Some(file) = self.open.get_mut(&handle) {
            file.looked_at = (position, tail_hash);
            if file.packed.is_some() {
                return file.look_packed(position, hold);
            }
        }
        let parked = self.open.get_mut(&handle).filter(|file| file.plain.is_parked());
        match parked.and_then(|file| file.plain.glance(hold)) {
            Some(look) if look.unlinked && look.end > position => {
                return Ok(Seen::Broken(GapReason::Removed));
            }
            Some(look) if look.end >= position => return Ok(Seen::Live(look)),
            _ => {}
        }
        self.opened(handle)?.plain.look(position, tail_hash, hold)
    }

    fn read(
        &mut self,
        handle: Handle,
        position: u128,
        tail_hash: u64,
        limits: &CutLimits,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Read> {
        if self.is_final(handle) {
            self.approach(handle, position)?;
        }
        let OpenFile { plain, packed, reader, .. } = self.opened(handle)?;
        let read = match packed {
            Some(packed) => {
                let view = packed.view(plain.file()?);
                reader.read(&view, position, tail_hash, limits, buffer)
            }
            None => reader.read(plain, position, tail_hash, limits, buffer),
        };
        let replaced = reader.replaced();
        self.replaced += replaced;
        read
    }

    fn replaced(&mut self) -> u64 {
        std::mem::take(&mut self.replaced)
    }

    fn listen(&mut self) -> bool {
        let heard = self.watch.hear();
        let mut unclear = heard.unclear || heard.names.iter().any(|path| self.names(path));
        for path in &heard.changed {
            unclear |= self.heard(path);
        }
        unclear
    }

    fn is_watched(&self) -> bool {
        let waits = !self.late.is_empty() || !self.copies.is_settled();
        self.watch.is_complete() && !self.named_twice && !waits
    }

    /// What a spool has written is readable when it is synced, a moment later.
    fn grows_unseen(&self, handle: Handle) -> bool {
        self.open.get(&handle).is_some_and(|file| file.plain.segment().is_some())
    }

    fn expect(&mut self, known: Vec<Expected>) {
        self.expect_known(known);
    }

    fn is_final(&self, handle: Handle) -> bool {
        self.open.get(&handle).is_some_and(|file| file.packed.is_some())
    }

    fn awaits(&self, handle: Handle) -> bool {
        self.awaits_copy(handle)
    }

    fn lost_from(&self, handle: Handle) -> Option<u128> {
        self.open.get(&handle)?.packed.as_ref()?.lost_from().map(u128::from)
    }

    fn take_copy(&mut self, handle: Handle, position: u128) -> Copied {
        self.replace_by_copy(handle, position)
    }

    /// The core registered the original under the name it had before it was rotated.
    fn sought(&mut self, handle: Handle) -> io::Result<Descriptor> {
        let file = self.opened(handle)?;
        let mut descriptor = file.describe()?;
        if file.packed.is_some() {
            let original = identity::unrotated(file.plain.path());
            descriptor.path = original.into_os_string().into_encoded_bytes();
        }
        Ok(Descriptor::File(descriptor))
    }

    fn changed(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.changed)
    }

    fn reload(&mut self, files: Vec<FileSet>) {
        self.sets = files;
        self.reported.clear();
        for file in self.open.values_mut() {
            let set = self.sets.iter().find(|set| set.matches(file.plain.path()));
            if let Some(set) = set.or_else(|| self.sets.iter().find(|set| set.name == file.source))
            {
                file.source = set.name.clone();
                file.reader.set_rules(set.rules.clone());
            }
        }
    }

    /// The first table whose globs name the file; one that left its globs stays with its table.
    fn place(&self, handle: Handle) -> Option<Place> {
        let file = self.open.get(&handle)?;
        let named = self.sets.iter().find(|set| set.matches(file.plain.path()));
        let own = || {
            let own = self.sets.iter().find(|set| set.name == file.source);
            own.filter(|_| !file.plain.has_name())
        };
        let set = named.or_else(own)?;
        Some(Place {
            source: set.name.clone(),
            stream: set.stream.clone(),
            max_record: set.max_record,
            flush_partial: set.flush_after(),
        })
    }

    fn finished(&mut self, handle: Handle) -> io::Result<()> {
        let segment = self.open.get(&handle).and_then(|file| file.plain.segment());
        segment.map_or(Ok(()), |(spool, number)| spool.remove(number))
    }

    fn spools(&self) -> Vec<SpoolStatus> {
        let spools = self.sets.iter().filter_map(|set| Some((set.spool.as_ref()?, &set.stream)));
        spools.map(|(spool, stream)| spool.status(stream)).collect()
    }

    fn close(&mut self, handle: Handle) {
        if let Some(file) = self.open.remove(&handle) {
            self.orphan_copies(handle, file.is_idle());
            let key = file.plain.key();
            if self.by_key.get(&key) == Some(&handle) {
                self.by_key.remove(&key);
            }
        }
        self.budget.remove(handle);
    }

    fn label(&self, handle: Handle) -> String {
        self.open
            .get(&handle)
            .map(|file| file.plain.path().display().to_string())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::StartAt;
    use crate::source::file::HOLD;
    use garam_proto::{SourceName, StreamName};

    #[test]
    fn files_born_in_one_tick_are_met_in_the_order_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = std::time::SystemTime::now();
        let paths: Vec<PathBuf> =
            (0..100).rev().map(|number| folder.path().join(format!("a.log.{number}"))).collect();
        for (second, path) in (0..).zip(&paths) {
            let file = std::fs::File::create(path).unwrap();
            file.set_modified(written + Duration::from_secs(second)).unwrap();
        }
        let (name, stream) = (SourceName::new("a").unwrap(), StreamName::new("a").unwrap());
        let glob = format!("{}/*", folder.path().display());
        let set = FileSet::new(name, stream, &[glob], &[], StartAt::Beginning, 1024).unwrap();
        let mut files = Files::new(vec![set], true, HOLD, 10);
        let met: Vec<PathBuf> =
            files.discover().iter().map(|met| files.label(met.handle).into()).collect();
        assert_eq!(met, paths);
    }
}
