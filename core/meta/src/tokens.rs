//! Tokens: who may still enrol, and who has.
//!
//! In: what an operator allows; a key that somebody with the token's secret wants signed. Out: the agent it became. Promise:
//! the use of a token, the agent's record, the hash of its key and the certificate are one commit; the same token with the
//! same key gets the same certificate again, as often as it asks while the token lives; no secret is ever here, only its hash.
//! Not here: comparing secrets and addresses (the core, before it calls [`Meta::enrol`]).

use garam_proto::AgentId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::Meta;
use crate::error::MetaError;
use crate::identities::{Grant, GrantError, KeyHash, Proposal, Signed};
use crate::tables::now_us;

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Public, random.
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_hash: KeyHash,
    /// The host's name, or a pattern for a token of several uses.
    pub host: String,
    pub policy: Option<String>,
    /// The agent whose id the host takes over.
    pub replaces: Option<AgentId>,
    /// Where it may be used, as text; empty: anywhere.
    pub networks: Vec<String>,
    pub uses: u32,
    pub expires_us: i64,
}

/// A token as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub token: NewToken,
    pub created_us: i64,
    pub revoked: bool,
    pub used: u32,
}

impl TokenRecord {
    /// Whether it could be used at this time by a key that has not used it yet.
    pub fn is_open(&self, now_us: i64) -> bool {
        !self.revoked && self.used < self.token.uses && now_us < self.token.expires_us
    }
}

/// Somebody who has shown the token's secret wants a key signed.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The token's id.
    pub token: String,
    /// The name the host gets.
    pub host: String,
    pub key_hash: KeyHash,
    pub now_us: i64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    pub agent: AgentId,
    pub host: String,
    pub chain: String,
    /// The same was asked before and is answered again.
    pub again: bool,
}

/// Why a token does not open anything. For the operator: whoever enrols is not told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("unknown token")]
    Unknown,
    #[error("the token has expired")]
    Expired,
    #[error("the token was used")]
    Used,
    #[error("the token was revoked")]
    Revoked,
    #[error("another agent has this host's name: replace or revoke it")]
    HostTaken,
    #[error("the agent it replaces is not known any more")]
    NothingToReplace,
}

const COLUMNS: &str = "id, secret_hash, host, policy, replaces, networks, uses, expires_us, created_us, revoked_us, \
                       (SELECT count(*) FROM enrolments WHERE token = id)";

impl Meta {
    pub async fn create_token(&self, token: &NewToken) -> Result<(), MetaError> {
        let sql = "INSERT INTO tokens (id, secret_hash, host, policy, replaces, networks, uses, created_us, expires_us) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let query = sqlx::query(sql)
            .bind(token.id.clone())
            .bind(token.secret_hash.to_string())
            .bind(token.host.clone())
            .bind(token.policy.clone())
            .bind(token.replaces.map(|agent| agent.to_string()))
            .bind(token.networks.join(" "))
            .bind(i64::from(token.uses))
            .bind(now_us())
            .bind(token.expires_us);
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        done.map(drop).map_err(|source| self.error("store a token in", source))
    }

