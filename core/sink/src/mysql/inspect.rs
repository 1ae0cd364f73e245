//! The table as the database has it, and whether it fits.
//!
//! In: the server's catalog. Out: nothing, or the first reason why rows would be lost, changed or refused, with what to do.
//! Promise: a table that passes keeps every value exactly as it was handed over, and takes rows and cursor in one transaction.

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor as _, Row as _, SqlSafeStr as _};

use super::client::{Client, Transaction};
use super::error::{MySqlError, number};
use super::table::{Table, full_name, quoted, quoted_list};
use crate::limits::Limit;
use crate::mode::Mode;
use crate::table::{Stored, TableColumn, TableError};

const ABOUT_TABLE: &str = "SELECT CAST(table_type AS CHAR), CAST(engine AS CHAR) FROM information_schema.tables \
WHERE table_schema = coalesce(?, database()) AND table_name = ?";

const COLUMNS: &str = "SELECT CAST(column_name AS CHAR), CAST(column_type AS CHAR), CAST(data_type AS CHAR), \
CAST(coalesce(numeric_precision, 0) AS SIGNED), CAST(coalesce(numeric_scale, 0) AS SIGNED), \
CAST(coalesce(datetime_precision, 0) AS SIGNED), CAST(coalesce(character_maximum_length, 0) AS SIGNED), \
CAST(character_set_name AS CHAR), CAST(collation_name AS CHAR), CAST(is_nullable = 'NO' AS SIGNED), \
CAST(column_default IS NULL AS SIGNED), CAST(extra AS CHAR) FROM information_schema.columns \
WHERE table_schema = coalesce(?, database()) AND table_name = ? ORDER BY ordinal_position";

const UNIQUE_INDEXES: &str = "SELECT CAST(index_name AS CHAR), CAST(column_name AS CHAR), \
CAST(sub_part IS NULL AND index_type = 'BTREE' AS SIGNED) FROM information_schema.statistics \
WHERE table_schema = coalesce(?, database()) AND table_name = ? AND non_unique = 0 ORDER BY index_name, seq_in_index";

/// A table as it is.
#[derive(Debug)]
pub(crate) struct Existing {
    kind: String,
    engine: String,
    columns: Vec<ExistingColumn>,
    indexes: Vec<UniqueIndex>,
}

#[derive(Debug)]
struct ExistingColumn {
    name: String,
    /// As in `CREATE TABLE`, lowercase: `bigint(20) unsigned`.
    declared: String,
    kind: String,
    precision: i64,
    scale: i64,
    /// Digits of a second.
    fraction: i64,
    length: i64,
    charset: Option<String>,
    collation: Option<String>,
    not_null: bool,
    /// Fills itself when nothing is said.
    has_default: bool,
    generated: bool,
}

#[derive(Debug)]
struct UniqueIndex {
    name: String,
    /// On whole columns, in order of size: it can carry an upsert.
    plain: bool,
    columns: Vec<String>,
}

/// Reads the description of whatever has the table's name; `None` when there is nothing.
pub(crate) async fn look(
    client: &Client,
    transaction: &mut Transaction,
    table: &Table,
) -> Result<Option<Existing>, MySqlError> {
    const ACTION: &str = "look at the table";
    let failed = |source| client.error(ACTION, source);
    let mut found = Vec::new();
    for sql in [ABOUT_TABLE, COLUMNS, UNIQUE_INDEXES] {
        let query = sqlx::query(sql).bind(table.name.schema.as_deref()).bind(&table.name.name);
        let asked = query.fetch_all(&mut transaction.connection);
        found.push(client.within(ACTION, asked).await?);
    }
    let [about, columns, indexes] = found.as_slice() else { return Ok(None) };
    let Some(about) = about.first() else { return Ok(None) };
    existing(about, columns, indexes).map(Some).map_err(failed)
}

