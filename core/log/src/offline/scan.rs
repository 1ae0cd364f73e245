//! Walks a partition's files entry by entry, goes on behind what cannot be read, and works out what was lost there.
//!
//! In: a partition's folder, of a live log or a stopped one. Out: [`Survey`]: every segment as stretches of sound entries and
//! of lost ones, and for each lost entry number a [`LossRecord`] that may stand in its place.
//! Promise: nothing is written. An entry counts as sound when both checksums are good, its number is the expected one and
//! it follows by the fold; behind a lost stretch the fold is set right from what later entries and the next segment's
//! snapshot prove, and from nothing else. What cannot be set right is said ([`Survey::hopeless`]), never guessed.
//!
//! ```text
//! segment   header ✓ snapshot ✓ entry 7 ✓ ░░░░░░░░░░ entry 10 ✓ entry 11 ✓      next segment's snapshot
//!                                         lost: 8, 9    │ block of origin A, from 900      │ origin B: mark 50
//!                                                       └─ A's mark was 700: [700, 900) is lost; B's was 20: [20, 50)
//! ```
//!
//! Not here: what is told of it (`verify`), what is done about it (`repair`).

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_disk::DiskFile;
use garam_proto::{Incarnation, PartitionId};

use super::mend;
use crate::api::{Fingerprint, LogError};
use crate::embedded::Env;
use crate::embedded::directory::partition_dir;
use crate::embedded::entry::{self, PREFIX_LEN, Prefix};
use crate::embedded::recovery::{self, io};
use crate::embedded::segment::{self, HEADER_LEN, SegmentError, SegmentHeader, SnapshotHeader};
use crate::embedded::walk::{Found, Walk, WalkError};
use crate::fold::{Fold, LossRecord, Record};

/// How much is read at a time while searching for the next entry.
const SEARCH_CHUNK: usize = 1024 * 1024;

/// A partition as it was found.
pub(crate) struct Survey {
    pub incarnation: Incarnation,
    pub ancestors: Vec<(Incarnation, u64)>,
    pub segments: Vec<Surveyed>,
    pub runs: Vec<Run>,
    /// One past the last sound entry.
    pub end: u64,
    pub entries: u64,
    /// Behind the last entry, never acknowledged: where in the newest file, and why it is no entry.
    pub torn: Option<(u64, String)>,
    /// Why this partition cannot be repaired.
    pub hopeless: Option<String>,
    /// As it stands at the end.
    pub fold: Fold,
    pub fingerprint: Fingerprint,
}

/// One segment file.
pub(crate) struct Surveyed {
    pub base: u64,
    pub path: PathBuf,
    pub bytes: u64,
    pub salt: u64,
    /// As stored, or as it has to be where the file's own cannot be read.
    pub header: SegmentHeader,
    pub snapshot: SnapshotHeader,
    /// Header and snapshot can be read.
    pub is_intact: bool,
    /// The state at the base, when the snapshot can be read and the header cannot.
    pub salvaged: Option<Fold>,
    /// Nothing in it can be used: its state at the base is known to nobody.
    pub is_lost: bool,
    pub parts: Vec<Part>,
}

/// A stretch of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes of entries that stay.
    Sound(Range<u64>),
    /// The number of a [`Run`].
    Lost(usize),
}

/// Entry numbers that cannot be read any more, one behind the other.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub file: PathBuf,
    pub bytes: Range<u64>,
    pub offsets: Range<u64>,
    pub why: String,
    /// What stands in their place, in order; the rest become entries that move nothing.
    pub losses: Vec<LossRecord>,
    /// It reaches to the end of the partition: nothing has to stand there.
    pub is_tail: bool,
}

impl Survey {
    /// The first number that is still held.
    pub(crate) fn start(&self) -> u64 {
        let first = self.segments.iter().find(|segment| !segment.is_lost);
        first.map_or(self.end, |segment| segment.base)
    }
}

impl Run {
    pub(crate) fn free(&self) -> u64 {
        (self.offsets.end - self.offsets.start).saturating_sub(self.losses.len() as u64)
    }
}

