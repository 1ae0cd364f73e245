//! The shards of a destination, each as a destination of its own.
//!
//! In: a configuration with `[[.. .shard]]`. Out: what each is called and where it is, the main one first; the map of the first
//! start. Promise: names and tables differ, and rows can be told apart by a key.

use arrow_schema::SchemaRef;
use garam_stage::contract::OneOrMany;
use garam_stage::{Failure, FailureKind, MAIN_SHARD, SlotMap, system};

use crate::SinkConfig;
use crate::mysql::MySqlConfig;
use crate::postgres::PostgresConfig;

/// The epoch of the first map; a destination that never had shards is of epoch 0.
const FIRST_EPOCH: u32 = 1;

impl SinkConfig {
    /// Every shard with its name, the main one first.
    pub fn shards(&self) -> Vec<(String, Self)> {
        let mut alone = self.clone();
        let more: Vec<(String, Self)> = match &mut alone {
            Self::MySql(config) => {
                let shards = std::mem::take(&mut config.0.shard);
                let one = |of| Self::MySql(Box::new(MySqlConfig(config.0.of_shard(of))));
                shards.iter().map(|shard| (shard.name.clone(), one(shard))).collect()
            }
            Self::Postgres(config) => {
                let shards = std::mem::take(&mut config.0.shard);
                let one = |of| Self::Postgres(Box::new(PostgresConfig(config.0.of_shard(of))));
                shards.iter().map(|shard| (shard.name.clone(), one(shard))).collect()
            }
            Self::Sqlite(config) => {
                let shards = std::mem::take(&mut config.shard);
                let one = |of| Self::Sqlite(config.of_shard(of));
                shards.iter().map(|shard| (shard.name.clone(), one(shard))).collect()
            }
        };
        std::iter::once((MAIN_SHARD.to_owned(), alone)).chain(more).collect()
    }

    /// The map of a pipeline that begins with this configuration.
    pub fn first_map(&self) -> SlotMap {
        let names = self.shard_names();
        SlotMap::even(if names.len() > 1 { FIRST_EPOCH } else { 0 }, &names)
    }

    /// What the shards are called, the main one first.
    pub fn shard_names(&self) -> Vec<String> {
        self.shards().into_iter().map(|(name, _)| name).collect()
    }

    /// The shard of a name.
    pub(crate) fn shard_of(&self, name: &str) -> Result<Self, Failure> {
        let found = self.shards().into_iter().find(|(own, _)| own == name);
        let missing = || {
            let text = format!(
                "the slot map names shard {name}, which the configuration lacks: put it back"
            );
            Failure::new(FailureKind::Config, text)
        };
        found.map(|(_, shard)| shard).ok_or_else(missing)
    }

    /// The columns of the key.
    pub(crate) fn key(&self) -> Vec<String> {
        match self {
            Self::MySql(config) => config.0.key(),
            Self::Postgres(config) => config.0.key(),
            Self::Sqlite(config) => config.key.clone().map(OneOrMany::into_vec).unwrap_or_default(),
        }
    }

    pub(crate) fn check_shards(&self, schema: &SchemaRef) -> Result<(), Failure> {
        let shards = self.shards();
        if shards.len() == 1 {
            return Ok(());
        }
        let invalid = |text: String| Err(Failure::new(FailureKind::Config, text));
        if self.key().is_empty() {
            return invalid(
                "shards take rows by their key, and mode \"append\" has none: say key = [..] and another mode, or leave the \
                 shards out"
                    .into(),
            );
        }
        if schema.field_with_name(system::OP).is_ok() {
            return invalid(
                "row changes cannot be spread over shards: a changed key is two rows of one record, and a truncation has no key: \
                 leave the shards out, or read the stream with another format"
                    .into(),
            );
        }
        if shards.len() > MOST {
            return invalid(format!("{} shards are more than {MOST}", shards.len()));
        }
        for (i, (name, shard)) in shards.iter().enumerate() {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > 63 || !name.chars().all(is_name) {
                return invalid(format!(
                    "shard name {name:?} cannot be used: 1 to 63 letters, digits, - and _"
                ));
            }
            for (other, before) in shards.iter().take(i) {
                if name == other {
                    return invalid(format!(
                        "two shards are called {name} (main is the destination itself)"
                    ));
                }
                let same_file =
                    matches!(shard, Self::Sqlite(_)) && shard.target().0 == before.target().0;
                if shard.target() == before.target() || same_file {
                    return invalid(format!(
                        "shards {other} and {name} are the same place: each needs one of its own"
                    ));
                }
            }
            if i > 0 {
                shard.check(schema).map_err(|failure| of_shard(name, failure))?;
            }
        }
        Ok(())
    }
}

/// More would be one connection each, for every partition of the stream.
const MOST: usize = 64;

/// Says in which shard something failed.
pub(crate) fn of_shard(name: &str, failure: Failure) -> Failure {
    Failure { what: format!("shard {name}: {}", failure.what), ..failure }
}
