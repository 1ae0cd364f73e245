//! `[dimension.NAME]`: which table, from where, how often, within which bounds.
//!
//! In: the table as written. Out: [`DimensionPlan`], checked without touching the source.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use garam_sink::address::Url;
use garam_stage::contract::{ColumnConfig, OneOrMany, in_order};
use garam_stage::{ContractError, DimensionSource, Failure, Format, Missing, Told, Wanted};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::build::{Built, build};
use crate::shape::{Cells, Shape};
use crate::source;

/// `[dimension.NAME]` as written. The name is what SQL calls it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionConfig {
    /// The column or columns that name a row: `not null`, and no two rows have the same. Not `real` or `double`.
    pub key: OneOrMany,
    /// How often a file is looked at, and a query asked. Default 10 s for files, 5 min for queries; 1 s to 24 h.
    #[serde(default, with = "humantime_serde")]
    pub refresh: Option<Duration>,
    /// Most bytes of its rows in memory; while it is replaced there are up to four times as many. Default 256 MiB; 64 KiB to 1 GiB.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
    /// Most rows. Default 5 000 000; 1 to 100 000 000.
    #[serde(default = "default_max_rows")]
    pub max_rows: u64,
    /// What becomes of a record whose key it does not have: its columns are `null` (default), or the columns' `default`, or the
    /// record is put aside (`quarantine`). A pipeline may say otherwise for itself.
    #[serde(default)]
    pub missing: Missing,
    /// Like the columns of a contract: `name = "type"`, `name = "type not null"`, or a table of rules. A row that does not fit
    /// refuses the whole refresh.
    #[serde(deserialize_with = "in_order")]
    pub columns: Vec<(String, ColumnConfig)>,
    /// Exactly one: `[dimension.NAME.from.file]`, `.postgres`, `.mysql` or `.sqlite`.
    pub from: SourceConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    pub file: Option<FileConfig>,
    pub postgres: Option<ServerQuery>,
    pub mysql: Option<ServerQuery>,
    pub sqlite: Option<SqliteQuery>,
}

/// A file that is replaced by renaming another one over it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    pub path: PathBuf,
    /// `csv`, `tsv`, or `json`: an object a line, or one array of objects.
    pub format: FileFormat,
    /// `csv`: one ASCII character between cells. Default: `,`.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// `csv`, `tsv`: the first line names the cells, which may come in any order and be more than the columns. `false`: the cells
    /// are the columns in their order. Default: true.
    #[serde(default)]
    pub header: Option<bool>,
    /// The offset of times that name none: `"UTC"` or one like `"+09:00"`. Default: UTC.
    #[serde(default)]
    pub zone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    Csv,
    Tsv,
    Json,
}

