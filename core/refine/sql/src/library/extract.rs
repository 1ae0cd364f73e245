//! `regexp_extract(text, pattern, group)`: one group of the first match, as Spark has it; an empty text where nothing matches.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use regex::Regex;

use super::texts;

#[derive(Debug)]
struct RegexpExtract {
    signature: Signature,
    /// The patterns of a plan, which are constants: as many as the SQL spells.
    compiled: Mutex<Vec<Regex>>,
}

pub(super) fn regexp_extract() -> ScalarUDF {
    let takes = [
        TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8]),
        TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8, DataType::Int64]),
    ];
    let signature = Signature::one_of(takes.to_vec(), Volatility::Immutable);
    RegexpExtract { signature, compiled: Mutex::default() }.into()
}

// What is compiled already does not make it another function.
impl PartialEq for RegexpExtract {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for RegexpExtract {}

impl Hash for RegexpExtract {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl RegexpExtract {
    fn regex(&self, pattern: &str) -> Result<Regex> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = compiled.iter().find(|regex| regex.as_str() == pattern) {
            return Ok(regex.clone());
        }
        let regex = Regex::new(pattern).map_err(|error| texts::wrong(error.to_string()))?;
        compiled.push(regex.clone());
        Ok(regex)
    }

    fn group(
        &self,
        regex: &Regex,
        scalar: Option<&datafusion_common::ScalarValue>,
    ) -> Result<usize> {
        let group = texts::constant_number(scalar).and_then(|group| usize::try_from(group).ok());
        group.filter(|group| *group < regex.captures_len()).ok_or_else(|| {
            let most = regex.captures_len() - 1;
            texts::wrong(format!(
                "regexp_extract: the pattern has groups 1 to {most}, and 0 for all of it"
            ))
        })
    }
}

impl ScalarUDFImpl for RegexpExtract {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "regexp_extract"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let regex = self.regex(&texts::constant(&args, 1, "the pattern of regexp_extract")?)?;
        let one = datafusion_common::ScalarValue::Int64(Some(1));
        let group = args.scalar_arguments.get(2).copied();
        self.group(&regex, group.unwrap_or(Some(&one)))?;
        let nullable = args.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let regex = self.regex(texts::constant_text(args.args.get(1))?)?;
        let group = match args.args.get(2) {
            Some(group) => self.group(&regex, texts::scalar(Some(group)))?,
            None => 1,
        };
        texts::each(&texts::of_rows(&args)?, |text| {
            let found = regex.captures(text).and_then(|found| found.get(group));
            Ok(Some(found.map_or_else(String::new, |found| found.as_str().to_owned())))
        })
    }
}
