//! Proposes a contract from a sample: the format, the columns with the narrowest types that take every value seen, the time.
//!
//! In: lines. Out: a contract as TOML, for a person to read and correct; how many lines a contract takes. Promise: nothing is guessed about what the sample does not show: money is
//! `decimal`, never a float, and what is of several kinds is kept as it was written.
//! Not here: reading files, deciding to use it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use garam_stage::{Contract, ContractConfig, Format, Refiner as _};
use serde_json::value::RawValue;

use crate::fields::{cells_of, logfmt_of};
use crate::instant;
use crate::refiner::ContractRefiner;
use crate::sample::sample;

/// Formats are tried in this order; the first that takes nearly all lines is it.
const TRIED: [Format; 5] =
    [Format::Combined, Format::Common, Format::Cri, Format::Syslog, Format::Logfmt];
/// Names that a time has, the likeliest first.
const TIMES: [&str; 7] =
    ["ts", "@timestamp", "timestamp", "time", "event_time", "created_at", "date"];
/// How deep nested objects are taken apart.
const DEEPEST: usize = 3;
/// Epoch numbers between 2001 and 2100, in seconds, milliseconds or microseconds.
const EPOCHS: [std::ops::Range<i64>; 3] = [
    1_000_000_000..4_102_444_800,
    1_000_000_000_000..4_102_444_800_000,
    1_000_000_000_000_000..4_102_444_800_000_000,
];