/// A query at a PostgreSQL, MySQL or MariaDB server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerQuery {
    /// A file whose only line is `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full` or
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=VERIFY_IDENTITY`. Read at each refresh. Exactly one of `url_file` and `url`.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// The same in place, for addresses without a secret, or as `"${env:NAME}"`.
    #[serde(default)]
    pub url: Option<Url>,
    /// A file whose only line is the password; it wins over one in the address.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// One SELECT; its columns have the names of the declared ones, others are left out. It runs in a read-only transaction.
    pub query: String,
    /// How long the query may take. Default 60 s; 1 s to 1 h.
    #[serde(default = "default_statement_timeout", with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// A query on an SQLite file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteQuery {
    /// The database; opened read-only.
    pub path: PathBuf,
    /// One SELECT, as for a server.
    pub query: String,
    /// How long the query may take. Default 60 s; 1 s to 1 h.
    #[serde(default = "default_statement_timeout", with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// A dimension that is known to make sense.
#[derive(Debug, Clone)]
pub struct DimensionPlan {
    pub shape: Shape,
    pub refresh: Duration,
    pub max_bytes: u64,
    pub max_rows: u64,
    pub source: SourcePlan,
}

/// What it is read from.
#[derive(Debug, Clone)]
pub enum SourcePlan {
    File(FileConfig),
    Postgres(ServerQuery),
    MySql(ServerQuery),
    Sqlite(SqliteQuery),
}

/// What is refused, and under which key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct PlanError {
    /// Below `dimension.NAME`; empty for the whole.
    pub key: &'static str,
    pub why: String,
}

impl DimensionConfig {
    /// Parsed form to checked form.
    pub fn check(self, name: &str) -> Result<DimensionPlan, PlanError> {
        check_name(name)?;
        let source = self.from.check()?;
        let refresh = self.refresh.unwrap_or(match &source {
            SourcePlan::File(_) => Duration::from_secs(10),
            _ => Duration::from_secs(300),
        });
        within("refresh", refresh, Duration::from_secs(1), Duration::from_secs(24 * 3600))?;
        if self.max_bytes < ByteSize::kib(64) || self.max_bytes > ByteSize::gib(1) {
            let why = format!("{} is out of bounds: 64.0 KiB to 1.0 GiB", self.max_bytes);
            return Err(PlanError { key: "max_bytes", why });
        }
        if !(1..=100_000_000).contains(&self.max_rows) {
            let why = format!("{} is out of bounds: 1 to 100000000", self.max_rows);
            return Err(PlanError { key: "max_rows", why });
        }
        let key = self.key.into_vec();
        let shape = Shape::check(name, self.columns, key, self.missing, &source.cells())?;
        let max_bytes = self.max_bytes.as_u64();
        Ok(DimensionPlan { shape, refresh, max_bytes, max_rows: self.max_rows, source })
    }
}

impl SourceConfig {
    fn check(self) -> Result<SourcePlan, PlanError> {
        let Self { file, postgres, mysql, sqlite } = self;
        let mut given = file
            .map(SourcePlan::File)
            .into_iter()
            .chain(postgres.map(SourcePlan::Postgres))
            .chain(mysql.map(SourcePlan::MySql))
            .chain(sqlite.map(SourcePlan::Sqlite));
        let source = match (given.next(), given.next()) {
            (Some(source), None) => source,
            (None, _) => {
                let why = "no source: add .from.file, .from.postgres, .from.mysql or .from.sqlite";
                return Err(PlanError { key: "from", why: why.into() });
            }
            (Some(_), Some(_)) => {
                let why = "two sources: a dimension has one, make another dimension";
                return Err(PlanError { key: "from", why: why.into() });
            }
        };
        source.check()?;
        Ok(source)
    }
}

impl SourcePlan {
    fn check(&self) -> Result<(), PlanError> {
        let refuse = |key, why: String| Err(PlanError { key, why });
        match self {
            Self::File(file) => {
                if file.format != FileFormat::Csv && file.delimiter.is_some() {
                    return refuse("from.file.delimiter", "is for format csv: remove it".into());
                }
                if file.format == FileFormat::Json && file.header.is_some() {
                    return refuse(
                        "from.file.header",
                        "is for formats csv and tsv: remove it".into(),
                    );
                }
                Ok(())
            }
            Self::Postgres(query) => {
                let address = source::postgres::address(query);
                address.map_err(|e| PlanError { key: "from.postgres", why: e.to_string() })?;
                query_within("from.postgres.statement_timeout", query.statement_timeout)
            }
            Self::MySql(query) => {
                let address = source::mysql::address(query);
                address.map_err(|e| PlanError { key: "from.mysql", why: e.to_string() })?;
                query_within("from.mysql.statement_timeout", query.statement_timeout)
            }
            Self::Sqlite(query) => {
                query_within("from.sqlite.statement_timeout", query.statement_timeout)
            }
        }
    }

    /// How the columns' values stand in what is read.
    fn cells(&self) -> Cells {
        let Self::File(file) = self else {
            return Cells { format: Format::Tsv, delimiter: None, zone: None };
        };
        let format = match file.format {
            FileFormat::Csv => Format::Csv,
            FileFormat::Tsv => Format::Tsv,
            FileFormat::Json => Format::Json,
        };
        Cells { format, delimiter: file.delimiter, zone: file.zone.clone() }
    }

    /// What the operator calls it, without secrets.
    pub fn label(&self) -> String {
        match self {
            Self::File(file) => format!("file {}", file.path.display()),
            Self::Postgres(query) => source::label::<source::Postgres>(query),
            Self::MySql(query) => source::label::<source::MySql>(query),
            Self::Sqlite(query) => format!("sqlite {}", query.path.display()),
        }
    }

    /// Whether it is asked rather than looked at.
    pub fn is_query(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// What rows it stands for, apart from where the server is: another file or query is another table.
    pub(crate) fn definition(&self) -> String {
        match self {
            Self::File(file) => format!("file {}", file.path.display()),
            Self::Postgres(query) => format!("postgres {}", query.query),
            Self::MySql(query) => format!("mysql {}", query.query),
            Self::Sqlite(query) => format!("sqlite {} {}", query.path.display(), query.query),
        }
    }
}

impl DimensionPlan {
    pub fn name(&self) -> &str {
        &self.shape.dimension().name
    }

    /// The source, which has read nothing yet.
    pub fn source(&self) -> Box<dyn DimensionSource> {
        let limits = self.limits();
        let shape = self.shape.clone();
        match &self.source {
            SourcePlan::File(file) => {
                Box::new(source::FileSource::new(file.clone(), shape, limits))
            }
            SourcePlan::Postgres(query) => {
                Box::new(source::Source::<source::Postgres>::new(query.clone(), shape, limits))
            }
            SourcePlan::MySql(query) => {
                Box::new(source::Source::<source::MySql>::new(query.clone(), shape, limits))
            }
            SourcePlan::Sqlite(query) => {
                Box::new(source::sqlite::Source::new(query.clone(), shape, limits))
            }
        }
    }

    /// What rows it stands for: a hash of columns, key, and file or query. Secrets and servers are no part of it.
    pub fn identity(&self) -> u128 {
        let text = format!("{}\n{}", self.source.definition(), self.shape.definition());
        xxh3_128(text.as_bytes())
    }

    /// Reads the source once and checks what it says, keeping nothing: how many rows, and what they take in memory.
    pub async fn try_once(&self) -> Result<(u64, u64), Failure> {
        let built = self.read_once().await?;
        Ok((built.snapshot.rows.num_rows() as u64, built.bytes))
    }

    /// Reads the source once, for whoever needs the rows and has no core.
    pub async fn read_once(&self) -> Result<Built, Failure> {
        let mut source = self.source();
        loop {
            match source.read(Wanted::Anyway).await? {
                Told::Rows { rows, source_us } => {
                    let dimension = self.shape.dimension();
                    return Ok(build(dimension, &source.label(), &rows, 0, source_us)?);
                }
                Told::Unsettled(rest) => tokio::time::sleep(rest).await,
                Told::Unchanged => tokio::task::yield_now().await,
            }
        }
    }

    pub(crate) fn limits(&self) -> crate::gather::Limits {
        crate::gather::Limits { rows: self.max_rows, bytes: self.max_bytes }
    }
}

impl From<ContractError> for PlanError {
    fn from(error: ContractError) -> Self {
        let key = match &error {
            ContractError::NoSuchColumn { role: "key", .. } | ContractError::NullableKey { .. } => {
                "key"
            }
            ContractError::Zone { .. } => "from.file.zone",
            ContractError::Delimiter { .. } => "from.file.delimiter",
            _ => "columns",
        };
        Self { key, why: error.to_string() }
    }
}

/// It is a table's name in SQL, a folder's on disk, and a label of metrics.
fn check_name(name: &str) -> Result<(), PlanError> {
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if starts_well && name.len() <= 63 && name.bytes().all(allowed) && name != "input" {
        return Ok(());
    }
    let why = format!(
        "{name:?} cannot name a table: lowercase letters, digits and _, beginning with a letter, at most 63, not \"input\""
    );
    Err(PlanError { key: "", why })
}

fn query_within(key: &'static str, found: Duration) -> Result<(), PlanError> {
    within(key, found, Duration::from_secs(1), Duration::from_secs(3600))
}

fn within(
    key: &'static str,
    found: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), PlanError> {
    if found < least || found > most {
        let why = format!("{found:?} is out of bounds: {least:?} to {most:?}");
        return Err(PlanError { key, why });
    }
    Ok(())
}

fn default_max_bytes() -> ByteSize {
    ByteSize::mib(256)
}

fn default_max_rows() -> u64 {
    5_000_000
}

fn default_statement_timeout() -> Duration {
    Duration::from_secs(60)
}
