//! The usual way beside serde_json: whatever the text, the same members or none.

use garam_stage::{ContractConfig, UnknownColumns};
use proptest::prelude::*;

use super::Members;
use crate::names::Names;

fn names(unknown: UnknownColumns) -> Names {
    let text = "format = 'json'\n[columns]\nid = 'bigint'\nname = 'text'\n\
        deep = { type = 'text', from = '/in/deep' }\nsecond = { type = 'text', from = '/in/list/1' }\n";
    let config: ContractConfig = toml::from_str(text).unwrap();
    let mut contract = config.check().unwrap();
    contract.unknown = unknown;
    Names::of(&contract)
}

/// Whether the text goes the usual way; if so, serde_json finds the same.
#[track_caller]
fn check(text: &str) -> bool {
    let policies = [UnknownColumns::Keep, UnknownColumns::Drop, UnknownColumns::Quarantine];
    let [usual, ..] = policies.map(|unknown| {
        let names = names(unknown);
        let (mut usual, mut serde) = (Members::default(), Members::default());
        usual.clear(&names);
        serde.clear(&names);
        let is_usual = usual.usual(&names, text).is_some();
        let read = serde.by_serde(&names, text);
        if is_usual {
            assert_eq!(read, Ok(()), "{text}");
            assert_eq!(usual.values, serde.values, "{text}");
            assert_eq!(usual.rest, serde.rest, "{text}");
            assert_eq!(usual.twice, serde.twice, "{text}");
            assert_eq!(usual.unknown, serde.unknown, "{text}");
            assert_eq!(usual.shape, serde.shape, "{text}");
        }
        is_usual
    });
    usual
}

#[test]
fn usual_records_go_the_usual_way() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    for text in [
        "{}",
        " \t\r\n{ \n} ",
        r#"{"id":1,"name":"a"}"#,
        r#"{ "name" : "\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00" , "id" : -0.5e+10 }"#,
        r#"{"name":"\ud800"}"#,
        r#"{"id":123456789012345678901234567890,"x":1E5,"y":0,"z":-0}"#,
        r#"{"a":[],"b":{},"c":[[],{}],"d":[1,"]",{"e":[true,false,null]}]}"#,
        r#"{"in":{"deep":"x","list":[1,2,3],"other":{}}}"#,
        r#"{"é":"한글 😀","name":"a text of more than sixteen bytes, so that whole words of it are read"}"#,
        &deep,
    ] {
        assert!(check(text), "{text}");
    }
}

#[test]
fn what_is_not_usual_is_left_to_serde_json() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(65), "]".repeat(65));
    for text in [
        "",
        " ",
        "{",
        "}",
        "[]",
        "1",
        "null",
        "\"a\"",
        "{}x",
        "{} {}",
        "{,}",
        "{\"id\"}",
        "{\"id\":}",
        "{\"id\":1,}",
        "{\"id\":1 \"name\":2}",
        "{id:1}",
        "{'id':1}",
        "{\"id\":01}",
        "{\"id\":1.}",
        "{\"id\":.5}",
        "{\"id\":-}",
        "{\"id\":+1}",
        "{\"id\":1e}",
        "{\"id\":1e+}",
        "{\"id\":tru}",
        "{\"id\":nul",
        "{\"id\":NaN}",
        "{\"id\":[1,]}",
        "{\"id\":[1}",
        "{\"id\":{\"a\":1]}",
        "{\"id\":{\"a\"}}",
        "{\"id\":{1:1}}",
        "{\"name\":\"a",
        "{\"name\":\"a\\",
        "{\"name\":\"\\x\"}",
        "{\"name\":\"\\u12g4\"}",
        "{\"name\":\"\\u12\"}",
        "{\"name\":\"a\nb\"}",
        "{\"name\":\"seven bytes\u{1f}\"}",
        "{\"name\":\"\0\"}",
        "{\"na\tme\":1}",
        "\u{feff}{}",
        "{\"id\":1}\0",
        "{\u{a0}}",
        // Good, but not usual.
        r#"{"n\u0061me":1}"#,
        r#"{"id":1,"id":1}"#,
        r#"{"id":1,"name":2,"id":3}"#,
        &deep,
    ] {
        assert!(!check(text), "{text}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "([ -!#-\\[\\]-~é😀]{0,12}(\\\\([\"\\\\/bfnrt]|u[0-9a-fA-F]{4}))?){0,2}"
        .prop_map(|inner| format!("\"{inner}\""))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["\"id\"", "\"name\"", "\"in\"", "\"deep\"", "\"list\"", "\"x\"", "\"y\""])
            .prop_map(str::to_owned),
        1 => text(),
    ]
}

fn blank() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \\t\\r\\n]{1,2}"]
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (blank(), name(), blank(), blank(), value, blank());
    prop::collection::vec(member, 0..5).prop_map(|members| {
        let members = members
            .into_iter()
            .map(|(a, name, b, c, value, d)| format!("{a}{name}{b}:{c}{value}{d}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["true", "false", "null", "0", "-1"]).prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
        text(),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let list =
            prop::collection::vec((blank(), inner.clone(), blank()), 0..4).prop_map(|items| {
                let items = items.into_iter().map(|(a, value, b)| format!("{a}{value}{b}"));
                format!("[{}]", items.collect::<Vec<_>>().join(","))
            });
        prop_oneof![list, object(inner)]
    })
}

/// A character changed, put in or left out somewhere.
fn damage() -> impl Strategy<Value = (prop::sample::Index, u8, char)> {
    let put =
        prop::sample::select("{}[]:,\"\\ \tu0e9.-+tfnx\u{1}\u{7f}é😀".chars().collect::<Vec<_>>());
    (any::<prop::sample::Index>(), 0_u8..3, put)
}

fn damaged(text: &str, damages: &[(prop::sample::Index, u8, char)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (place, kind, put) in damages {
        let at = place.index(chars.len() + 1);
        match kind {
            0 => chars.insert(at, *put),
            1 if at < chars.len() => chars[at] = *put,
            _ if at < chars.len() => drop(chars.remove(at)),
            _ => {}
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn both_ways_find_the_same(record in object(value()), damages in prop::collection::vec(damage(), 0..3)) {
        check(&damaged(&record, &damages));
    }

    #[test]
    fn any_text_at_all(record in "[{}\\[\\]:,\"\\\\ a0-9eE.+tnulr-]{0,30}") {
        check(&record);
    }
}
