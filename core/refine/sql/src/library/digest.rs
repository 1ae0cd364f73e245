//! `sha2(text, bits)` and `sha256(text)`: a hash as hexadecimal text, the same for the same text for ever.

use std::any::Any;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

use super::texts;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Digest {
    name: &'static str,
    signature: Signature,
}

/// With the number of bits, as Spark has it.
pub(super) fn sha2() -> ScalarUDF {
    let takes = vec![DataType::Utf8, DataType::Int64];
    Digest { name: "sha2", signature: Signature::exact(takes, Volatility::Immutable) }.into()
}

pub(super) fn sha256() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    Digest { name: "sha256", signature }.into()
}

impl ScalarUDFImpl for Digest {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if args.arg_fields.len() > 1 {
            algorithm(args.scalar_arguments.get(1).copied().flatten())?;
        }
        let nullable = args.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name, DataType::Utf8, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let algorithm = match args.args.get(1) {
            Some(bits) => algorithm(texts::scalar(Some(bits)))?,
            None => &SHA256,
        };
        texts::each(&texts::of_rows(&args)?, |text| Ok(Some(hexadecimal(algorithm, text))))
    }
}

fn algorithm(bits: Option<&ScalarValue>) -> Result<&'static Algorithm> {
    match texts::constant_number(bits) {
        Some(0 | 256) => Ok(&SHA256),
        Some(384) => Ok(&SHA384),
        Some(512) => Ok(&SHA512),
        _ => Err(texts::wrong("sha2(text, bits): bits must be 256, 384 or 512")),
    }
}

fn hexadecimal(algorithm: &'static Algorithm, text: &str) -> String {
    let hash = digest(algorithm, text.as_bytes());
    hash.as_ref().iter().fold(String::with_capacity(128), |mut out, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hexadecimal(&SHA256, "abc"), abc);
        assert_eq!(hexadecimal(&SHA512, "abc").len(), 128);
    }
}