/// Surveys one partition. `progress` is told the bytes of each file when it is done.
pub(crate) fn survey(
    env: &Env,
    dir: &Path,
    id: &PartitionId,
    progress: &mut dyn FnMut(u64),
) -> Result<Survey, LogError> {
    let folder = partition_dir(dir, id);
    let named = recovery::list(env, &folder)?;
    let mut scan = Scan {
        env,
        survey: Survey {
            incarnation: Incarnation::NIL,
            ancestors: Vec::new(),
            segments: Vec::new(),
            runs: Vec::new(),
            end: 0,
            entries: 0,
            torn: None,
            hopeless: None,
            fold: Fold::default(),
            fingerprint: Fingerprint(0),
        },
        carried: None,
        pending: Vec::new(),
    };
    for (index, (base, path)) in named.iter().enumerate() {
        let ahead = named.get(index + 1..).unwrap_or_default();
        let bytes = scan.segment(*base, path, ahead)?;
        progress(bytes);
    }
    if let Some(carried) = scan.carried {
        scan.survey.end = carried.next;
        scan.survey.fold = carried.fold;
        scan.survey.fingerprint = carried.fingerprint;
    }
    Ok(scan.survey)
}

/// The state in front of the next entry.
struct Carried {
    fold: Fold,
    next: u64,
    fingerprint: Fingerprint,
}

struct Scan<'a> {
    env: &'a Env,
    survey: Survey,
    carried: Option<Carried>,
    /// Runs that no later snapshot has settled yet.
    pending: Vec<usize>,
}

/// A segment's beginning, as far as it can be read.
struct Front {
    header: Option<SegmentHeader>,
    salt: u64,
    /// Snapshot header and state at the base.
    snapshot: Option<(SnapshotHeader, Fold)>,
    entries_at: u64,
    /// What is wrong with it.
    broken: Option<(u64, String)>,
}

