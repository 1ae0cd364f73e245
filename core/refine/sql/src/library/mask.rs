//! `mask(text, keep)`: every character but the last `keep` becomes `*`, so that length and ending stay readable.

use std::any::Any;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::texts;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mask {
    signature: Signature,
}

pub(super) fn mask() -> ScalarUDF {
    let takes = vec![DataType::Utf8, DataType::Int64];
    Mask { signature: Signature::exact(takes, Volatility::Immutable) }.into()
}

impl ScalarUDFImpl for Mask {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "mask"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        keep(args.scalar_arguments.get(1).copied().flatten())?;
        let nullable = args.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let keep = keep(texts::scalar(args.args.get(1)))?;
        texts::each(&texts::of_rows(&args)?, |text| Ok(Some(masked(text, keep))))
    }
}

fn keep(scalar: Option<&datafusion_common::ScalarValue>) -> Result<usize> {
    let keep = texts::constant_number(scalar).and_then(|keep| usize::try_from(keep).ok());
    keep.ok_or_else(|| {
        texts::wrong("mask(text, keep): keep must be written as a number of 0 or more")
    })
}

fn masked(text: &str, keep: usize) -> String {
    let hidden = text.chars().count().saturating_sub(keep);
    text.chars().enumerate().map(|(i, char)| if i < hidden { '*' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn all_but_the_last_characters_are_hidden() {
        assert_eq!(masked("4111111111111111", 4), "************1111");
        assert_eq!(masked("größe", 2), "***ße");
        assert_eq!((masked("ab", 0), masked("ab", 9)), ("**".into(), "ab".into()));
    }
}
