//! Who an agent is: the host and policy behind its id, the key it is bound to, and the key it may change to.
//!
//! ```text
//! generation  1          2            3          a certificate carries its generation; each new key has a higher one
//!             bound ───► next         ·
//!                        └ used ────► bound      only then the older key counts no more
//! ```
//!
//! In: keys that the core is about to sign. Out: the generation to sign them under, and the record. Promise: the certificate
//! leaves the core only after the record that knows its key is on stable storage; a change of keys that is cut anywhere leaves
//! a key that works; a revocation covers every generation up to the one it names, for ever.
//! Not here: certificates, limits of renewal and recovery (the core), who may ask.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use garam_proto::AgentId;
use sqlx::sqlite::SqliteRow;
use sqlx::{ConnectOptions as _, SqliteConnection};

use crate::error::MetaError;
use crate::tables::now_us;
use crate::{Meta, options};

/// SHA-256 of a public key as it lies in a certificate (SubjectPublicKeyInfo, DER).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not the SHA-256 of a key: 64 hexadecimal digits")]
pub struct NotAHash;

impl FromStr for KeyHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(NotAHash);
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| NotAHash)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAHash)?;
        }
        Ok(Self(hash))
    }
}

/// An agent as this installation knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub agent: AgentId,
    pub host: String,
    /// What it may do, by name; `None`: everything.
    pub policy: Option<String>,
    pub generation: u64,
    pub key_hash: KeyHash,
    /// A key that was signed and not used yet.
    pub next: Option<(u64, KeyHash)>,
    /// How often it came back after its certificate had ended, since it was enrolled.
    pub recoveries: u32,
    /// When the newest certificate ends.
    pub expires_us: i64,
}

/// A key that an agent has shown to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    pub generation: u64,
    pub key_hash: KeyHash,
}

/// A key that is to be signed for an agent.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub agent: AgentId,
    pub host: String,
    pub policy: Option<String>,
    pub key_hash: KeyHash,
    /// By which key the agent asks; `None`: the operator asks for it.
    pub proven: Option<Proven>,
    /// It comes back after its certificate had ended: at most so many times.
    pub recoveries: Option<u32>,
}

/// What a certificate is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub agent: AgentId,
    pub host: String,
    pub policy: Option<String>,
    pub generation: u64,
}

/// A signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The certificate and its issuer, PEM.
    pub chain: String,
    pub expires_us: i64,
}

/// Why a key was not bound to an agent.
#[derive(Debug, thiserror::Error)]
pub enum GrantError<E> {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("agent {0} is revoked")]
    Revoked(AgentId),
    #[error("agent {0} has come back after its certificate's end as often as is allowed")]
    TooManyRecoveries(AgentId),
    #[error(transparent)]
    Sign(E),
}

const COLUMNS: &str = "agent, host, policy, generation, key_hash, next_generation, next_key_hash, recoveries, expires_us";

impl Meta {
    pub async fn identity(&self, agent: AgentId) -> Result<Option<Identity>, MetaError> {
        self.read_identity(&mut *self.connection.lock().await, agent).await
    }