/// Proposes the lines of a stream's contract; its columns stand under `[columns]`. `None`: there are no lines.
pub fn infer(lines: &[&str]) -> Option<String> {
    let lines: Vec<&str> = lines.iter().copied().filter(|line| !line.trim().is_empty()).collect();
    let most = |takes: &dyn Fn(&str) -> bool| {
        lines.iter().filter(|line| takes(line)).count() * 10 >= lines.len() * 9
    };
    if lines.is_empty() {
        return None;
    }
    if most(&|line| serde_json::from_str::<Object<'_>>(line).is_ok()) {
        return Some(body(Format::Json, &objects(&lines), "", lines.len()));
    }
    if let Some((names, columns)) = csv(&lines) {
        let own = format!("fields = {names:?}\nheader = true\n");
        return Some(body(Format::Csv, &columns, &own, lines.len() - 1));
    }
    for format in TRIED {
        let config = ContractConfig::new(format, Vec::new()).check();
        let takes = match (format, config) {
            (Format::Logfmt, _) => most(&|line| logfmt_of(line).is_some_and(|all| is_logfmt(&all))),
            (_, Ok(contract)) => most(&|line| fit(&contract, &[line]).0 == 1),
            (_, Err(_)) => false,
        };
        match format {
            _ if !takes => {}
            Format::Logfmt => return Some(body(format, &logfmt(&lines), "", lines.len())),
            _ => return Some(body(format, &[], "", lines.len())),
        }
    }
    Some(body(Format::Line, &[], "", lines.len()))
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// A field as the sample has it.
#[derive(Debug, Default)]
struct Seen {
    /// The members on the way to it.
    way: Vec<String>,
    present: usize,
    integers: usize,
    /// Integers that could be times.
    epochs: usize,
    decimals: usize,
    /// Digits before and behind the point.
    digits: (usize, usize),
    floats: usize,
    booleans: usize,
    times: usize,
    dates: usize,
    texts: usize,
    /// Objects and arrays.
    nests: usize,
}

impl Seen {
    fn text(&mut self, text: &str) {
        if instant::timestamp(text, Some(0)).is_ok() {
            self.times += 1;
        } else if instant::date(text).is_ok() {
            self.dates += 1;
        } else {
            self.texts += 1;
        }
    }

    fn number(&mut self, text: &str) {
        let digits = text.trim_start_matches('-');
        let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
        if digits.contains(['e', 'E']) {
            self.floats += 1;
        } else if behind.is_empty() {
            self.integers += 1;
            let number = text.parse::<i64>().ok();
            let is_epoch = |number: i64| EPOCHS.iter().any(|epochs| epochs.contains(&number));
            self.epochs += usize::from(number.is_some_and(is_epoch));
            self.floats += usize::from(number.is_none());
        } else {
            self.decimals += 1;
        }
        self.digits = (self.digits.0.max(whole.len()), self.digits.1.max(behind.len()));
    }

    /// The type that takes all of it; `None`: it is of several kinds.
    fn kind(&self, is_time: bool) -> Option<String> {
        let all = |count: usize| count == self.present;
        Some(match () {
            () if self.nests > 0 => return None,
            () if self.present == 0 => "text".into(),
            () if is_time && (all(self.epochs) || all(self.times)) => "timestamp".into(),
            () if all(self.times) => "timestamp".into(),
            () if all(self.dates) => "date".into(),
            () if all(self.booleans) => "boolean".into(),
            () if self.floats > 0 && all(self.integers.max(self.floats)) => "double".into(),
            () if all(self.integers) => "bigint".into(),
            () if self.floats == 0 && all(self.integers + self.decimals) => {
                let (whole, scale) = self.digits;
                format!("decimal({},{scale})", (whole + scale).clamp(18, 38))
            }
            () if all(self.integers + self.decimals + self.floats) => "double".into(),
            () if all(self.times + self.dates + self.texts) => "text".into(),
            () => return None,
        })
    }
}

fn body(format: Format, columns: &[Seen], own: &str, lines: usize) -> String {
    let mut text = format!("format = \"{format}\"\n{own}");
    if columns.is_empty() {
        return text;
    }
    let is_time = |name: &str, seen: &Seen| {
        seen.way.last().is_some_and(|last| last == name)
            && seen.kind(true).as_deref() == Some("timestamp")
    };
    let time = TIMES.iter().find_map(|name| columns.iter().position(|seen| is_time(name, seen)));
    let mut names: Vec<String> = Vec::new();
    let mut table = String::new();
    for (at, seen) in columns.iter().enumerate() {
        let name = free_name(&seen.way, &names);
        let not_null = if seen.present == lines { " not null" } else { "" };
        let (kind, cast) = match seen.kind(time == Some(at)) {
            Some(kind) => (kind, ""),
            None if format == Format::Json => ("text".into(), ", cast = \"json\""),
            None => ("text".into(), ""),
        };
        let from = match seen.way.as_slice() {
            [own] if *own == name => String::new(),
            [own] => format!(", from = {own:?}"),
            way => {
                let escaped = way.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
                format!(", from = {:?}", format!("/{}", escaped.collect::<Vec<_>>().join("/")))
            }
        };
        // Writing to a String cannot fail.
        let written = match (from.as_str(), cast) {
            ("", "") => writeln!(table, "{name} = \"{kind}{not_null}\""),
            _ => writeln!(table, "{name} = {{ type = \"{kind}{not_null}\"{from}{cast} }}"),
        };
        written.unwrap_or_default();
        if time == Some(at) {
            writeln!(text, "time = {name:?}").unwrap_or_default();
        }
        names.push(name);
    }
    text + "[columns]\n" + &table
}

/// A name that databases can spell and no other column has.
fn free_name(way: &[String], taken: &[String]) -> String {
    let joined = way.join("_");
    let mut name: String =
        joined.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    name = name.trim_start_matches('_').chars().take(55).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name = format!("c_{name}");
    }
    let mut free = name.clone();
    let mut number = 1;
    while taken.iter().any(|other| other.eq_ignore_ascii_case(&free)) {
        number += 1;
        free = format!("{name}_{number}");
    }
    free
}

fn objects(lines: &[&str]) -> Vec<Seen> {
    let mut found: Vec<Seen> = Vec::new();
    for line in lines {
        if let Ok(object) = serde_json::from_str::<Object<'_>>(line) {
            take_apart(&mut found, &[], &object);
        }
    }
    // What is an object here and something else there is kept whole.
    let ways: Vec<Vec<String>> = found.iter().map(|seen| seen.way.clone()).collect();
    let is_in =
        |outer: &[String], way: &[String]| outer.len() < way.len() && way.starts_with(outer);
    found.retain(|seen| !ways.iter().any(|outer| is_in(outer, &seen.way)));
    for seen in &mut found {
        seen.nests += usize::from(ways.iter().any(|way| is_in(&seen.way, way)));
    }
    found
}

