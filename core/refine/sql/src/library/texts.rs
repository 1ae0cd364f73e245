//! What the own functions share: a column of text or one text, a constant, one answer a row.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, StringArray};
use arrow_schema::DataType;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};

/// The first argument as one text a row.
pub(super) fn of_rows(args: &ScalarFunctionArgs) -> Result<StringArray> {
    let Some(first) = args.args.first() else { return Err(wrong("there is no argument")) };
    let array: ArrayRef = first.to_array(args.number_rows)?;
    let array = arrow_cast::cast(&array, &DataType::Utf8)?;
    Ok(array.as_string::<i32>().clone())
}

/// One answer for each row; none where there is no text.
pub(super) fn each(
    texts: &StringArray,
    mut answer: impl FnMut(&str) -> Result<Option<String>>,
) -> Result<ColumnarValue> {
    let answers = texts.iter().map(|text| text.map_or(Ok(None), &mut answer));
    let answers: StringArray = answers.collect::<Result<_>>()?;
    debug_assert_eq!(answers.len(), texts.len(), "one answer a row");
    Ok(ColumnarValue::Array(Arc::new(answers)))
}

/// A constant text among the arguments, while the plan is made.
pub(super) fn constant(args: &ReturnFieldArgs<'_>, index: usize, what: &str) -> Result<String> {
    let scalar = args.scalar_arguments.get(index).copied().flatten();
    let text = scalar.and_then(|scalar| scalar.try_as_str().flatten());
    text.map(str::to_owned)
        .ok_or_else(|| wrong(format!("{what} must be written as a text in quotes")))
}

/// The same while a batch is refined.
pub(super) fn constant_text(value: Option<&ColumnarValue>) -> Result<&str> {
    match value {
        Some(ColumnarValue::Scalar(scalar)) => {
            scalar.try_as_str().flatten().ok_or_else(|| wrong("a text in quotes is expected"))
        }
        _ => Err(wrong("a text in quotes is expected")),
    }
}

/// A constant whole number.
pub(super) fn constant_number(scalar: Option<&ScalarValue>) -> Option<i64> {
    let scalar = scalar?.cast_to(&DataType::Int64).ok()?;
    match scalar {
        ScalarValue::Int64(number) => number,
        _ => None,
    }
}

/// The scalar behind an argument.
pub(super) fn scalar(value: Option<&ColumnarValue>) -> Option<&ScalarValue> {
    match value {
        Some(ColumnarValue::Scalar(scalar)) => Some(scalar),
        _ => None,
    }
}

pub(super) fn wrong(what: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(what.into())
}
