//! The last good snapshots of a dimension on disk: two generations, the older one in case the newer is damaged.
//!
//! ```text
//! DATA_DIR/dimensions/NAME/
//!   00000000000000000007.snapshot    a generation; the largest number that is whole counts
//!   next.partial                     being written: means nothing
//!
//!  0   8  "GARAMDIM"
//!  8   4  format, u32 LE: 1
//! 12   4  length of the header, u32 LE
//! 16   …  header, JSON: id, definition, rows, loaded_us, source_us
//!  …   …  rows (see `rows`)
//! -4   4  CRC32C of all before it, u32 LE
//! ```
//!
//! Promise: [`Store::keep`] returns once the new generation is durable under its name; until then, and after a crash at any
//! moment, the one before it is read back whole. A flipped, cut or foreign file is never taken for a snapshot. Rows of another
//! definition (columns, key, file or query) are not read back.
//! Not here: which plan still needs which snapshot.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garam_disk::Fs;
use garam_stage::{Snapshot, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::build::{Built, id};
use crate::config::DimensionPlan;
use crate::error::DimensionError;
use crate::gather::size;
use crate::rows;

const MAGIC: &[u8; 8] = b"GARAMDIM";
const FORMAT: u32 = 1;
const PARTIAL: &str = "next.partial";
const SUFFIX: &str = ".snapshot";
/// A cell takes at most so many times what it takes in memory, and the header is small.
const WIDER: usize = 16;
const HEADER: usize = 64 * 1024;

/// The folder of one dimension.
pub struct Store {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    plan: DimensionPlan,
    /// The largest number that any generation has or had.
    newest: u64,
    /// The generation that is known to be whole.
    good: Option<u64>,
}

/// What was found on disk.
#[derive(Debug)]
pub struct Restored {
    pub snapshot: Option<(Arc<Snapshot>, u64)>,
    /// Generations that could not be used, newest first.
    pub faults: Vec<DimensionError>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    id: String,
    /// Hash of columns, key, and file or query.
    definition: String,
    rows: u64,
    loaded_us: i64,
    source_us: Option<i64>,
}

impl Store {
    /// The folder of a dimension below `dimensions`; nothing is made yet.
    pub fn at(fs: Arc<dyn Fs>, dimensions: &Path, plan: &DimensionPlan) -> Self {
        let dir = dimensions.join(plan.name());
        Self { fs, dir, plan: plan.clone(), newest: 0, good: None }
    }

    /// The newest generation that is whole and of this definition.
    pub fn restore(&mut self) -> Result<Restored, DimensionError> {
        let mut generations = self.generations()?;
        generations.sort_unstable_by(|a, b| b.cmp(a));
        self.newest = generations.first().copied().unwrap_or(0);
        let mut faults = Vec::new();
        for generation in generations {
            match self.read(generation) {
                Ok(snapshot) => {
                    self.good = Some(generation);
                    return Ok(Restored { snapshot: Some(snapshot), faults });
                }
                Err(fault) => faults.push(fault),
            }
        }
        Ok(Restored { snapshot: None, faults })
    }

    /// Makes a snapshot the newest generation, durably. What is older than the one before it goes.
    pub fn keep(&mut self, built: &Built) -> Result<(), DimensionError> {
        let bytes = self.encode(built)?;
        let fs = Arc::clone(&self.fs);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DimensionError::Keep { path, source }
        };
        fs.create_dir(&self.dir).map_err(failed(&self.dir))?;
        let partial = self.dir.join(PARTIAL);
        let file = fs.create(&partial).map_err(failed(&partial))?;
        file.write_all_at(&bytes, 0).map_err(failed(&partial))?;
        file.sync().map_err(failed(&partial))?;
        // A number is used once, even if nobody knows whether its name came to be.
        self.newest += 1;
        let path = self.path(self.newest);
        fs.rename(&partial, &path).map_err(failed(&path))?;
        fs.sync_dir(&self.dir).map_err(failed(&self.dir))?;
        let before = self.good.replace(self.newest);
        self.clear(before);
        Ok(())
    }

    /// Removes all but the newest generation and the one before it. One that stays costs room, nothing else.
    fn clear(&self, before: Option<u64>) {
        let kept = [Some(self.newest), before];
        for generation in self.generations().unwrap_or_default() {
            if kept.contains(&Some(generation)) {
                continue;
            }
            let path = self.path(generation);
            if let Err(error) = self.fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "an old snapshot stays");
            }
        }
    }

    fn generations(&self) -> Result<Vec<u64>, DimensionError> {
        let listed = self.fs.list(&self.dir);
        let listed =
            listed.map_err(|source| DimensionError::File { path: self.dir.clone(), source })?;
        let number = |name: &str| -> Option<u64> { name.strip_suffix(SUFFIX)?.parse().ok() };
        Ok(listed.iter().filter_map(|listed| number(&listed.name)).collect())
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("{generation:020}{SUFFIX}"))
    }

    fn definition(&self) -> String {
        format!("{:032x}", self.plan.identity())
    }

    fn encode(&self, built: &Built) -> Result<Vec<u8>, DimensionError> {
        let Snapshot { id, rows, loaded_us, source_us, .. } = &built.snapshot;
        let header = Header {
            id: id.to_string(),
            definition: self.definition(),
            rows: rows.num_rows() as u64,
            loaded_us: *loaded_us,
            source_us: *source_us,
        };
        let header = serde_json::to_vec(&header).map_err(io::Error::other);
        let header =
            header.map_err(|source| DimensionError::Keep { path: self.dir.clone(), source })?;
        let mut bytes = Vec::with_capacity(24 + header.len() + built.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&built.body);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// A snapshot, and what it takes in memory.
    fn read(&self, generation: u64) -> Result<(Arc<Snapshot>, u64), DimensionError> {
        let path = self.path(generation);
        let most = usize::try_from(self.plan.max_bytes).unwrap_or(usize::MAX);
        let bytes = self.fs.read(&path, most.saturating_mul(WIDER).saturating_add(HEADER));
        let bytes = bytes.map_err(|source| DimensionError::File { path: path.clone(), source })?;
        let snapshot = self.decode(&bytes).map_err(|why| DimensionError::Stored { path, why })?;
        let bytes = size(&snapshot.rows);
        Ok((Arc::new(snapshot), bytes))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Snapshot, String> {
        const SHORT: &str = "it is cut short";
        let (bytes, crc) = bytes.split_last_chunk::<4>().ok_or(SHORT)?;
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*crc) {
            return Err("its checksum differs: it is damaged".into());
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or("it is no snapshot")?;
        let (format, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(format!("its format is {format}, this build reads {FORMAT}"));
        }
        let (len, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let len = u32::from_le_bytes(*len) as usize;
        let (header, body) = rest.split_at_checked(len).ok_or(SHORT)?;
        let header: Header = serde_json::from_slice(header).map_err(|error| error.to_string())?;
        if header.definition != self.definition() {
            return Err(
                "it was read by another definition: columns, key, file or query changed".into()
            );
        }
        let dimension = self.plan.shape.dimension();
        let rows = usize::try_from(header.rows).map_err(|error| error.to_string())?;
        let rows = rows::decode(&dimension.schema, rows, body)?;
        let id: SnapshotId = id(dimension, body);
        if id.to_string() != header.id {
            return Err(format!("its rows are {id}, its header says {}", header.id));
        }
        let (loaded_us, source_us) = (header.loaded_us, header.source_us);
        Ok(Snapshot { id, rows, key: dimension.key.clone(), loaded_us, source_us })
    }
}
