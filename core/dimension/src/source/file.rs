//! A file, looked at by what the system says of it and read when that has changed.
//!
//! Promise: what is read was one whole file all the time. What the system says (device, inode, size, times) is the same before and
//! after, of the path and of the file that was opened under it; where it is not, the reading begins again. A file that changed a
//! moment ago is left alone until it rests: a later change within one tick of its clock would not show.
//! Not here: a file that is written in place, slowly, and rests half-way. Where its last line has no end that is noticed.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use garam_stage::{DimensionSource, Failure, Told, Wanted};

use super::{json, lines};
use crate::config::{DimensionPlan, FileConfig, FileFormat, SourcePlan};
use crate::error::DimensionError;
use crate::gather::Limits;
use crate::shape::Shape;

/// How long a file must not have changed before it is read.
const REST: Duration = Duration::from_secs(1);
/// How often a reading begins again, and how often in a row a file may be found changing.
const TRIES: u32 = 5;
const RESTLESS: u32 = 60;

/// What the system says of a file. Another file, or another content, says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file that is replaced by renaming another one over it.
pub struct FileSource {
    config: FileConfig,
    shape: Shape,
    limits: Limits,
    rest: Duration,
    /// Of what was read last.
    read: Option<Stamp>,
    /// How often in a row it was found changing.
    restless: u32,
}

impl FileSource {
    pub(crate) fn new(config: FileConfig, shape: Shape, limits: Limits) -> Self {
        Self { config, shape, limits, rest: REST, read: None, restless: 0 }
    }

    /// One that does not wait until its file rests, for files that are only ever replaced by renaming; `None` for other sources.
    pub fn impatient(plan: &DimensionPlan) -> Option<Self> {
        let SourcePlan::File(config) = &plan.source else { return None };
        let source = Self::new(config.clone(), plan.shape.clone(), plan.limits());
        Some(Self { rest: Duration::ZERO, ..source })
    }

    fn stamp(&self) -> Result<Stamp, DimensionError> {
        let told = std::fs::metadata(&self.config.path).map_err(|source| self.failed(source))?;
        if !told.is_file() {
            return Err(DimensionError::NoFile { path: self.config.path.clone() });
        }
        Ok(Stamp::of(&told))
    }

    fn failed(&self, source: std::io::Error) -> DimensionError {
        DimensionError::File { path: self.config.path.clone(), source }
    }

    fn look(&mut self, wanted: Wanted) -> Result<Told, DimensionError> {
        let stamp = self.stamp()?;
        if wanted == Wanted::IfChanged && self.read == Some(stamp) {
            return Ok(Told::Unchanged);
        }
        if let Some(left) = stamp.restless_for(self.rest) {
            self.restless += 1;
            return match self.restless < RESTLESS {
                true => Ok(Told::Unsettled(left)),
                false => Err(DimensionError::Torn { path: self.config.path.clone() }),
            };
        }
        self.restless = 0;
        let (rows, stamp) = self.read_whole(&mut || {})?;
        self.read = Some(stamp);
        Ok(Told::Rows { rows, source_us: Some(stamp.modified_us()) })
    }

    /// Reads until nothing changed meanwhile. `meanwhile` runs in the middle of each reading.
    fn read_whole(
        &self,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(RecordBatch, Stamp), DimensionError> {
        for _ in 0..TRIES {
            let before = self.stamp()?;
            let file = File::open(&self.config.path).map_err(|source| self.failed(source))?;
            let opened = Stamp::of(&file.metadata().map_err(|source| self.failed(source))?);
            meanwhile();
            let read = self.parse(&file, opened);
            let ended = Stamp::of(&file.metadata().map_err(|source| self.failed(source))?);
            if before == opened && opened == ended && self.stamp()? == before {
                return Ok((read?, before));
            }
        }
        Err(DimensionError::Torn { path: self.config.path.clone() })
    }

    fn parse(&self, file: &File, stamp: Stamp) -> Result<RecordBatch, DimensionError> {
        let place = self.config.path.display().to_string();
        // Text takes more than columns; what is far beyond them is not even read.
        let most = self.limits.bytes.saturating_mul(4);
        if stamp.size > most {
            return Err(DimensionError::Bytes { place, limit: self.limits.bytes });
        }
        match self.config.format {
            FileFormat::Csv | FileFormat::Tsv => {
                lines::read(file, &self.config, &place, &self.shape, self.limits)
            }
            FileFormat::Json => {
                json::read(file, &self.config.path, &place, &self.shape, self.limits)
            }
        }
    }
}

#[async_trait]
impl DimensionSource for FileSource {
    fn label(&self) -> String {
        format!("file {}", self.config.path.display())
    }

    async fn read(&mut self, wanted: Wanted) -> Result<Told, Failure> {
        Ok(self.look(wanted)?)
    }
}

impl Stamp {
    fn of(told: &std::fs::Metadata) -> Self {
        Self {
            device: told.dev(),
            inode: told.ino(),
            size: told.size(),
            modified: (told.mtime(), told.mtime_nsec()),
            changed: (told.ctime(), told.ctime_nsec()),
        }
    }

    /// How long it has to rest still; `None`: it does, or its time lies ahead, where waiting leads nowhere.
    fn restless_for(&self, rest: Duration) -> Option<Duration> {
        let (seconds, nanos) = self.changed;
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        let age = SystemTime::now().duration_since(UNIX_EPOCH.checked_add(since)?).ok()?;
        rest.checked_sub(age).filter(|left| !left.is_zero())
    }

    fn modified_us(&self) -> i64 {
        let (seconds, nanos) = self.modified;
        seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &std::path::Path) -> FileSource {
        let text = format!(
            "key = \"id\"\n[columns]\nid = \"int not null\"\n[from.file]\npath = {path:?}\nformat = \"csv\"\n"
        );
        let config: crate::DimensionConfig = toml::from_str(&text).unwrap();
        FileSource::impatient(&config.check("d").unwrap()).unwrap()
    }

    /// What a reading tells when this happens once in its middle.
    fn read_while(happens: impl Fn(&std::path::Path)) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        std::fs::write(&path, "id\n1\n2\n").unwrap();
        let mut left = 1;
        let read = source(&path).read_whole(&mut || {
            if left > 0 {
                left -= 1;
                happens(&path);
            }
        });
        read.map(|(rows, _)| rows.num_rows()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_replaced_cut_or_grown_in_the_middle_is_read_again() {
        let replaced = |path: &std::path::Path| {
            let next = path.with_extension("next");
            std::fs::write(&next, "id\n1\n2\n3\n").unwrap();
            std::fs::rename(&next, path).unwrap();
        };
        assert_eq!(read_while(replaced), Ok(3));
        let cut = |path: &std::path::Path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(5).unwrap();
        };
        assert_eq!(read_while(cut), Ok(1));
        let grown = |path: &std::path::Path| std::fs::write(path, "id\n1\n2\n3\n4\n").unwrap();
        assert_eq!(read_while(grown), Ok(4));
        let gone = |path: &std::path::Path| std::fs::remove_file(path).unwrap();
        assert!(read_while(gone).unwrap_err().starts_with("cannot read"));
    }

    #[test]
    fn a_file_that_never_rests_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        std::fs::write(&path, "id\n1\n").unwrap();
        let mut rows = 1;
        let read = source(&path).read_whole(&mut || {
            rows += 1;
            let more: String = (0..rows).map(|id| format!("{id}\n")).collect();
            std::fs::write(&path, format!("id\n{more}")).unwrap();
        });
        assert!(read.unwrap_err().to_string().contains("kept changing while it was read"));
    }
}