/// Whether the user may make the table.
pub(crate) async fn may_create(
    client: &Client,
    transaction: &mut Transaction,
    table: &Table,
) -> Result<(), MySqlError> {
    let sql = table.ddl();
    let Some(role) = denied(client, transaction, &sql).await? else { return Ok(()) };
    let database = table.name.schema.as_deref().map_or("DATABASE".into(), quoted);
    let (table, grant) = (table.name.display(), format!("grant create on {database}.* to {role}"));
    Err(TableError::Create { table, role, grant }.into())
}

/// Whether the user may do to the table what its mode does.
pub(crate) async fn may_write(
    client: &Client,
    transaction: &mut Transaction,
    table: &Table,
) -> Result<(), MySqlError> {
    let rights = match table.mode {
        Mode::Append | Mode::Insert | Mode::Ignore => "select, insert",
        Mode::Upsert => "select, insert, update",
        Mode::Update => "select, update",
    };
    let deletes = table.obeys.map(|_| &table.delete);
    let rights = if deletes.is_some() { format!("{rights}, delete") } else { rights.to_owned() };
    for statements in [&table.write, &table.present].into_iter().chain(deletes) {
        let (_, sql) = statements.of_at_most(1);
        let sql = sql.to_string();
        if let Some(role) = denied(client, transaction, &sql).await? {
            let grant = format!("grant {rights} on {} to {role}", full_name(&table.name));
            let table = table.name.display();
            return Err(TableError::Rights { table, role, rights, grant }.into());
        }
    }
    Ok(())
}

/// Who is denied a statement, if it is: the server looks when it prepares it, without running it.
async fn denied(
    client: &Client,
    transaction: &mut Transaction,
    sql: &str,
) -> Result<Option<String>, MySqlError> {
    const ACTION: &str = "look at the rights";
    let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
    let asked = (&mut transaction.connection).prepare(sql);
    match client.within(ACTION, asked).await {
        Ok(_) => return Ok(None),
        Err(MySqlError::Database { source, .. })
            if matches!(number(&source), Some(1142 | 1143 | 1044)) => {}
        Err(error) => return Err(error),
    }
    let asked = sqlx::query_scalar("SELECT CAST(current_user() AS CHAR)")
        .fetch_one(&mut transaction.connection);
    let role: String = client.within(ACTION, asked).await?;
    let (user, host) = role.split_once('@').unwrap_or((&role, "%"));
    Ok(Some(format!("'{user}'@'{host}'")))
}

fn existing(
    about: &MySqlRow,
    columns: &[MySqlRow],
    indexes: &[MySqlRow],
) -> Result<Existing, sqlx::Error> {
    let columns = columns.iter().map(column).collect::<Result<Vec<_>, sqlx::Error>>()?;
    let mut found: Vec<UniqueIndex> = Vec::new();
    for row in indexes {
        let name: String = row.try_get(0)?;
        // An expression has no name.
        let column: Option<String> = row.try_get(1)?;
        let plain = row.try_get::<i64, _>(2)? != 0 && column.is_some();
        match found.last_mut().filter(|index| index.name == name) {
            Some(index) => {
                index.plain &= plain;
                index.columns.extend(column);
            }
            None => found.push(UniqueIndex { name, plain, columns: column.into_iter().collect() }),
        }
    }
    let engine: Option<String> = about.try_get(1)?;
    let engine = engine.unwrap_or_default();
    Ok(Existing { kind: about.try_get(0)?, engine, columns, indexes: found })
}

fn column(row: &MySqlRow) -> Result<ExistingColumn, sqlx::Error> {
    let flag = |i: usize| row.try_get::<i64, _>(i).map(|flag| flag != 0);
    let extra = row.try_get::<Option<String>, _>(11)?.unwrap_or_default().to_lowercase();
    let generated =
        extra.contains("virtual") || extra.contains("stored") || extra.contains("persistent");
    Ok(ExistingColumn {
        name: row.try_get(0)?,
        declared: row.try_get::<String, _>(1)?.to_lowercase(),
        kind: row.try_get::<String, _>(2)?.to_lowercase(),
        precision: row.try_get(3)?,
        scale: row.try_get(4)?,
        fraction: row.try_get(5)?,
        length: row.try_get(6)?,
        charset: row.try_get(7)?,
        collation: row.try_get(8)?,
        not_null: flag(9)?,
        has_default: !flag(10)? || extra.contains("auto_increment") || generated,
        generated,
    })
}