impl Scan<'_> {
    /// Takes in one segment; `ahead` are those behind it. Returns its bytes.
    fn segment(
        &mut self,
        base: u64,
        path: &Path,
        ahead: &[(u64, PathBuf)],
    ) -> Result<u64, LogError> {
        let file = match self.env.fs.open(path) {
            // A live core has trimmed it since the folder was listed.
            Err(e)
                if e.kind() == std::io::ErrorKind::NotFound && self.survey.segments.is_empty() =>
            {
                return Ok(0);
            }
            file => file.map_err(|e| io("open", path, e))?,
        };
        let size = file.size().map_err(|e| io("read", path, e))?;
        let front = front(&file, base, size, path)?;
        if let Some(carried) = &self.carried
            && carried.next < base
        {
            // Whole numbers are missing between the segments: they belong to the one before.
            let offsets = carried.next..base;
            let before = self.survey.segments.len().saturating_sub(1);
            self.lose(before, size..size, offsets, "the file that held them is missing".into());
            if let Some(carried) = &mut self.carried {
                carried.next = base;
            }
        }
        if let Some((at, why)) = &front.broken {
            let is_lost = front.snapshot.is_none() && self.carried.is_none();
            let end = ahead.first().map_or(base, |(base, _)| *base);
            let run = Run {
                file: path.to_path_buf(),
                bytes: *at..front.entries_at.max(*at),
                offsets: base..if is_lost { end } else { base },
                why: why.clone(),
                losses: Vec::new(),
                is_tail: false,
            };
            self.survey.runs.push(run);
        }
        let newest = ahead.is_empty();
        let Some(mut surveyed) = self.begin(base, path, size, &front, ahead) else {
            return Ok(size);
        };
        let mut position = front.entries_at;
        let number = self.survey.segments.len();
        let salt = surveyed.salt;
        surveyed.parts.clear();
        let durable_to = front.snapshot.as_ref().map_or(0, |(snapshot, _)| snapshot.durable_to);
        self.survey.segments.push(surveyed);
        let mut walk = Walk::new(file.clone(), salt, position);
        loop {
            let next = self.carried.as_ref().map_or(base, |carried| carried.next);
            if ahead.first().is_some_and(|(following, _)| *following == next) {
                // Everything up to the next segment is there; room that was taken in advance may follow.
                break;
            }
            let broken = match walk.step(size, true) {
                Ok(None) => break,
                Ok(Some(found)) if found.prefix.offset == next => {
                    match self.take(found.prefix, &found.header, ahead)? {
                        Ok(()) => {
                            self.sound(number, found.at..walk.at());
                            position = walk.at();
                            continue;
                        }
                        Err(why) => Broken { why, behind: walk.at(), known: None, whole: true },
                    }
                }
                Ok(Some(found)) => Broken {
                    why: format!("the entry says it is {}, not {next}", found.prefix.offset),
                    behind: found.at,
                    known: None,
                    whole: true,
                },
                Err(WalkError::Io(error)) => return Err(io("read", path, error)),
                Err(WalkError::Broken { why, .. }) => {
                    // Only the payload, when the header still says whose it was.
                    let mut head = Walk::new(file.clone(), salt, position);
                    let known = head.step(size, false).ok().flatten();
                    let known = known.filter(|found| found.prefix.offset == next);
                    let behind = known.as_ref().map_or(position + 1, |_| head.at());
                    Broken { why, behind, known, whole: false }
                }
            };
            if newest && !broken.whole {
                let (again, is_damage) =
                    self.doubt(path, salt, durable_to, next, position, &file)?;
                if again {
                    walk = Walk::new(file.clone(), salt, position);
                    continue;
                }
                if !is_damage {
                    self.survey.torn = Some((position, broken.why));
                    break;
                }
            }
            if let Some(found) = &broken.known
                && self.lose_payload(number, found, broken.behind, &broken.why, ahead)?
            {
                position = broken.behind;
                walk = Walk::new(file.clone(), salt, position);
                continue;
            }
            let until = ahead.first().map_or(u64::MAX, |(base, _)| *base);
            let found = find_next(&*file, salt, broken.behind, size, next..until)
                .map_err(|e| io("read", path, e))?;
            let Some((at, offset)) = found else {
                let end = ahead.first().map_or(next.max(durable_to), |(base, _)| *base);
                let run = self.lose(number, position..size, next..end, broken.why);
                if ahead.is_empty() {
                    self.cut(run);
                } else if let Some(carried) = &mut self.carried {
                    carried.next = end;
                }
                break;
            };
            self.lose(number, position..at, next..offset, broken.why);
            if let Some(carried) = &mut self.carried {
                carried.next = offset;
            }
            position = at;
            walk = Walk::new(file.clone(), salt, position);
        }
        // A sealed segment that ends too early has lost its end.
        if let (Some((following, _)), Some(carried)) = (ahead.first(), &self.carried)
            && carried.next < *following
        {
            let offsets = carried.next..*following;
            self.lose(number, size..size, offsets, "the segment ends before the next one".into());
            if let Some(carried) = &mut self.carried {
                carried.next = *following;
            }
        }
        Ok(size)
    }

    /// Settles what is pending by the segment's snapshot, or carries the state on where it has none.
    fn begin(
        &mut self,
        base: u64,
        path: &Path,
        bytes: u64,
        front: &Front,
        ahead: &[(u64, PathBuf)],
    ) -> Option<Surveyed> {
        let mut is_lost = false;
        match (&front.snapshot, &mut self.carried) {
            (Some((snapshot, at_base)), Some(carried)) => {
                let mut wrong = None;
                carried.fold.forget(snapshot.forgot_before_ms);
                let branches = front
                    .header
                    .is_some_and(|header| header.incarnation != self.survey.incarnation);
                let follows = if branches {
                    carried.fold.is_restated_by(at_base)
                } else {
                    carried.fold == *at_base
                };
                if !follows {
                    let pending = std::mem::take(&mut self.pending);
                    let losses = mend::settle(&carried.fold, at_base);
                    let placed = losses.and_then(|losses| {
                        mend::place(&mut self.survey.runs, &pending, losses.clone())?;
                        for loss in losses {
                            carried.fold.replay(&Record::Loss(Box::new(loss)))?;
                        }
                        carried.fold.forget(snapshot.forgot_before_ms);
                        if carried.fold == *at_base || branches {
                            return Ok(());
                        }
                        Err("source epochs were lost that no origin proves".to_owned())
                    });
                    wrong = placed.err();
                } else if self.pending.is_empty() && carried.fingerprint.0 != snapshot.fingerprint {
                    wrong = Some("it does not follow from the segment before it".to_owned());
                }
                self.pending.clear();
                carried.fold = at_base.clone();
                carried.next = base;
                carried.fingerprint = Fingerprint(snapshot.fingerprint);
                if let Some(why) = wrong {
                    self.give_up(path, base, why);
                }
            }
            (Some((snapshot, at_base)), None) => {
                self.carried = Some(Carried {
                    fold: at_base.clone(),
                    next: base,
                    fingerprint: Fingerprint(snapshot.fingerprint),
                });
            }
            (None, Some(_)) => {}
            (None, None) => is_lost = true,
        }
        if front.header.is_none() && self.survey.incarnation == Incarnation::NIL {
            // The oldest segment's life is that of the one behind it.
            let later =
                ahead.iter().find_map(|(_, path)| segment::open(&*self.env.fs, path, None).ok());
            if let Some(later) = later {
                self.survey.incarnation = later.header.incarnation;
                self.survey.ancestors.clone_from(&later.snapshot.ancestors);
            }
        }
        let before = self.survey.segments.last();
        let header = front.header.unwrap_or_else(|| SegmentHeader {
            base,
            incarnation: self.survey.incarnation,
            salt: front.salt,
            clock_ms: before.map_or(0, |before| before.header.clock_ms),
        });
        let snapshot = front.snapshot.as_ref().map(|(snapshot, _)| snapshot.clone());
        let snapshot = snapshot.unwrap_or_else(|| SnapshotHeader {
            ancestors: self.survey.ancestors.clone(),
            fingerprint: 0,
            durable_to: base,
            forgot_before_ms: before.map_or(0, |before| before.snapshot.forgot_before_ms),
            epochs: 0,
            origins: 0,
        });
        if !is_lost {
            self.survey.incarnation = header.incarnation;
            self.survey.ancestors.clone_from(&snapshot.ancestors);
        }
        let surveyed = Surveyed {
            base,
            path: path.to_path_buf(),
            bytes,
            salt: front.salt,
            header,
            snapshot,
            is_intact: front.broken.is_none(),
            salvaged: front
                .snapshot
                .as_ref()
                .filter(|_| front.broken.is_some())
                .map(|(_, fold)| fold.clone()),
            is_lost,
            parts: Vec::new(),
        };
        if is_lost {
            self.survey.segments.push(surveyed);
            return None;
        }
        Some(surveyed)
    }

    /// Moves the state past an entry with good checksums; sets right before what a lost stretch left wrong.
    fn take(
        &mut self,
        prefix: Prefix,
        header: &[u8],
        ahead: &[(u64, PathBuf)],
    ) -> Result<Result<(), String>, LogError> {
        let Some(carried) = &mut self.carried else { return Ok(Err("nothing precedes it".into())) };
        let record = match entry::decode(prefix.kind, header, prefix.payload_len) {
            Ok(record) => record,
            Err(why) => return Ok(Err(why)),
        };
        if let Err(why) = carried.fold.replay(&record) {
            let hint = if carried.fold.get(record.origin()).is_none() && !self.pending.is_empty() {
                later_snapshot(self.env, ahead)
            } else {
                None
            };
            let mended = mend::needed(&record, &carried.fold, hint.as_ref()).ok_or(why);
            let mended = mended.and_then(|loss| {
                mend::place(&mut self.survey.runs, &self.pending, vec![loss.clone()])?;
                carried.fold.replay(&Record::Loss(Box::new(loss)))?;
                carried.fold.replay(&record).map(|_| ())
            });
            if let Err(why) = mended {
                return Ok(Err(why));
            }
        }
        carried.next += 1;
        carried.fingerprint = entry::fingerprint(header, prefix.payload_crc);
        self.survey.entries += 1;
        Ok(Ok(()))
    }

    /// A block whose header is good: exactly its range is lost. False when it does not even follow.
    fn lose_payload(
        &mut self,
        number: usize,
        found: &Found,
        behind: u64,
        why: &str,
        ahead: &[(u64, PathBuf)],
    ) -> Result<bool, LogError> {
        let before = self.carried.as_ref().map_or(Fingerprint(0), |carried| carried.fingerprint);
        if self.take(found.prefix, &found.header, ahead)?.is_err() {
            return Ok(false);
        }
        self.survey.entries -= 1;
        let Some(carried) = &mut self.carried else { return Ok(false) };
        carried.fingerprint = before;
        let decoded = entry::decode(found.prefix.kind, &found.header, found.prefix.payload_len);
        let Ok(record) = decoded else { return Ok(false) };
        let offset = found.prefix.offset;
        let run = self.lose(number, found.at..behind, offset..offset + 1, why.to_owned());
        // Its one place is taken by what is known of it, so nothing else may be put there.
        if let (Some(carried), Some(run)) = (&self.carried, self.survey.runs.get_mut(run)) {
            run.losses.extend(mend::of_known(&record, &carried.fold));
        }
        Ok(true)
    }

    fn lose(
        &mut self,
        number: usize,
        bytes: Range<u64>,
        offsets: Range<u64>,
        why: String,
    ) -> usize {
        let run = self.survey.runs.len();
        let Some(segment) = self.survey.segments.get_mut(number) else { return run };
        segment.parts.push(Part::Lost(run));
        let (file, losses) = (segment.path.clone(), Vec::new());
        self.survey.runs.push(Run { file, bytes, offsets, why, losses, is_tail: false });
        self.pending.push(run);
        run
    }

    fn sound(&mut self, number: usize, bytes: Range<u64>) {
        let Some(segment) = self.survey.segments.get_mut(number) else { return };
        match segment.parts.last_mut() {
            Some(Part::Sound(before)) if before.end == bytes.start => before.end = bytes.end,
            _ => segment.parts.push(Part::Sound(bytes)),
        }
    }

    /// A run at the very end needs nothing in its place: the marks say where agents go on.
    fn cut(&mut self, run: usize) {
        self.pending.retain(|&pending| pending != run);
        if let Some(run) = self.survey.runs.get_mut(run) {
            run.is_tail = true;
        }
    }

    fn give_up(&mut self, path: &Path, base: u64, why: String) {
        let run = Run {
            file: path.to_path_buf(),
            bytes: 0..0,
            offsets: base..base,
            why: why.clone(),
            losses: Vec::new(),
            is_tail: false,
        };
        self.survey.runs.push(run);
        self.survey.hopeless.get_or_insert(why);
    }

    /// A bad entry in the newest segment: was it durable once, or is a live writer just putting it there?
    fn doubt(
        &self,
        path: &Path,
        salt: u64,
        durable_to: u64,
        end: u64,
        end_at: u64,
        file: &Arc<dyn DiskFile>,
    ) -> Result<(bool, bool), LogError> {
        let is_damage = recovery::was_durable(self.env, path, (salt, durable_to), (end, end_at))?;
        let mut again = Walk::new(file.clone(), salt, end_at);
        let size = file.size().map_err(|e| io("read", path, e))?;
        let good_now = matches!(again.step(size, true), Ok(Some(found)) if found.prefix.offset == end)
            && size > end_at;
        Ok((good_now && is_damage, is_damage))
    }
}

