//! CSV and TSV: a line is a row.
//!
//! In: an open file. Out: its rows. Promise: a line that does not fit, a column that is not there and a last line without an end
//! refuse the whole file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use arrow_array::RecordBatch;
use garam_refine::cells_of;
use garam_stage::Format;

use crate::config::FileConfig;
use crate::error::DimensionError;
use crate::gather::{Counted, Gatherer, Limits, MAX_RECORD};
use crate::shape::Shape;

const BUFFER: usize = 256 * 1024;
/// What some programs put before UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

pub(super) fn read(
    file: &File,
    config: &FileConfig,
    place: &str,
    shape: &Shape,
    limits: Limits,
) -> Result<RecordBatch, DimensionError> {
    let mut lines = Lines::of(file, config);
    let (refiner, first) = if config.header.unwrap_or(true) {
        let header =
            lines.next()?.ok_or_else(|| DimensionError::NoHeader { place: place.into() })?;
        let names = names(&header, shape, place)?;
        (shape.by_names(place, names)?, 2)
    } else {
        (shape.as_declared(place)?, 1)
    };
    let counted = Counted { what: "line", first };
    let schema = shape.dimension().schema.clone();
    let mut gatherer = Gatherer::new(place, refiner, schema, limits, counted);
    while let Some(line) = lines.next()? {
        gatherer.push_bytes(&line)?;
    }
    gatherer.finish()
}

/// The names of the cells, of the first line.
fn names(header: &[u8], shape: &Shape, place: &str) -> Result<Vec<String>, DimensionError> {
    let unnamed = || DimensionError::Header { place: place.to_owned() };
    let header = header.strip_prefix(MARK).unwrap_or(header);
    let header = std::str::from_utf8(header).map_err(|_| unnamed())?;
    let header = header.strip_suffix('\r').unwrap_or(header);
    let contract = shape.contract();
    let delimiter = match contract.format {
        Format::Tsv => None,
        _ => Some(contract.reading.delimiter.map_or(',', char::from)),
    };
    let cells = cells_of(header, delimiter).ok_or_else(unnamed)?;
    cells.into_iter().collect::<Option<Vec<_>>>().ok_or_else(unnamed)
}

struct Lines<'a> {
    reader: BufReader<&'a File>,
    config: &'a FileConfig,
}

impl<'a> Lines<'a> {
    fn of(file: &'a File, config: &'a FileConfig) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER, file), config }
    }

    /// The next line without its line feed.
    fn next(&mut self) -> Result<Option<Vec<u8>>, DimensionError> {
        let mut line = Vec::new();
        // One byte more than is allowed, so that whoever takes it sees that it is too long.
        let most = MAX_RECORD as u64 + 2;
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut line);
        read.map_err(|source| DimensionError::File { path: self.config.path.clone(), source })?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() <= MAX_RECORD {
            return Err(DimensionError::CutShort { path: self.config.path.clone() });
        }
        Ok(Some(line))
    }
}