impl Existing {
    /// Whether this table keeps the rows of `wanted` as they are.
    pub(crate) fn check(&self, wanted: &Table) -> Result<(), TableError> {
        let table = wanted.name.display();
        if self.kind != "BASE TABLE" {
            return Err(TableError::NotATable { table, kind: other_kind(&self.kind) });
        }
        if !self.engine.eq_ignore_ascii_case("innodb") {
            return Err(TableError::Engine { table, engine: self.engine.clone() });
        }
        self.check_missing(wanted)?;
        for (i, column) in wanted.columns.iter().enumerate() {
            let Some(found) = self.column(&column.name) else { continue };
            let (table, name) = (table.clone(), column.name.clone());
            if found.generated {
                return Err(TableError::Generated { table, column: name });
            }
            if !found.keeps(column.stored) {
                let (declared, needed) = (found.declared.clone(), wanted.declared(i));
                return Err(TableError::Type { table, column: name, declared, needed });
            }
            if column.stored == Stored::Text && found.charset.as_deref() != Some("utf8mb4") {
                let declared =
                    format!("{} of {:?}", found.declared, found.charset.as_deref().unwrap_or("?"));
                let needed = format!("{} character set utf8mb4", wanted.declared(i));
                return Err(TableError::Type { table, column: name, declared, needed });
            }
            let exact = found.collation.as_deref() == Some(wanted.dialect.exact_collation());
            if column.stored == Stored::Text && wanted.unique.contains(&i) && !exact {
                let collation = found.collation.clone().unwrap_or_default();
                let needed = wanted.dialect.exact_collation();
                return Err(TableError::KeyCollation { table, column: name, collation, needed });
            }
        }
        for found in &self.columns {
            let known = wanted.columns.iter().any(|column| column.name == found.name);
            if found.not_null && !known && !found.has_default && wanted.mode != Mode::Update {
                return Err(TableError::Required { table, column: found.name.clone() });
            }
        }
        self.check_index(wanted)
    }

    fn check_missing(&self, wanted: &Table) -> Result<(), TableError> {
        let missing = self.missing(wanted)?;
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().filter_map(|&i| wanted.columns.get(i)).map(|c| c.name.as_str());
        Err(TableError::MissingColumns {
            table: wanted.name.display(),
            columns: names.collect::<Vec<_>>().join(", "),
            ddl: missing.iter().map(|&i| addition(wanted, i)).collect::<Vec<_>>().join("\n"),
        })
    }

    /// Statements that add what is missing, as columns that may be null.
    pub(crate) fn additions(&self, wanted: &Table) -> Result<Vec<String>, TableError> {
        if self.kind != "BASE TABLE" {
            return Ok(Vec::new());
        }
        let missing = self.missing(wanted)?;
        if let Some(&key) = missing.iter().find(|i| wanted.unique.contains(i)) {
            let column = wanted.columns.get(key).map_or_else(String::new, |c| c.name.clone());
            let (table, needs) = (wanted.name.display(), "identifies a row");
            return Err(TableError::CannotAdd { table, column, needs });
        }
        Ok(missing.into_iter().map(|i| addition(wanted, i)).collect())
    }

    fn missing(&self, wanted: &Table) -> Result<Vec<usize>, TableError> {
        let mut missing = Vec::new();
        for (i, column) in wanted.columns.iter().enumerate() {
            if self.column(&column.name).is_some() {
                continue;
            }
            let alike = |found: &&ExistingColumn| found.name.eq_ignore_ascii_case(&column.name);
            if let Some(found) = self.columns.iter().find(alike) {
                let (table, column) = (wanted.name.display(), column.name.clone());
                return Err(TableError::CaseClash { table, column, found: found.name.clone() });
            }
            missing.push(i);
        }
        Ok(missing)
    }