/// Why the walk stopped, and where it may go on.
struct Broken {
    why: String,
    behind: u64,
    /// The entry, when only its payload is bad.
    known: Option<Found>,
    /// Its checksums are good, but it does not follow: no crash leaves such an entry.
    whole: bool,
}

/// Reads header and snapshot, each as far as it can be read.
fn front(file: &Arc<dyn DiskFile>, base: u64, size: u64, path: &Path) -> Result<Front, LogError> {
    match segment::open_file(file.clone(), Some(size)).and_then(|opened| {
        let fold = opened.fold()?;
        Ok((opened, fold))
    }) {
        Ok((opened, fold)) if opened.header.base == base => Ok(Front {
            header: Some(opened.header),
            salt: opened.header.salt,
            entries_at: opened.entries_at(),
            snapshot: Some((opened.snapshot, fold)),
            broken: None,
        }),
        Ok(_) => {
            let why = "its name and base differ".to_owned();
            Ok(Front {
                header: None,
                salt: 0,
                snapshot: None,
                entries_at: size,
                broken: Some((0, why)),
            })
        }
        Err(SegmentError::Newer(found)) => Err(recovery::newer(path, found)),
        Err(SegmentError::Io(error)) => Err(io("read", path, error)),
        Err(SegmentError::Broken { at, why }) => {
            salvage(file, base, size, (at, why)).map_err(|e| io("read", path, e))
        }
    }
}

