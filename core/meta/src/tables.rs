//! Names and their ids, plans, certificates.
//!
//! Statements that return rows are read to their end: SQLite commits when a statement is finished, not when it has
//! returned its first row. What is stored already is not written again: a core must also start on a full disk.

use std::time::{SystemTime, UNIX_EPOCH};

use garam_proto::{AgentId, PipelineId, StreamName};
use garam_stage::PlanId;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::Meta;
use crate::error::MetaError;

/// A pipeline that was seen at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineRecord {
    pub name: String,
    pub id: PipelineId,
    pub stream: String,
    /// What the operator calls the destination.
    pub destination: String,
    pub first_seen_us: i64,
}

/// A certificate this installation issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedAgent {
    pub agent: AgentId,
    pub name: String,
    /// Serial number of the certificate, as text.
    pub serial: String,
    pub issued_us: i64,
    pub expires_us: i64,
}

impl Meta {
    /// The id of a stream, minted at first sight.
    pub async fn stream(&self, name: &StreamName) -> Result<Uuid, MetaError> {
        let sql = "INSERT INTO streams (name, id, first_seen_us) VALUES (?, ?, ?) \
                   ON CONFLICT (name) DO UPDATE SET name = name RETURNING id";
        let query = sqlx::query_scalar(sql)
            .bind(name.as_str())
            .bind(Uuid::new_v4().to_string())
            .bind(now_us());
        let mut connection = self.connection.lock().await;
        let known = sqlx::query_scalar("SELECT id FROM streams WHERE name = ?").bind(name.as_str());
        let failed = |source| self.error("register a stream in", source);
        let mut ids: Vec<String> = known.fetch_all(&mut *connection).await.map_err(failed)?;
        if ids.is_empty() {
            ids = query.fetch_all(&mut *connection).await.map_err(failed)?;
        }
        self.copy_anew(&mut connection).await;
        self.parsed("a stream's id", ids.first())
    }

    /// The id of a pipeline, minted at first sight of its name and the same for ever. What it reads and writes is noted
    /// for people.
    pub async fn pipeline(
        &self,
        name: &str,
        stream: &StreamName,
        destination: &str,
    ) -> Result<PipelineId, MetaError> {
        let sql = "INSERT INTO pipelines (name, id, stream, destination, first_seen_us) VALUES (?, ?, ?, ?, ?) \
                   ON CONFLICT (name) DO UPDATE SET stream = excluded.stream, destination = excluded.destination \
                   RETURNING id";
        let query = sqlx::query_scalar(sql)
            .bind(name.to_owned())
            .bind(Uuid::new_v4().to_string())
            .bind(stream.as_str())
            .bind(destination.to_owned())
            .bind(now_us());
        let known = sqlx::query_scalar(
            "SELECT id FROM pipelines WHERE name = ? AND stream = ? AND destination = ?",
        );
        let known = known.bind(name.to_owned()).bind(stream.as_str()).bind(destination.to_owned());
        let mut connection = self.connection.lock().await;
        let failed = |source| self.error("register a pipeline in", source);
        let mut ids: Vec<String> = known.fetch_all(&mut *connection).await.map_err(failed)?;
        if ids.is_empty() {
            ids = query.fetch_all(&mut *connection).await.map_err(failed)?;
        }
        self.copy_anew(&mut connection).await;
        self.parsed("a pipeline's id", ids.first())
    }

    /// All pipelines ever seen, by name.
    pub async fn pipelines(&self) -> Result<Vec<PipelineRecord>, MetaError> {
        let sql =
            "SELECT name, id, stream, destination, first_seen_us FROM pipelines ORDER BY name";
        let rows = self.rows("list the pipelines of", sql).await?;
        rows.iter()
            .map(|row| {
                Ok(PipelineRecord {
                    name: self.column(row, 0)?,
                    id: self.parsed("a pipeline's id", Some(&self.column(row, 1)?))?,
                    stream: self.column(row, 2)?,
                    destination: self.column(row, 3)?,
                    first_seen_us: self.column(row, 4)?,
                })
            })
            .collect()
    }

