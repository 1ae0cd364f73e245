//! JSON: an object a line, or one array of objects.
//!
//! In: an open file. Out: its rows. Which of the two it is its first character says. A last line may lack its end: an object says
//! itself where it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use arrow_array::RecordBatch;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::DimensionError;
use crate::gather::{Counted, Gatherer, Limits, MAX_RECORD};
use crate::shape::Shape;

const BUFFER: usize = 256 * 1024;

pub(super) fn read(
    file: &File,
    path: &Path,
    place: &str,
    shape: &Shape,
    limits: Limits,
) -> Result<RecordBatch, DimensionError> {
    let failed = |source| DimensionError::File { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let refiner = shape.as_declared(place)?;
    let schema = shape.dimension().schema.clone();
    let gatherer = |what| Gatherer::new(place, refiner, schema, limits, Counted { what, first: 1 });
    if begins_with_bracket(&mut reader).map_err(failed)? {
        return array(reader, path, place, gatherer("element"));
    }
    let mut gatherer = gatherer("line");
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = MAX_RECORD as u64 + 2;
        (&mut reader).take(most).read_until(b'\n', &mut line).map_err(failed)?;
        if line.is_empty() {
            return gatherer.finish();
        }
        gatherer.push_bytes(line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
}

/// Skips blanks.
fn begins_with_bracket(reader: &mut BufReader<&File>) -> std::io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match buffer.get(blanks) {
            Some(first) => return Ok(*first == b'['),
            None if buffer.is_empty() => return Ok(false),
            None => reader.consume(blanks),
        }
    }
}

fn array(
    reader: BufReader<&File>,
    path: &Path,
    place: &str,
    mut gatherer: Gatherer<'_>,
) -> Result<RecordBatch, DimensionError> {
    struct Elements<'g, 'p>(&'g mut Gatherer<'p>);
    impl<'de> Visitor<'de> for Elements<'_, '_> {
        type Value = Result<(), DimensionError>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array of objects")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
            while let Some(element) = elements.next_element::<Box<RawValue>>()? {
                if let Err(error) = self.0.push(element.get()) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        }
    }
    let mut json = serde_json::Deserializer::from_reader(reader);
    let told = (&mut json).deserialize_seq(Elements(&mut gatherer));
    let told = told.and_then(|told| match told {
        Ok(()) => json.end().map(Ok),
        // What stands behind an element that does not fit was not read.
        Err(error) => Ok(Err(error)),
    });
    match told {
        Ok(Ok(())) => gatherer.finish(),
        Ok(Err(error)) => Err(error),
        Err(error) if error.is_io() => {
            Err(DimensionError::File { path: path.to_owned(), source: error.into() })
        }
        Err(error) => Err(DimensionError::Row {
            place: place.to_owned(),
            what: "line",
            number: error.line() as u64,
            reason: "syntax",
            detail: error.to_string(),
        }),
    }
}