/// What can still be read of a segment whose header or snapshot cannot.
fn salvage(
    file: &Arc<dyn DiskFile>,
    base: u64,
    size: u64,
    broken: (u64, String),
) -> std::io::Result<Front> {
    let mut bytes = [0; HEADER_LEN];
    let read = file.read_full_at(&mut bytes, 0)?;
    let header = SegmentHeader::parse(&bytes).ok().filter(|header| header.base == base);
    let salt =
        bytes.get(40..48).and_then(|salt| salt.try_into().ok()).map_or(0, u64::from_le_bytes);
    let mut front = Front { header, salt, snapshot: None, entries_at: size, broken: Some(broken) };
    if read < HEADER_LEN {
        return Ok(front);
    }
    // The snapshot behind the header tells which salt it was: as it stands, or with one bit flipped.
    for salt in std::iter::once(salt).chain((0..64).map(|bit| salt ^ (1 << bit))) {
        let mut walk = Walk::new(file.clone(), salt, HEADER_LEN as u64);
        if let Ok(Some(found)) = walk.step(size, false)
            && found.prefix.kind == entry::SNAPSHOT
            && found.prefix.offset == base
        {
            front.salt = salt;
            if let Some(snapshot) = segment::snapshot_of(&walk, &found) {
                front.entries_at = walk.at();
                front.snapshot = Some(snapshot);
                return Ok(front);
            }
            break;
        }
    }
    let salt = front.salt;
    let until = base..u64::MAX;
    if let Some((at, _)) = find_entry(&**file, salt, HEADER_LEN as u64, size, until)? {
        front.entries_at = at;
    }
    Ok(front)
}