    /// Keeps a plan's full text and, where it may have to be made again, what it was made of. Durable before the plan may be
    /// used.
    pub async fn plan(
        &self,
        id: PlanId,
        text: &str,
        recipe: Option<&str>,
    ) -> Result<(), MetaError> {
        let failed = |source| self.error("store a plan in", source);
        let recipe = recipe.map(str::to_owned);
        let mut connection = self.connection.lock().await;
        let known = sqlx::query_as("SELECT text, recipe FROM plans WHERE id = ?");
        let known: Option<(String, Option<String>)> = known
            .bind(id.0.cast_signed())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        match known {
            Some((known, _)) if known != text => {
                return Err(MetaError::PlanCollision { id: id.0 });
            }
            Some((_, noted)) if noted.is_some() || recipe.is_none() => {}
            _ => {
                let sql = "INSERT INTO plans (id, text, first_seen_us, recipe) VALUES (?, ?, ?, ?) \
                           ON CONFLICT (id) DO UPDATE SET recipe = excluded.recipe";
                let query = sqlx::query(sql).bind(id.0.cast_signed()).bind(text.to_owned());
                let query = query.bind(now_us()).bind(recipe);
                query.execute(&mut *connection).await.map_err(failed)?;
            }
        }
        self.copy_anew(&mut connection).await;
        Ok(())
    }

    /// The full text of a plan, if it was ever stored.
    pub async fn plan_text(&self, id: PlanId) -> Result<Option<String>, MetaError> {
        self.of_plan(id, "SELECT text FROM plans WHERE id = ?").await
    }

    /// What a plan was made of, if that was noted.
    pub async fn recipe(&self, id: PlanId) -> Result<Option<String>, MetaError> {
        self.of_plan(id, "SELECT recipe FROM plans WHERE id = ? AND recipe IS NOT NULL").await
    }

    async fn of_plan(&self, id: PlanId, sql: &'static str) -> Result<Option<String>, MetaError> {
        let query = sqlx::query_scalar(sql).bind(id.0.cast_signed());
        let mut connection = self.connection.lock().await;
        let found = query.fetch_optional(&mut *connection).await;
        found.map_err(|source| self.error("read a plan from", source))
    }

    /// Notes a certificate that was issued. Noting the same serial number again changes nothing.
    pub async fn record_agent(&self, agent: &IssuedAgent) -> Result<(), MetaError> {
        let sql = "INSERT INTO agents (serial, agent, name, issued_us, expires_us) VALUES (?, ?, ?, ?, ?) \
                   ON CONFLICT (serial) DO NOTHING";
        let query = sqlx::query(sql)
            .bind(agent.serial.clone())
            .bind(agent.agent.to_string())
            .bind(agent.name.clone())
            .bind(agent.issued_us)
            .bind(agent.expires_us);
        let mut connection = self.connection.lock().await;
        query
            .execute(&mut *connection)
            .await
            .map_err(|source| self.error("record an agent in", source))?;
        self.copy_anew(&mut connection).await;
        Ok(())
    }

    /// All certificates issued, by name, the newest of a name last.
    pub async fn agents(&self) -> Result<Vec<IssuedAgent>, MetaError> {
        let sql = "SELECT agent, name, serial, issued_us, expires_us FROM agents \
                   ORDER BY name, issued_us, serial";
        let rows = self.rows("list the agents of", sql).await?;
        rows.iter()
            .map(|row| {
                Ok(IssuedAgent {
                    agent: self.parsed("an agent's id", Some(&self.column(row, 0)?))?,
                    name: self.column(row, 1)?,
                    serial: self.column(row, 2)?,
                    issued_us: self.column(row, 3)?,
                    expires_us: self.column(row, 4)?,
                })
            })
            .collect()
    }

    pub(crate) async fn rows(
        &self,
        action: &'static str,
        sql: &'static str,
    ) -> Result<Vec<SqliteRow>, MetaError> {
        let mut connection = self.connection.lock().await;
        let rows = sqlx::query(sql).fetch_all(&mut *connection).await;
        rows.map_err(|source| self.error(action, source))
    }

    pub(crate) fn column<'r, T>(&self, row: &'r SqliteRow, index: usize) -> Result<T, MetaError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(index).map_err(|source| self.error("read a row of", source))
    }

    /// Somebody may have edited the file, so stored text is parsed like any other.
    pub(crate) fn parsed<T: std::str::FromStr>(
        &self,
        what: &'static str,
        text: Option<&String>,
    ) -> Result<T, MetaError> {
        let text = text.map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| MetaError::Stored {
            path: self.path.clone(),
            what,
            found: text.to_owned(),
        })
    }
}

/// Wall time, for people; nothing is decided by it.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
