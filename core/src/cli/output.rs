//! How answers are printed: data to stdout as a table, JSON, YAML or names; control characters never reach a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::ValueEnum;
pub(crate) use garam_proto::shown::escape;
use garam_proto::shown::{json, lines};
use serde::Serialize;
use serde_json::Value;

/// What `-o` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON value on one line; the stable form for programs.
    Json,
    /// The same as a YAML document.
    Yaml,
    /// Only the names, one a line.
    Name,
}

/// A table of texts; the first column is the name.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    /// A table whose columns are known only now.
    pub(crate) fn with_columns(columns: &[String]) -> Self {
        Self { header: columns.iter().map(|cell| escape(cell)).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| escape(&cell)).collect());
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.header.len();
        let mut widths: Vec<usize> = self.header.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if i + 1 == columns {
                    out.push_str(cell);
                } else {
                    let pad = width - cell.chars().count() + 2;
                    out.push_str(cell);
                    out.extend(std::iter::repeat_n(' ', pad));
                }
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out
    }
}

/// Prints a table or the value behind it.
pub(crate) fn print(format: Format, value: &impl Serialize, table: &Table) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table.render(),
        Format::Name => {
            table.rows.iter().filter_map(|row| row.first()).fold(String::new(), |mut out, name| {
                out.push_str(name);
                out.push('\n');
                out
            })
        }
        Format::Json | Format::Yaml => return print_value(format, value),
    };
    emit(&text)
}

/// Prints a text for people or the value behind it.
pub(crate) fn print_text(format: Format, value: &impl Serialize, text: &str) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Name => emit(text),
        Format::Json | Format::Yaml => print_value(format, value),
    }
}

fn print_value(format: Format, value: &impl Serialize) -> anyhow::Result<()> {
    let value = serde_json::to_value(value)?;
    match format {
        Format::Yaml => {
            let mut out = String::new();
            yaml(&value, 0, &mut out);
            emit(&json(&out))
        }
        _ => emit(&format!("{}\n", json(&value.to_string()))),
    }
}

/// Writes to stdout, with nothing in it that steers a terminal.
pub(crate) fn emit(text: &str) -> anyhow::Result<()> {
    emit_as_it_is(&lines(text))
}

/// Writes to stdout what Garam made itself, escape sequences included. A reader that went away (`| head`) ends the program
/// quietly.
pub(crate) fn emit_as_it_is(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// Block-style YAML 1.2; strings are always quoted as in JSON, which YAML reads the same.
fn yaml(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                let key = Value::String(key.clone());
                nested(&format!("{pad}{key}:"), member, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                nested(&format!("{pad}-"), item, indent + 2, out);
            }
        }
        scalar => {
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "{pad}{scalar}");
        }
    }
}

fn nested(lead: &str, value: &Value, indent: usize, out: &mut String) {
    let empty = match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    out.push_str(lead);
    if empty {
        let _infallible = writeln!(out, " {value}");
    } else {
        out.push('\n');
        yaml(value, indent, out);
    }
}

/// `1.5 MiB`, for people.
pub(crate) fn bytes(n: u64) -> String {
    bytesize::ByteSize::b(n).display().iec().to_string()
}

/// `2h 3m`, `4.2s`, for people.
pub(crate) fn seconds(s: f64) -> String {
    let whole = s as u64;
    match whole {
        0..60 => format!("{s:.1}s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        _ => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_block_style_with_quoted_strings() {
        let value = serde_json::json!({"a": [1, {"b": "x: y"}], "c": {}, "d": null});
        let mut out = String::new();
        yaml(&value, 0, &mut out);
        expect_test::expect![[r#"
            "a":
              - 1
              -
                "b": "x: y"
            "c": {}
            "d": null
        "#]]
        .assert_eq(&out);
    }
}
