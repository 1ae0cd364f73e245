//! What of a destination's configuration may change while a pipeline lives, and what makes it another destination.
//!
//! In: a [`SinkConfig`]. Out: names and texts, for people and comparisons. Promise: never a secret.

use crate::SinkConfig;
use crate::changes::Truncate;
use crate::server::{ServerConfig, ServerShard};
use garam_stage::contract::OneOrMany;

impl SinkConfig {
    /// What rows and cursor belong to: the place, the table, and how its rows are told apart.
    pub fn identity(&self) -> Vec<(&'static str, String)> {
        let (place, table) = self.target();
        let (mode, key, version) = match self {
            Self::MySql(config) => of_server(&config.0),
            Self::Postgres(config) => of_server(&config.0),
            Self::Sqlite(config) => {
                let key = config.key.clone().map(OneOrMany::into_vec).unwrap_or_default();
                (format!("{:?}", config.mode()).to_lowercase(), key, None)
            }
        };
        let shard = |(name, shard): (String, Self)| {
            let (place, table) = shard.target();
            format!("{name} at {place} table {table}")
        };
        let shards: Vec<String> = self.shards().into_iter().skip(1).map(shard).collect();
        let shards = if shards.is_empty() { "none".to_owned() } else { shards.join(", ") };
        vec![
            ("shards", shards),
            ("place", place),
            ("table", table.to_owned()),
            ("mode", mode),
            ("key", key.join(", ")),
            ("version", version.unwrap_or_else(|| "none".into())),
        ]
    }

    /// What it is reached by and how long it is waited for.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MySql(config) => options_of_server(&config.0),
            Self::Postgres(config) => options_of_server(&config.0),
            Self::Sqlite(config) => vec![
                ("create", format!("{:?}", config.create).to_lowercase()),
                ("truncate", truncate(config.truncate)),
            ],
        }
    }
}

fn of_server(config: &ServerConfig) -> (String, Vec<String>, Option<String>) {
    (config.mode().name().to_owned(), config.key(), config.version.clone())
}

fn options_of_server(config: &ServerConfig) -> Vec<(&'static str, String)> {
    let ServerConfig { password_file, create, statement_timeout, .. } = config;
    let of_shard = |shard: &ServerShard| {
        let file = shard.password_file.as_ref()?;
        Some(format!("{} {}", shard.name, file.display()))
    };
    let files: Vec<String> = config.shard.iter().filter_map(of_shard).collect();
    let emptied = truncate(config.truncate);
    let file = password_file.as_ref().map_or("none".into(), |path| path.display().to_string());
    vec![
        ("password_file", file),
        ("create", format!("{create:?}").to_lowercase()),
        ("statement_timeout", format!("{statement_timeout:?}")),
        ("shard_password_files", if files.is_empty() { "none".into() } else { files.join(", ") }),
        ("truncate", emptied),
    ]
}

fn truncate(said: Option<Truncate>) -> String {
    format!("{:?}", said.unwrap_or(Truncate::Pause)).to_lowercase()
}
