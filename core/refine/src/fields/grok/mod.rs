//! Grok: expressions that are put together from named patterns, `%{IP:client} %{NUMBER:took}`.
//!
//! In: an expression, an operator's own patterns. Out: one regular expression, and which of its groups is which field. Promise: what
//! cannot be expanded is refused before anything is read, with the name and what is near it; the expansion is bounded, and
//! matching takes time linear in the record: look-around and back-references are refused, not emulated.
//! Not here: matching (`pattern`), the library (`library`).

mod library;

use std::collections::BTreeMap;

use crate::error::Unusable;

/// How deep patterns may lie in each other, and how long the whole may get.
const DEEPEST: usize = 20;
const LONGEST: usize = 256 * 1024;

/// An expression without references.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) regex: String,
    /// Group and field: one that stands in several branches has several groups.
    pub(super) named: Vec<(String, String)>,
}

/// Replaces every `%{...}`.
pub(super) fn expand(pattern: &str, own: &[(String, String)]) -> Result<Expanded, Unusable> {
    let own = own.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut expansion = Expansion { own, regex: String::new(), fields: Vec::new() };
    expansion.add(pattern, &mut Vec::new())?;
    Ok(Expanded { regex: expansion.regex, named: expansion.fields })
}

struct Expansion<'a> {
    own: BTreeMap<&'a str, &'a str>,
    regex: String,
    fields: Vec<(String, String)>,
}

impl<'a> Expansion<'a> {
    fn add(&mut self, text: &'a str, inside: &mut Vec<&'a str>) -> Result<(), Unusable> {
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("%{") {
            let (reference, behind) = behind
                .split_once('}')
                .ok_or_else(|| Unusable::Grok(format!("%{{{behind} has no closing brace")))?;
            self.regex.push_str(before);
            self.refer(reference, inside)?;
            rest = behind;
        }
        self.regex.push_str(rest);
        if self.regex.len() > LONGEST {
            return Err(Unusable::Grok(format!("expanded it is longer than {LONGEST} bytes")));
        }
        Ok(())
    }

    /// `NAME`, `NAME:field` or `NAME:field:type`; the type of a field is its column's.
    fn refer(&mut self, reference: &'a str, inside: &mut Vec<&'a str>) -> Result<(), Unusable> {
        let mut parts = reference.splitn(3, ':');
        let name = parts.next().unwrap_or_default();
        let field = parts.next();
        if let Some(kind) = parts.next().filter(|kind| !matches!(*kind, "int" | "float" | "long")) {
            let text = format!("%{{{reference}}}: {kind:?} is no type; the column has the type");
            return Err(Unusable::Grok(text));
        }
        let text = self.own.get(name).copied().or_else(|| library::find(name));
        let text = text.ok_or_else(|| self.unknown(name))?;
        if inside.contains(&name) {
            let way = inside.join(" → ");
            return Err(Unusable::Grok(format!("pattern {name} contains itself: {way} → {name}")));
        }
        if inside.len() >= DEEPEST {
            let text = format!("pattern {name} lies deeper than {DEEPEST} patterns");
            return Err(Unusable::Grok(text));
        }
        match field {
            Some(field) => {
                let field = plain(field).ok_or_else(|| {
                    let text = format!(
                        "%{{{reference}}}: {field:?} is no field name: letters, digits, _, - and . only"
                    );
                    Unusable::Grok(text)
                })?;
                // A field may stand in several branches, a group's name may not.
                let group = format!("_grok{}", self.fields.len());
                self.regex.push_str(&format!("(?<{group}>"));
                self.fields.push((group, field.to_owned()));
            }
            None => self.regex.push_str("(?:"),
        }
        inside.push(name);
        self.add(text, inside)?;
        inside.pop();
        self.regex.push(')');
        Ok(())
    }

    fn unknown(&self, name: &str) -> Unusable {
        let mut names: Vec<&str> = self.own.keys().copied().collect();
        for known in library::names() {
            names.push(known);
        }
        let near = names.into_iter().filter(|known| {
            let (known, name) = (known.to_ascii_uppercase(), name.to_ascii_uppercase());
            known.starts_with(&name) || name.starts_with(&known) || known.ends_with(&name)
        });
        let near: Vec<_> = near.filter(|_| !name.is_empty()).take(5).collect();
        let hint = match near.as_slice() {
            [] => "add it to `patterns`".to_owned(),
            near => format!("add it to `patterns`, or use one of {}", near.join(", ")),
        };
        Unusable::Grok(format!("there is no pattern {name:?}: {hint}"))
    }
}

fn plain(field: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!field.is_empty() && field.bytes().all(fits)).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pattern: &str, own: &[(&str, &str)], expect: &str) {
        let own: Vec<_> = own.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let error = expand(pattern, &own).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn every_pattern_of_the_library_can_be_compiled() {
        for name in library::names() {
            let expanded = expand(&format!("^%{{{name}}}$"), &[]).unwrap();
            let built = regex::RegexBuilder::new(&expanded.regex).size_limit(4 << 20).build();
            assert!(built.is_ok(), "{name}: {built:?}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        refused(
            "%{IPP:a}",
            &[],
            "there is no pattern \"IPP\": add it to `patterns`, or use one of IP",
        );
        refused("%{IP:a", &[], "has no closing brace");
        refused("%{IP:a b}", &[], "is no field name");
        refused("%{IP:a:bool}", &[], "is no type");
        refused("%{A}", &[("A", "x%{B}"), ("B", "%{A}")], "contains itself: A → B → A");
        let bomb: Vec<_> = (0..19)
            .map(|n| (format!("P{n}"), format!("%{{P{m}}}%{{P{m}}}%{{P{m}}}", m = n + 1)))
            .collect();
        let bomb: Vec<_> =
            bomb.iter().map(|(n, t)| (n.as_str(), t.as_str())).chain([("P19", "x")]).collect();
        refused("%{P0}", &bomb, "is longer than");
    }
}
