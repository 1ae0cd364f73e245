//! `get_json_object(text, '$.a.b[0]')`: one value out of a JSON text, as text; numbers keep every digit.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use serde_json::value::RawValue;

use super::texts;

#[derive(Debug, PartialEq, Eq, Hash)]
struct GetJsonObject {
    signature: Signature,
}

/// One step into a JSON value.
#[derive(Debug, PartialEq)]
enum Part {
    Member(String),
    Item(usize),
}

pub(super) fn get_json_object() -> ScalarUDF {
    let takes = vec![DataType::Utf8, DataType::Utf8];
    GetJsonObject { signature: Signature::exact(takes, Volatility::Immutable) }.into()
}

impl ScalarUDFImpl for GetJsonObject {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "get_json_object"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        path(&texts::constant(&args, 1, "the path of get_json_object")?)?;
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let path = path(texts::constant_text(args.args.get(1))?)?;
        texts::each(&texts::of_rows(&args)?, |text| Ok(at(text, &path)))
    }
}

/// `$`, then `.name`, `['name']` or `[number]`.
fn path(text: &str) -> Result<Vec<Part>> {
    let wrong = || texts::wrong(format!("path {text:?} is not like $.a.b[0] or $['a b']"));
    let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            if name.is_empty() || name.contains('*') {
                return Err(wrong());
            }
            parts.push(Part::Member(name.to_owned()));
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
        let (inner, after) = inner.split_once(']').ok_or_else(wrong)?;
        let quoted = inner.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
        parts.push(match quoted {
            Some(name) => Part::Member(name.to_owned()),
            None => Part::Item(inner.parse().map_err(|_| wrong())?),
        });
        rest = after;
    }
    Ok(parts)
}

/// The value there; none where there is none, it is null, or the text is no JSON.
fn at(text: &str, path: &[Part]) -> Option<String> {
    let mut value: &RawValue = serde_json::from_str(text).ok()?;
    for part in path {
        value = match part {
            Part::Member(name) => {
                let members: HashMap<Cow<'_, str>, &RawValue> =
                    serde_json::from_str(value.get()).ok()?;
                members.get(name.as_str()).copied()?
            }
            Part::Item(index) => {
                let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
                items.get(*index).copied()?
            }
        };
    }
    match value.get() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        other => Some(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_path_with_every_digit() {
        let text = r#"{"a":{"b":[1.10,{"c d":"x\ny"}],"n":null},"big":12345678901234567890.10}"#;
        let found = |at_path: &str| at(text, &path(at_path).unwrap());
        assert_eq!(found("$.a.b[0]").as_deref(), Some("1.10"));
        assert_eq!(found("$.a.b[1]['c d']").as_deref(), Some("x\ny"));
        assert_eq!(found("$.big").as_deref(), Some("12345678901234567890.10"));
        assert_eq!(found("$['a'].b[1]").as_deref(), Some(r#"{"c d":"x\ny"}"#));
        assert_eq!((found("$.a.n"), found("$.a.x"), found("$.big.x")), (None, None, None));
        assert_eq!(at("no json", &path("$.a").unwrap()), None);
    }

    #[test]
    fn a_path_that_cannot_be_followed_is_refused() {
        for bad in ["a.b", "$.", "$..a", "$.*", "$[x]", "$.a[", "$a"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
