//! The result's names and types: what a contract could have had, so that every destination knows what to do with it.
//!
//! In: a draft of the plan. Out: the same with one last projection to the types of contracts, without the system's columns,
//! which are carried beside it whatever the select says. Refused by column: names that databases cannot spell, names of
//! Garam's own, types that no contract has.

use std::sync::Arc;

use arrow_schema::{DataType, SchemaRef, TimeUnit};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, cast};
use garam_stage::contract::REST;
use garam_stage::system;

use crate::error::Unplannable;
use crate::steps::{Computed, Draft, Known};

/// Ends the draft with the result's own columns.
pub(crate) fn finish(mut draft: Draft, input: &SchemaRef) -> Result<Draft, Unplannable> {
    let before: Vec<_> = draft.columns.iter().map(|known| Arc::clone(&known.field)).collect();
    let before = arrow_schema::Schema::new(before);
    let (mut columns, mut after): (Vec<Computed>, Vec<Known>) = (Vec::new(), Vec::new());
    for (index, known) in draft.columns.iter().enumerate() {
        let name = known.field.name();
        if is_carried(known, input) {
            continue;
        }
        check_name(index, known, input)?;
        if let Some(other) =
            after.iter().find(|other| other.field.name().eq_ignore_ascii_case(name))
        {
            let (first, second) = (other.field.name().clone(), name.clone());
            return Err(Unplannable::Clash { first, second });
        }
        let kind = stored_as(name, known.field.data_type())?;
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, index));
        let expr = if kind == *known.field.data_type() {
            column
        } else {
            cast(column, &before, kind.clone()).map_err(|error| Unplannable::of(&error))?
        };
        columns.push(Computed { expr, name: name.clone() });
        let field = Arc::new(known.field.as_ref().clone().with_data_type(kind));
        after.push(Known { table: None, field, input: known.input });
    }
    if columns.is_empty() {
        return Err(Unplannable::NoColumns);
    }
    draft.finish(columns, after);
    Ok(draft)
}

/// Whether it is a column of the system under its own name: those come with every row anyway.
fn is_carried(known: &Known, input: &SchemaRef) -> bool {
    system::has(known.field.name()) && is_same(known, input)
}

fn is_same(known: &Known, input: &SchemaRef) -> bool {
    let source = known.input.and_then(|index| input.fields().get(index));
    source.is_some_and(|source| source.name() == known.field.name())
}

fn check_name(index: usize, known: &Known, input: &SchemaRef) -> Result<(), Unplannable> {
    let name = known.field.name();
    if name == REST && is_same(known, input) {
        return Ok(());
    }
    let is_spelt = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.starts_with('_') && is_spelt(name) {
        return Err(Unplannable::Reserved { name: name.clone() });
    }
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    if !starts_well || name.len() > 63 || !is_spelt(name) {
        return Err(Unplannable::Unnamed { position: index + 1, text: name.clone() });
    }
    Ok(())
}

/// The type of contracts that holds every value of this one.
fn stored_as(column: &str, found: &DataType) -> Result<DataType, Unplannable> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let instead = match found {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Date32 => return Ok(found.clone()),
        DataType::Decimal128(_, scale) if *scale >= 0 => return Ok(found.clone()),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale)
            if *scale >= 0 =>
        {
            return Ok(DataType::Decimal128(*precision, *scale));
        }
        DataType::Utf8View | DataType::LargeUtf8 => return Ok(DataType::Utf8),
        DataType::Int8 | DataType::UInt8 => return Ok(DataType::Int16),
        DataType::UInt16 => return Ok(DataType::Int32),
        DataType::UInt32 => return Ok(DataType::Int64),
        DataType::Timestamp(..) => return Ok(micros),
        DataType::UInt64 => "write `cast(… as bigint)`",
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "write `cast(… as decimal(38, 2))` with the digits that you need"
        }
        DataType::Null => "write `cast(null as text)` with the type that you mean",
        DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Interval(_)
        | DataType::Duration(_) => "write `cast(… as text)`, or date_part() of it",
        DataType::Float16 => "write `cast(… as real)`",
        _ => "make a text or a number of it",
    };
    Err(Unplannable::ColumnType {
        column: column.to_owned(),
        found: found.to_string(),
        instead: instead.to_owned(),
    })
}
