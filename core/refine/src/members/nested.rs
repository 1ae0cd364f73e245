//! Values that lie inside of nested objects and arrays, at the places where a contract's columns point.
//!
//! In: the raw value of a member, known to be valid JSON. Out: the raw values of its columns. Promise: one more pass over that
//! member alone; an object that holds more than the columns is kept whole in the rest, so that nothing is lost, or refused,
//! by the contract's policy. `null` on the way is as good as absent.

use std::borrow::Cow;
use std::fmt;

use garam_stage::UnknownColumns;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Members, kind_of};
use crate::names::{Branch, Names};
use crate::reject::shown;

/// Takes the columns out of the member that `branch` stands for.
pub(super) fn enter<'a>(
    members: &mut Members<'a>,
    names: &Names,
    branch: &Branch,
    raw: &'a str,
) -> Result<(), serde_json::Error> {
    let mut walk = Walk { members, names, others: false };
    walk.descend(branch, raw)?;
    if walk.others && names.unknown == UnknownColumns::Keep {
        members.rest.push((Cow::Owned(branch.name.clone()), raw));
    }
    Ok(())
}

struct Walk<'m, 'a, 'n> {
    members: &'m mut Members<'a>,
    names: &'n Names,
    /// Whether there is something that no column is read from.
    others: bool,
}

impl<'a> Walk<'_, 'a, '_> {
    fn descend(&mut self, branch: &Branch, raw: &'a str) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(raw);
        match raw.as_bytes().first() {
            Some(b'{') => json.deserialize_map(Inside { walk: self, branch }),
            Some(b'[') => json.deserialize_seq(Inside { walk: self, branch }),
            Some(b'n') => Ok(()),
            _ => {
                let (name, kind) = (shown(&branch.name), kind_of(raw));
                let detail = format!("member {name:?} is {kind}, expected an object");
                self.members.shape.get_or_insert(detail);
                Ok(())
            }
        }
    }

    fn meet(&mut self, branch: &Branch, raw: &'a str) -> Result<(), serde_json::Error> {
        let Some(column) = branch.column else { return self.descend(branch, raw) };
        if let Some(slot) = self.members.values.get_mut(column)
            && slot.replace(raw).is_some()
        {
            self.members.twice = self.names.columns.get(column).cloned().map(Cow::Owned);
        }
        Ok(())
    }

    fn other(&mut self, name: &str, branch: &Branch) {
        self.others = true;
        if self.names.unknown == UnknownColumns::Quarantine && self.members.unknown.is_none() {
            self.members.unknown = Some(Cow::Owned(format!("{}/{name}", branch.name)));
        }
    }
}

/// What lies inside of one object or array.
struct Inside<'w, 'm, 'a, 'n, 'b> {
    walk: &'w mut Walk<'m, 'a, 'n>,
    branch: &'b Branch,
}

impl<'a> Visitor<'a> for Inside<'_, '_, 'a, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, branch } = self;
        while let Some(name) = map.next_key_seed(Key)? {
            match branch.inside.iter().find(|inside| inside.name == name) {
                Some(inside) => {
                    let value: &'a RawValue = map.next_value()?;
                    walk.meet(inside, value.get()).map_err(serde::de::Error::custom)?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    walk.other(&name, branch);
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { walk, branch } = self;
        let mut index = 0_usize;
        while let Some(value) = seq.next_element::<&'a RawValue>()? {
            let at = |inside: &&Branch| inside.name.parse() == Ok(index);
            match branch.inside.iter().find(at) {
                Some(inside) => {
                    walk.meet(inside, value.get()).map_err(serde::de::Error::custom)?;
                }
                None => walk.other(&index.to_string(), branch),
            }
            index += 1;
        }
        Ok(())
    }
}

/// A member's name, borrowed where it has no escape.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Cow<'a, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