    /// What each wanted column holds at most.
    pub(crate) fn limits(&self, wanted: &Table) -> Vec<Option<Limit>> {
        let limit = |column: &TableColumn| {
            let found = self.column(&column.name)?;
            let most = usize::try_from(found.length).ok()?;
            match found.kind.as_str() {
                "varchar" => Some(Limit::Characters(most)),
                "tinytext" | "text" | "mediumtext" => Some(Limit::Bytes(most)),
                _ => None,
            }
        };
        wanted.columns.iter().map(limit).collect()
    }

    fn check_index(&self, wanted: &Table) -> Result<(), TableError> {
        let unique = wanted.unique_names();
        let same = |index: &UniqueIndex| {
            index.columns.len() == unique.len()
                && index.columns.iter().all(|name| unique.contains(name))
        };
        if self.indexes.iter().any(|index| index.plain && same(index)) {
            return Ok(());
        }
        let (name, list) = (full_name(&wanted.name), quoted_list(&unique));
        let ddl = format!("ALTER TABLE {name} ADD UNIQUE ({list})");
        let (table, columns) = (wanted.name.display(), unique.join(", "));
        Err(TableError::NoUniqueIndex { table, columns, ddl })
    }

    fn column(&self, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl ExistingColumn {
    /// Whether this column gives values back as they went in, or refuses them aloud.
    fn keeps(&self, stored: Stored) -> bool {
        let unsigned = self.declared.contains("unsigned");
        let decimal = |before: i64, behind: i64| {
            self.kind == "decimal"
                && self.scale >= behind
                && self.precision - self.scale >= before
                && !unsigned
        };
        let integer = |kinds: &[&str]| kinds.contains(&self.kind.as_str()) && !unsigned;
        match stored {
            Stored::Boolean => integer(&["tinyint", "smallint", "int", "bigint"]),
            Stored::SmallInt => {
                integer(&["smallint", "mediumint", "int", "bigint"]) || decimal(5, 0)
            }
            Stored::Int => integer(&["int", "bigint"]) || decimal(10, 0),
            Stored::BigInt => integer(&["bigint"]) || decimal(19, 0),
            // A float with digits, float(7,4), rounds.
            Stored::Real => matches!(self.declared.as_str(), "float" | "double"),
            Stored::Double => self.declared == "double",
            // Digits behind the point that do not fit are rounded without an error.
            Stored::Decimal { precision, scale } => {
                decimal(i64::from(precision) - i64::from(scale), i64::from(scale))
            }
            Stored::Position => decimal(39, 0),
            // What is too long is refused; char(n) loses blanks at the end.
            Stored::Text => {
                matches!(
                    self.kind.as_str(),
                    "varchar" | "tinytext" | "text" | "mediumtext" | "longtext"
                )
            }
            Stored::Date => self.kind == "date",
            // Fewer digits of a second would be rounded. The session's time zone is UTC, so both are read as written.
            Stored::Timestamp => {
                matches!(self.kind.as_str(), "datetime" | "timestamp") && self.fraction == 6
            }
            Stored::Bytes(size) => match self.kind.as_str() {
                "binary" => self.length == i64::from(size),
                "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                    self.length >= i64::from(size)
                }
                _ => false,
            },
        }
    }
}

/// A column that is added to rows already there cannot be NOT NULL.
fn addition(wanted: &Table, column: usize) -> String {
    let table = full_name(&wanted.name);
    let name = wanted.columns.get(column).map_or_else(String::new, |c| quoted(&c.name));
    format!("ALTER TABLE {table} ADD COLUMN {name} {};", wanted.declared(column))
}

fn other_kind(kind: &str) -> &'static str {
    match kind {
        "VIEW" | "SYSTEM VIEW" => "view",
        "SEQUENCE" => "sequence",
        _ => "something else",
    }
}