    /// All tokens ever made, the newest last.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, MetaError> {
        let sql = format!("SELECT {COLUMNS} FROM tokens ORDER BY created_us, id");
        let mut connection = self.connection.lock().await;
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *connection).await;
        let rows = rows.map_err(|source| self.error("list the tokens of", source))?;
        rows.iter().map(|row| self.decoded_token(row)).collect()
    }

    pub async fn token(&self, id: &str) -> Result<Option<TokenRecord>, MetaError> {
        self.read_token(&mut *self.connection.lock().await, id).await
    }

    /// Whether there was such a token.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, MetaError> {
        let sql = "UPDATE tokens SET revoked_us = coalesce(revoked_us, ?) WHERE id = ?";
        let query = sqlx::query(sql).bind(now_us()).bind(id.to_owned());
        let mut connection = self.connection.lock().await;
        let done = query.execute(&mut *connection).await;
        let done = done.map_err(|source| self.error("revoke a token in", source))?;
        Ok(done.rows_affected() > 0)
    }

    /// Uses a token up and makes the agent, in one commit; or answers again what the same key was answered before.
    pub async fn enrol<E>(
        &self,
        enrolment: &Enrolment,
        sign: impl FnOnce(&Grant) -> Result<Signed, E>,
    ) -> Result<Result<Enrolled, Unusable>, GrantError<E>> {
        let mut connection = self.begin().await?;
        let token = match self.usable(&mut connection, enrolment).await? {
            Ok(Usable::Open(token)) => token,
            Ok(Usable::Again(enrolled)) => return Ok(Ok(enrolled)),
            Err(unusable) => return Ok(Err(unusable)),
        };
        let proposal = Proposal {
            agent: token.replaces.unwrap_or_else(|| AgentId(*uuid::Uuid::new_v4().as_bytes())),
            host: enrolment.host.clone(),
            policy: token.policy,
            key_hash: enrolment.key_hash,
            proven: None,
            recoveries: None,
        };
        let (grant, signed) = self.bind(&mut connection, &proposal, sign).await?;
        let sql = "INSERT INTO enrolments (token, key_hash, agent, host, chain, enrolled_us) VALUES (?, ?, ?, ?, ?, ?)";
        let done = sqlx::query(sql)
            .bind(token.id)
            .bind(enrolment.key_hash.to_string())
            .bind(grant.agent.to_string())
            .bind(grant.host.clone())
            .bind(signed.chain.clone())
            .bind(enrolment.now_us)
            .execute(&mut connection)
            .await;
        done.map_err(|source| self.error("use a token of", source))?;
        self.commit(connection).await?;
        let Grant { agent, host, .. } = grant;
        Ok(Ok(Enrolled { agent, host, chain: signed.chain, again: false }))
    }

    async fn usable(
        &self,
        connection: &mut SqliteConnection,
        enrolment: &Enrolment,
    ) -> Result<Result<Usable, Unusable>, MetaError> {
        let Some(record) = self.read_token(connection, &enrolment.token).await? else {
            return Ok(Err(Unusable::Unknown));
        };
        if record.revoked {
            return Ok(Err(Unusable::Revoked));
        }
        if enrolment.now_us >= record.token.expires_us {
            return Ok(Err(Unusable::Expired));
        }
        if let Some(before) = self.answered(connection, enrolment).await? {
            return Ok(Ok(Usable::Again(before)));
        }
        if record.used >= record.token.uses {
            return Ok(Err(Unusable::Used));
        }
        let agent = match record.token.replaces {
            Some(agent) => match self.read_identity(connection, agent).await? {
                Some(_) => None,
                None => return Ok(Err(Unusable::NothingToReplace)),
            },
            None => self.agent_of(connection, &enrolment.host).await?,
        };
        Ok(match agent {
            Some(_) => Err(Unusable::HostTaken),
            None => Ok(Usable::Open(record.token)),
        })
    }

    async fn answered(
        &self,
        connection: &mut SqliteConnection,
        enrolment: &Enrolment,
    ) -> Result<Option<Enrolled>, MetaError> {
        let sql = "SELECT agent, host, chain FROM enrolments WHERE token = ? AND key_hash = ?";
        let query =
            sqlx::query(sql).bind(enrolment.token.clone()).bind(enrolment.key_hash.to_string());
        let row = query.fetch_optional(connection).await;
        let row = row.map_err(|source| self.error("read an enrolment from", source))?;
        row.map(|row| {
            Ok(Enrolled {
                agent: self.parsed("an agent's id", Some(&self.column(&row, 0)?))?,
                host: self.column(&row, 1)?,
                chain: self.column(&row, 2)?,
                again: true,
            })
        })
        .transpose()
    }

    async fn agent_of(
        &self,
        connection: &mut SqliteConnection,
        host: &str,
    ) -> Result<Option<AgentId>, MetaError> {
        let sql = "SELECT agent FROM identities WHERE host = ?";
        let found = sqlx::query_scalar(sql).bind(host.to_owned()).fetch_all(connection).await;
        let found: Vec<String> =
            found.map_err(|source| self.error("look for a host in", source))?;
        found.first().map(|agent| self.parsed("an agent's id", Some(agent))).transpose()
    }

    async fn read_token(
        &self,
        connection: &mut SqliteConnection,
        id: &str,
    ) -> Result<Option<TokenRecord>, MetaError> {
        let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = ?");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_owned());
        let row = query.fetch_optional(connection).await;
        let row = row.map_err(|source| self.error("read a token from", source))?;
        row.map(|row| self.decoded_token(&row)).transpose()
    }

    fn decoded_token(&self, row: &SqliteRow) -> Result<TokenRecord, MetaError> {
        let count = |index| -> Result<u32, MetaError> {
            let stored: i64 = self.column(row, index)?;
            Ok(u32::try_from(stored).unwrap_or(u32::MAX))
        };
        let replaces: Option<String> = self.column(row, 4)?;
        let networks: String = self.column(row, 5)?;
        let revoked: Option<i64> = self.column(row, 9)?;
        Ok(TokenRecord {
            token: NewToken {
                id: self.column(row, 0)?,
                secret_hash: self.parsed("a token's hash", Some(&self.column(row, 1)?))?,
                host: self.column(row, 2)?,
                policy: self.column(row, 3)?,
                replaces: replaces
                    .map(|agent| self.parsed("an agent's id", Some(&agent)))
                    .transpose()?,
                networks: networks.split_whitespace().map(str::to_owned).collect(),
                uses: count(6)?,
                expires_us: self.column(row, 7)?,
            },
            created_us: self.column(row, 8)?,
            revoked: revoked.is_some(),
            used: count(10)?,
        })
    }
}

enum Usable {
    Open(NewToken),
    Again(Enrolled),
}
