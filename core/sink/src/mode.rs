//! How rows meet those already there, as every SQL server's configuration spells it.

use serde::Deserialize;

/// How rows meet those already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every record is a row of its own; unique by (`_origin`, `_position`, `_ordinal`), so that a replay changes nothing.
    Append,
    /// Every key comes once; a record whose key is there already is put aside.
    Insert,
    /// The first record of a key is the row; later ones are dropped and counted, reason `existing`.
    Ignore,
    /// The last record of a key, or the one of the largest version, is the row.
    Upsert,
    /// Like `upsert`, but only for rows that are there; records without one are dropped and counted, reason `missing`.
    Update,
}

impl Mode {
    /// As the configuration spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Insert => "insert",
            Self::Ignore => "ignore",
            Self::Upsert => "upsert",
            Self::Update => "update",
        }
    }

    /// What it is where the configuration does not say.
    pub(crate) fn usual(has_key: bool) -> Self {
        if has_key { Self::Upsert } else { Self::Append }
    }

    /// Whether records that are delivered again leave the table as it is: not where an old row would cover a newer one, or
    /// be refused.
    pub(crate) fn survives_rewind(self, guarded: bool) -> bool {
        match self {
            Self::Append | Self::Ignore => true,
            Self::Upsert | Self::Update => guarded,
            Self::Insert => false,
        }
    }
}