fn take_apart(found: &mut Vec<Seen>, way: &[String], object: &Object<'_>) {
    for (name, value) in object {
        let way: Vec<String> = way.iter().chain([name]).cloned().collect();
        let raw = value.get();
        if raw.starts_with('{')
            && way.len() < DEEPEST
            && let Ok(inner) = serde_json::from_str::<Object<'_>>(raw)
            && !inner.is_empty()
        {
            take_apart(found, &way, &inner);
            continue;
        }
        let seen = field(found, way);
        match raw.as_bytes().first() {
            Some(b'n') => continue,
            Some(b'{' | b'[') => seen.nests += 1,
            Some(b't' | b'f') => seen.booleans += 1,
            Some(b'"') => seen.text(&serde_json::from_str::<String>(raw).unwrap_or_default()),
            _ => seen.number(raw),
        }
        seen.present += 1;
    }
}

fn logfmt(lines: &[&str]) -> Vec<Seen> {
    let mut found = Vec::new();
    for all in lines.iter().filter_map(|line| logfmt_of(line)) {
        for (name, text) in all {
            plain(&mut found, name, text.as_deref());
        }
    }
    found
}

/// Text that has at least one value, and mostly values.
fn is_logfmt(all: &[(String, Option<String>)]) -> bool {
    let flags = all.iter().filter(|(_, text)| text.as_deref() == Some("true")).count();
    !all.is_empty() && flags * 2 <= all.len()
}

/// The names of the first line, where the others have as many cells.
fn csv(lines: &[&str]) -> Option<(Vec<String>, Vec<Seen>)> {
    let (first, rest) = lines.split_first()?;
    let names: Vec<String> = cells_of(first, Some(','))?.into_iter().collect::<Option<_>>()?;
    let is_name =
        |name: &String| name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains(' ');
    if names.len() < 2 || rest.is_empty() || !names.iter().all(is_name) {
        return None;
    }
    let mut found = Vec::new();
    let mut same = 0;
    for cells in rest.iter().filter_map(|line| cells_of(line, Some(','))) {
        if cells.len() == names.len() {
            same += 1;
            for (name, cell) in names.iter().zip(cells) {
                plain(&mut found, name.clone(), cell.as_deref());
            }
        }
    }
    (same * 10 >= rest.len() * 9).then_some((names, found))
}

/// A text that may stand for something else.
fn plain(found: &mut Vec<Seen>, name: String, text: Option<&str>) {
    let seen = field(found, vec![name]);
    let Some(text) = text.filter(|text| !text.is_empty()) else { return };
    seen.present += 1;
    let digits = text.trim_start_matches('-');
    let is_number = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().filter(|b| *b == b'.').count() < 2
        && !digits.starts_with('.')
        && !digits.ends_with('.');
    match text {
        "true" | "false" => seen.booleans += 1,
        number if is_number => seen.number(number),
        text => seen.text(text),
    }
}

fn field(found: &mut Vec<Seen>, way: Vec<String>) -> &mut Seen {
    let at = found.iter().position(|seen| seen.way == way).unwrap_or_else(|| {
        found.push(Seen { way, ..Seen::default() });
        found.len() - 1
    });
    &mut found[at]
}

/// How many lines a contract takes, and why the first other does not fit.
pub fn fit(contract: &Contract, lines: &[&str]) -> (u64, Option<String>) {
    let Ok(refiner) = ContractRefiner::new(contract.clone()) else { return (0, None) };
    let block = sample(lines, jiff::Timestamp::now().as_microsecond());
    let Ok(refined) = refiner.refine(&[block]) else { return (0, None) };
    let first = refined
        .bad
        .first()
        .map(|bad| format!("line {}: {}: {}", bad.at.index + 1, bad.reason.name(), bad.detail));
    ((refined.sources.len() + refined.dropped.len()) as u64, first)
}
