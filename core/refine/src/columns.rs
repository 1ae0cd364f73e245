//! Arrow builders for one batch: a row is appended whole or not at all.
//!
//! In: the cells of a row, all parsed already, and the row's system values. Out: the arrays in the schema's order.
//! Promise: after each append all builders have the same length. Where a row comes from: [`places`].

mod places;

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{ArrowError, DataType};
use garam_stage::records::Provenance;
use garam_stage::{ColumnType, Contract, Op};

use crate::value::Cell;
use places::{Arrays, Places};

/// The builder of one contract column.
enum ColumnBuilder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    fn new(kind: ColumnType, rows: usize) -> Self {
        match kind {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::SmallInt => Self::SmallInt(Int16Builder::with_capacity(rows)),
            ColumnType::Int => Self::Int(Int32Builder::with_capacity(rows)),
            ColumnType::BigInt => Self::BigInt(Int64Builder::with_capacity(rows)),
            ColumnType::Real => Self::Real(Float32Builder::with_capacity(rows)),
            ColumnType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            ColumnType::Decimal { .. } => {
                let builder = Decimal128Builder::with_capacity(rows);
                Self::Decimal(builder.with_data_type(kind.arrow()))
            }
            ColumnType::Text | ColumnType::Varchar(_) => {
                Self::Text(StringBuilder::with_capacity(rows, rows * 16))
            }
            ColumnType::Date => Self::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Timestamp => Self::Timestamp(timestamps(kind.arrow(), rows)),
        }
    }

    fn append(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Boolean(to), Cell::Boolean(value)) => to.append_value(value),
            (Self::SmallInt(to), Cell::SmallInt(value)) => to.append_value(value),
            (Self::Int(to), Cell::Int(value)) => to.append_value(value),
            (Self::BigInt(to), Cell::BigInt(value)) => to.append_value(value),
            (Self::Real(to), Cell::Real(value)) => to.append_value(value),
            (Self::Double(to), Cell::Double(value)) => to.append_value(value),
            (Self::Decimal(to), Cell::Decimal(value)) => to.append_value(value),
            (Self::Text(to), Cell::Text(value)) => to.append_value(value),
            (Self::Date(to), Cell::Date(value)) => to.append_value(value),
            (Self::Timestamp(to), Cell::Timestamp(value)) => to.append_value(value),
            (to, Cell::Null) => to.append_null(),
            (_, cell) => unreachable!("a cell is parsed by the type of its column, not {cell:?}"),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(to) => to.append_null(),
            Self::SmallInt(to) => to.append_null(),
            Self::Int(to) => to.append_null(),
            Self::BigInt(to) => to.append_null(),
            Self::Real(to) => to.append_null(),
            Self::Double(to) => to.append_null(),
            Self::Decimal(to) => to.append_null(),
            Self::Text(to) => to.append_null(),
            Self::Date(to) => to.append_null(),
            Self::Timestamp(to) => to.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::SmallInt(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::BigInt(mut builder) => Arc::new(builder.finish()),
            Self::Real(mut builder) => Arc::new(builder.finish()),
            Self::Double(mut builder) => Arc::new(builder.finish()),
            Self::Decimal(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// What Garam adds to a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemValues<'a> {
    pub(crate) provenance: &'a Provenance,
    pub(crate) position: u128,
    pub(crate) event_time: Option<i64>,
    pub(crate) ingest_time: i64,
    /// Among the rows of its record.
    pub(crate) ordinal: i32,
    /// In streams of row changes.
    pub(crate) op: Option<Op>,
}

/// All builders of a batch.
pub(crate) struct Columns<'a> {
    contract: Vec<ColumnBuilder>,
    rest: Option<StringBuilder>,
    places: Places<'a>,
    ordinal: Int32Builder,
    event_time: TimestampMicrosecondBuilder,
    op: Option<StringBuilder>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(contract: &Contract, rows: usize) -> Self {
        let time = ColumnType::Timestamp.arrow();
        Self {
            contract: contract
                .columns
                .iter()
                .map(|column| ColumnBuilder::new(column.kind, rows))
                .collect(),
            rest: contract.keeps_rest().then(|| StringBuilder::with_capacity(rows, 0)),
            places: Places::new(rows, timestamps(time.clone(), rows)),
            ordinal: Int32Builder::with_capacity(rows),
            event_time: timestamps(time, rows),
            op: contract.has_changes().then(|| StringBuilder::with_capacity(rows, rows * 8)),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.ordinal.len()
    }

    /// Appends one row and empties `cells`, which must hold one cell per contract column.
    pub(crate) fn append(
        &mut self,
        cells: &mut Vec<Cell<'_>>,
        rest: Option<Cow<'_, str>>,
        system: SystemValues<'a>,
    ) {
        for (builder, cell) in self.contract.iter_mut().zip(cells.drain(..)) {
            builder.append(cell);
        }
        if let Some(builder) = &mut self.rest {
            builder.append_option(rest);
        }
        self.places.append(system.provenance, system.position, system.ingest_time);
        self.ordinal.append_value(system.ordinal);
        self.event_time.append_option(system.event_time);
        if let Some(builder) = &mut self.op {
            builder.append_option(system.op.map(Op::name));
        }
    }

    /// The arrays in the order of `Contract::schema`.
    pub(crate) fn finish(mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let Arrays { host, path, origin, position, version, ingest_time } = self.places.finish()?;
        let mut arrays: Vec<ArrayRef> =
            self.contract.into_iter().map(ColumnBuilder::finish).collect();
        if let Some(mut rest) = self.rest {
            arrays.push(Arc::new(rest.finish()));
        }
        arrays.extend([
            host,
            path,
            origin,
            position,
            Arc::new(self.ordinal.finish()),
            version,
            Arc::new(self.event_time.finish()),
            ingest_time,
        ]);
        if let Some(mut op) = self.op {
            arrays.push(Arc::new(op.finish()));
        }
        Ok(arrays)
    }
}

fn timestamps(with_zone: DataType, rows: usize) -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(with_zone)
}