/// The state a later segment begins with: what the newest entries of lost registrations were about.
fn later_snapshot(env: &Env, ahead: &[(u64, PathBuf)]) -> Option<Fold> {
    ahead.iter().find_map(|(_, path)| segment::open(&*env.fs, path, None).ok()?.fold().ok())
}

/// The next entry behind a bad one whose header is good, with a number in `numbers` but the first.
fn find_next(
    file: &dyn DiskFile,
    salt: u64,
    from: u64,
    size: u64,
    numbers: Range<u64>,
) -> std::io::Result<Option<(u64, u64)>> {
    find_entry(file, salt, from, size, numbers.start.saturating_add(1)..numbers.end)
}

fn find_entry(
    file: &dyn DiskFile,
    salt: u64,
    from: u64,
    size: u64,
    numbers: Range<u64>,
) -> std::io::Result<Option<(u64, u64)>> {
    let mut chunk = vec![0; SEARCH_CHUNK];
    let mut at = from;
    while at < size {
        let filled = file.read_full_at(&mut chunk, at)?;
        let bytes = chunk.get(..filled).unwrap_or_default();
        for (i, _) in bytes.windows(4).enumerate().filter(|(_, w)| *w == b"GRe1") {
            let here = at + i as u64;
            if let Some(offset) = entry_at(file, salt, here, size)?
                && numbers.contains(&offset)
            {
                return Ok(Some((here, offset)));
            }
        }
        if filled < SEARCH_CHUNK {
            break;
        }
        at += (SEARCH_CHUNK - 3) as u64;
    }
    Ok(None)
}

/// The number of the entry whose prefix and header stand at `at`, if one does.
fn entry_at(file: &dyn DiskFile, salt: u64, at: u64, size: u64) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; PREFIX_LEN];
    if file.read_full_at(&mut bytes, at)? < PREFIX_LEN {
        return Ok(None);
    }
    let Ok(prefix) = Prefix::parse(&bytes) else { return Ok(None) };
    let fits = at.checked_add(prefix.total_len()).is_some_and(|end| end <= size);
    if !fits || prefix.kind == entry::SNAPSHOT {
        return Ok(None);
    }
    let mut header = vec![0; prefix.header_len as usize];
    file.read_full_at(&mut header, at + PREFIX_LEN as u64)?;
    Ok(prefix.covers(salt, &bytes, &header).then_some(prefix.offset))
}
