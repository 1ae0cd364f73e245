//! Columns of records as PostgreSQL's binary arrays, for types that the driver has no Rust type for.
//!
//! In: records. Out: the parameters of the bare loop's statement. Format: `array_recv`, `numeric_recv` of the server.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Arguments as _, Encode, Postgres, Type};

use super::bare::{HOST, ORIGIN, PATH, version};
use super::records::Record;

/// From 1970 to 2000.
const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// Numbers of an element's and its array's type (`pg_type.dat`).
type Kind = (u32, u32);
const BYTEA: Kind = (17, 1001);
const INT8: Kind = (20, 1016);
const INT4: Kind = (23, 1007);
const TEXT: Kind = (25, 1009);
const FLOAT8: Kind = (701, 1022);
const TIMESTAMPTZ: Kind = (1184, 1185);
const NUMERIC: Kind = (1700, 1231);

struct Array {
    kind: Kind,
    length: i32,
    elements: Vec<u8>,
}

pub(super) fn arguments(rows: &[Record]) -> anyhow::Result<PgArguments> {
    let at = |row: &Record, out: &mut Vec<u8>| {
        element(&(row.at_us - MICROS_TO_2000).to_be_bytes(), out);
    };
    let arrays = [
        Array::of(INT8, rows, |row, out| element(&row.id.to_be_bytes(), out)),
        Array::of(INT8, rows, |row, out| element(&row.version.to_be_bytes(), out)),
        Array::of(TIMESTAMPTZ, rows, at),
        Array::of(TEXT, rows, |row, out| element(row.host.as_bytes(), out)),
        Array::of(TEXT, rows, |row, out| element(row.level.as_bytes(), out)),
        Array::of(INT4, rows, |row, out| element(&row.code.to_be_bytes(), out)),
        Array::of(FLOAT8, rows, |row, out| element(&row.latency.to_be_bytes(), out)),
        Array::of(NUMERIC, rows, |row, out| {
            let fraction = (row.cents % 100 * 100) as u16;
            numeric(row.cents.cast_unsigned() / 100, Some((2, fraction)), out);
        }),
        Array::of(TEXT, rows, |_, out| element(HOST.as_bytes(), out)),
        Array::of(TEXT, rows, |_, out| element(PATH.as_bytes(), out)),
        Array::of(BYTEA, rows, |_, out| element(&ORIGIN, out)),
        Array::of(NUMERIC, rows, |row, out| numeric(row.version.cast_unsigned(), None, out)),
        Array::of(INT4, rows, |_, out| element(&0i32.to_be_bytes(), out)),
        Array::of(BYTEA, rows, |row, out| element(&version(row), out)),
        Array::of(TIMESTAMPTZ, rows, at),
        Array::of(TIMESTAMPTZ, rows, at),
    ];
    let mut arguments = PgArguments::default();
    for array in arrays {
        arguments.add(array).map_err(|error| anyhow::anyhow!("cannot bind a column: {error}"))?;
    }
    Ok(arguments)
}

impl Array {
    fn of(kind: Kind, rows: &[Record], write: impl Fn(&Record, &mut Vec<u8>)) -> Self {
        let mut elements = Vec::with_capacity(rows.len() * 16);
        rows.iter().for_each(|row| write(row, &mut elements));
        Self { kind, length: i32::try_from(rows.len()).unwrap_or(i32::MAX), elements }
    }
}

impl Type<Postgres> for Array {
    /// Never asked: [`Encode::produces`] says it.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        for number in [1, 0] {
            buffer.extend(i32::to_be_bytes(number));
        }
        buffer.extend(self.kind.0.to_be_bytes());
        buffer.extend(self.length.to_be_bytes());
        buffer.extend(1i32.to_be_bytes());
        buffer.extend(&self.elements);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.kind.1)))
    }
}

fn element(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// A number, with so many digits behind the point that fill one group of four.
fn numeric(mut whole: u64, fraction: Option<(u16, u16)>, out: &mut Vec<u8>) {
    let mut groups: Vec<u16> = fraction.iter().map(|(_, group)| *group).collect();
    while whole > 0 {
        groups.push((whole % 10_000) as u16);
        whole /= 10_000;
    }
    let weight = groups.len() as i16 - fraction.iter().len() as i16 - 1;
    let scale = fraction.map_or(0, |(scale, _)| scale);
    out.extend((8 + 2 * groups.len() as u32).to_be_bytes());
    out.extend((groups.len() as u16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(0u16.to_be_bytes());
    out.extend(scale.to_be_bytes());
    out.extend(groups.iter().rev().flat_map(|group| group.to_be_bytes()));
}