    /// All agents, by host.
    pub async fn identities(&self) -> Result<Vec<Identity>, MetaError> {
        let sql = format!("SELECT {COLUMNS} FROM identities ORDER BY host, agent");
        let mut connection = self.connection.lock().await;
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *connection).await;
        let rows = rows.map_err(|source| self.error("list the agents of", source))?;
        rows.iter().map(|row| self.decoded_identity(row)).collect()
    }

    /// Binds a key to an agent and has it signed, in one commit. A new agent is bound at once, one that is known changes to
    /// the key when it first uses it.
    pub async fn grant<E>(
        &self,
        proposal: &Proposal,
        sign: impl FnOnce(&Grant) -> Result<Signed, E>,
    ) -> Result<(Grant, Signed), GrantError<E>> {
        let mut connection = self.begin().await?;
        let granted = self.bind(&mut connection, proposal, sign).await?;
        self.commit(connection).await?;
        Ok(granted)
    }

    /// The agent has used this key: it is bound to it from now on.
    pub async fn settle(&self, agent: AgentId, proven: Proven) -> Result<(), MetaError> {
        let sql = "UPDATE identities SET generation = ?1, key_hash = ?2, next_generation = NULL, next_key_hash = NULL, \
                   changed_us = ?3 WHERE agent = ?4 AND generation < ?1";
        let query = sqlx::query(sql)
            .bind(stored(proven.generation)?)
            .bind(proven.key_hash.to_string())
            .bind(now_us())
            .bind(agent.to_string());
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("change the key of an agent in", source))
    }

    /// From now on no certificate of the agent counts, up to this generation.
    pub async fn revoke(&self, agent: AgentId, generation: u64) -> Result<(), MetaError> {
        let sql = "INSERT INTO revocations (agent, generation, revoked_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
        let query =
            sqlx::query(sql).bind(agent.to_string()).bind(stored(generation)?).bind(now_us());
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map_err(|source| self.error("revoke an agent in", source))?;
        self.copy_anew(&mut connection).await;
        Ok(())
    }

    /// The highest revoked generation of each agent that was ever revoked.
    pub async fn revocations(&self) -> Result<BTreeMap<AgentId, u64>, MetaError> {
        let sql = "SELECT agent, max(generation) FROM revocations GROUP BY agent";
        let mut connection = self.connection.lock().await;
        let rows = sqlx::query(sql).fetch_all(&mut *connection).await;
        let rows = rows.map_err(|source| self.error("list the revoked agents of", source))?;
        rows.iter()
            .map(|row| {
                let agent = self.parsed("an agent's id", Some(&self.column(row, 0)?))?;
                Ok((agent, number(self.column(row, 1)?)))
            })
            .collect()
    }

    /// Changes whenever another process has written to the file.
    pub async fn foreign_writes(&self) -> Result<i64, MetaError> {
        let mut connection = self.connection.lock().await;
        sqlx::query_scalar("SELECT data_version FROM pragma_data_version")
            .fetch_one(&mut *connection)
            .await
            .map_err(|source| self.error("look for changes in", source))
    }

    pub(crate) async fn bind<E>(
        &self,
        connection: &mut SqliteConnection,
        proposal: &Proposal,
        sign: impl FnOnce(&Grant) -> Result<Signed, E>,
    ) -> Result<(Grant, Signed), GrantError<E>> {
        let agent = proposal.agent;
        let record = self.read_identity(connection, agent).await?;
        let revoked = self.revoked_through(connection, agent).await?;
        let bound =
            record.as_ref().map(|r| Proven { generation: r.generation, key_hash: r.key_hash });
        let bound = bound.or(proposal.proven);
        let is_revoked = |known: Proven| revoked.is_some_and(|through| known.generation <= through);
        if proposal.proven.is_some_and(is_revoked) {
            return Err(GrantError::Revoked(agent));
        }
        let recoveries = record.as_ref().map_or(0, |record| record.recoveries);
        // The answer to the same question was lost.
        let again = record.as_ref().and_then(|record| record.next);
        let again = again.filter(|(_, key_hash)| *key_hash == proposal.key_hash);
        if again.is_none() && proposal.recoveries.is_some_and(|limit| recoveries >= limit) {
            return Err(GrantError::TooManyRecoveries(agent));
        }
        let next = record.as_ref().and_then(|record| record.next).map(|(generation, _)| generation);
        let known =
            [bound.map(|b| b.generation), proposal.proven.map(|p| p.generation), next, revoked];
        let generation = match again {
            Some((generation, _)) => generation,
            None => known.into_iter().flatten().max().unwrap_or(0) + 1,
        };
        let grant = Grant {
            agent,
            host: record.as_ref().map_or(&proposal.host, |record| &record.host).clone(),
            policy: match (&record, proposal.proven) {
                (Some(record), Some(_)) => record.policy.clone(),
                _ => proposal.policy.clone(),
            },
            generation,
        };
        let signed = sign(&grant).map_err(GrantError::Sign)?;
        let new = Proven { generation, key_hash: proposal.key_hash };
        // A revoked key has nothing to go on with: the new one counts at once.
        let (bound, next) = match bound {
            Some(bound) if !is_revoked(bound) => (bound, Some(new)),
            _ => (new, None),
        };
        let recoveries = match (proposal.proven, proposal.recoveries) {
            (None, _) => 0,
            (Some(_), None) => recoveries,
            (Some(_), Some(_)) => recoveries + u32::from(again.is_none()),
        };
        let sql = "INSERT INTO identities (agent, host, policy, generation, key_hash, next_generation, next_key_hash, \
                   recoveries, expires_us, changed_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                   ON CONFLICT (agent) DO UPDATE SET policy = excluded.policy, generation = excluded.generation, \
                   key_hash = excluded.key_hash, next_generation = excluded.next_generation, \
                   next_key_hash = excluded.next_key_hash, recoveries = excluded.recoveries, \
                   expires_us = excluded.expires_us, changed_us = excluded.changed_us";
        let done = sqlx::query(sql)
            .bind(agent.to_string())
            .bind(grant.host.clone())
            .bind(grant.policy.clone())
            .bind(stored(bound.generation)?)
            .bind(bound.key_hash.to_string())
            .bind(next.map(|next| stored(next.generation)).transpose()?)
            .bind(next.map(|next| next.key_hash.to_string()))
            .bind(i64::from(recoveries))
            .bind(signed.expires_us)
            .bind(now_us())
            .execute(&mut *connection)
            .await;
        done.map_err(|source| self.error("bind a key to an agent in", source))?;
        Ok((grant, signed))
    }

    /// A connection of its own with a transaction that may write. Dropped without [`Self::commit`] nothing has happened.
    pub(crate) async fn begin(&self) -> Result<SqliteConnection, MetaError> {
        let failed = |source| self.error("begin a change of", source);
        let opened = options(&self.path).pragma("synchronous", "FULL").connect().await;
        let mut connection = opened.map_err(failed)?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(failed)?;
        Ok(connection)
    }

    pub(crate) async fn commit(&self, mut connection: SqliteConnection) -> Result<(), MetaError> {
        let done = sqlx::query("COMMIT").execute(&mut connection).await;
        done.map_err(|source| self.error("commit a change of", source))?;
        self.copy_anew(&mut *self.connection.lock().await).await;
        Ok(())
    }

    pub(crate) async fn read_identity(
        &self,
        connection: &mut SqliteConnection,
        agent: AgentId,
    ) -> Result<Option<Identity>, MetaError> {
        let sql = format!("SELECT {COLUMNS} FROM identities WHERE agent = ?");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(agent.to_string());
        let row = query.fetch_optional(connection).await;
        let row = row.map_err(|source| self.error("read an agent from", source))?;
        row.map(|row| self.decoded_identity(&row)).transpose()
    }

    pub(crate) async fn revoked_through(
        &self,
        connection: &mut SqliteConnection,
        agent: AgentId,
    ) -> Result<Option<u64>, MetaError> {
        let sql = "SELECT max(generation) FROM revocations WHERE agent = ?";
        let query = sqlx::query_scalar(sql).bind(agent.to_string());
        let through: Result<Option<i64>, _> = query.fetch_one(connection).await;
        let through = through.map_err(|source| self.error("read a revocation from", source))?;
        Ok(through.map(number))
    }

    fn decoded_identity(&self, row: &SqliteRow) -> Result<Identity, MetaError> {
        let key = |what, index| self.parsed(what, Some(&self.column(row, index)?));
        let (generation, text): (Option<i64>, Option<String>) =
            (self.column(row, 5)?, self.column(row, 6)?);
        let next = match (generation, text) {
            (Some(generation), Some(text)) => {
                Some((number(generation), self.parsed("an agent's next key", Some(&text))?))
            }
            _ => None,
        };
        let recoveries: i64 = self.column(row, 7)?;
        Ok(Identity {
            agent: self.parsed("an agent's id", Some(&self.column(row, 0)?))?,
            host: self.column(row, 1)?,
            policy: self.column(row, 2)?,
            generation: number(self.column(row, 3)?),
            key_hash: key("an agent's key", 4)?,
            next,
            recoveries: u32::try_from(recoveries).unwrap_or(u32::MAX),
            expires_us: self.column(row, 8)?,
        })
    }
}

fn stored(generation: u64) -> Result<i64, MetaError> {
    let what = "a generation";
    i64::try_from(generation).map_err(|_| MetaError::TooLarge { what, value: generation })
}

fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
