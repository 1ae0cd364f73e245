//! Reads `garam.toml` and the files beside it in `conf.d`, merges them and refuses what appears twice.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::Config;

/// Why a configuration cannot be used. Exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read configuration {}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("configuration {}: {error}", .path.display())]
    Syntax { path: PathBuf, error: Box<toml::de::Error> },
    #[error("configuration key {key} is set in {} and again in {}: keep one", .first.display(), .second.display())]
    Twice { key: String, first: PathBuf, second: PathBuf },
    #[error("configuration {}, key {key}: environment variable {name} is not set", .path.display())]
    Env { path: PathBuf, key: String, name: String },
    #[error("configuration key {key}: {why}")]
    Invalid { key: String, why: String },
    #[error("configuration {}: {error}", .path.display())]
    Shape { path: PathBuf, error: Box<toml::de::Error> },
}

/// Reads a configuration file and `conf.d/*.toml` beside it, in the order of their names.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut files = vec![path.to_path_buf()];
    files.extend(conf_d(path)?);
    let mut sources = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| ConfigError::Read { path: file.clone(), error })?;
        sources.push((file, text));
    }
    merge(&sources)
}

/// Parses one text, for tests and for configurations that Garam writes itself.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
    merge(&[(PathBuf::from(name), text.to_owned())])
}

fn conf_d(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.parent().unwrap_or(Path::new(".")).join("conf.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConfigError::Read { path: folder, error }),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| ConfigError::Read { path: folder.clone(), error })?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn merge(sources: &[(PathBuf, String)]) -> Result<Config, ConfigError> {
    let mut whole = Table::new();
    let mut origins = Vec::new();
    for (path, text) in sources {
        let table: Table = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.clone(), error: Box::new(error) })?;
        let table = expand_table(path, "", table)?;
        merge_table(&mut whole, table, "", path, &mut origins)?;
    }
    let main = sources.first().map(|(path, _)| path.clone()).unwrap_or_default();
    Config::deserialize(Value::Table(whole)).map_err(|error| locate(sources, main, error))
}

/// Finds the line of an error where one file makes the whole configuration; names the main file otherwise.
fn locate(sources: &[(PathBuf, String)], main: PathBuf, error: toml::de::Error) -> ConfigError {
    let spanned = match sources {
        [(_, text)] if !text.contains("${env:") => toml::from_str::<Config>(text).err(),
        _ => None,
    };
    ConfigError::Shape { path: main, error: Box::new(spanned.unwrap_or(error)) }
}

/// `${env:NAME}` as a whole value becomes the variable's text; anywhere else it stays as it is.
fn expand_table(path: &Path, prefix: &str, table: Table) -> Result<Table, ConfigError> {
    let expand = |(key, value): (String, Value)| {
        let full = join(prefix, &key);
        let value = expand_value(path, &full, value)?;
        Ok((key, value))
    };
    table.into_iter().map(expand).collect()
}

fn expand_value(path: &Path, key: &str, value: Value) -> Result<Value, ConfigError> {
    Ok(match value {
        Value::String(text) => {
            let name = text.strip_prefix("${env:").and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) => Value::String(std::env::var(name).map_err(|_| ConfigError::Env {
                    path: path.into(),
                    key: key.into(),
                    name: name.into(),
                })?),
                None => Value::String(text),
            }
        }
        Value::Table(table) => Value::Table(expand_table(path, key, table)?),
        Value::Array(items) => {
            let expand = |item| expand_value(path, key, item);
            Value::Array(items.into_iter().map(expand).collect::<Result<_, _>>()?)
        }
        other => other,
    })
}

fn merge_table(
    whole: &mut Table,
    part: Table,
    prefix: &str,
    path: &Path,
    origins: &mut Vec<(String, PathBuf)>,
) -> Result<(), ConfigError> {
    for (key, value) in part {
        let full = join(prefix, &key);
        match (whole.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(more)) => {
                merge_table(there, more, &full, path, origins)?;
            }
            (Some(_), _) => {
                let earlier = |(known, _): &&(String, PathBuf)| *known == full;
                let first = origins.iter().find(earlier).map(|(_, path)| path.clone());
                return Err(ConfigError::Twice {
                    key: full,
                    first: first.unwrap_or_default(),
                    second: path.into(),
                });
            }
            (None, Value::Table(table)) => {
                let mut fresh = Table::new();
                merge_table(&mut fresh, table, &full, path, origins)?;
                whole.insert(key, Value::Table(fresh));
            }
            (None, value) => {
                origins.push((full, path.into()));
                whole.insert(key, value);
            }
        }
    }
    Ok(())
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}
