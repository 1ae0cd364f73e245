//! The table as the database has it, and whether it fits.
//!
//! In: the server's catalog. Out: nothing, or the first reason why rows would be lost, changed or refused, with what to do.
//! Promise: a table that passes keeps every value exactly as it was handed over, and survives a crash of the server.

use sqlx::postgres::PgRow;
use sqlx::{Row as _, query};

use super::client::{Client, Transaction};
use super::error::PostgresError;
use super::table::{Table, quoted, quoted_list};
use crate::limits::Limit;
use crate::mode::Mode;
use crate::table::{Stored, TableColumn, TableError};

const ABOUT_TABLE: &str = "SELECT c.oid::int8, c.relkind::text, c.relpersistence::text, current_user::text, \
has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'SELECT'), \
has_table_privilege(c.oid, 'DELETE'), \
c.relhasrules OR c.relrowsecurity FROM pg_class c WHERE c.oid = to_regclass($1)";

const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typname::text, a.atttypmod, \
a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a', \
coalesce(c.collisdeterministic, true) \
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation c ON c.oid = a.attcollation \
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const UNIQUE_INDEXES: &str = "SELECT i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL, \
ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(number) \
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number) \
FROM pg_index i WHERE i.indrelid = $1::oid AND i.indisunique";

const MAY_CREATE: &str = "SELECT current_user::text, coalesce($1, current_schema()::text), \
has_schema_privilege(coalesce($1, current_schema()::text), 'CREATE')";

/// A table as it is.
#[derive(Debug)]
pub(crate) struct Existing {
    kind: String,
    persistence: String,
    role: String,
    may_insert: bool,
    may_update: bool,
    may_select: bool,
    may_delete: bool,
    /// Rules or policies decide what becomes of a row.
    ruled: bool,
    columns: Vec<ExistingColumn>,
    indexes: Vec<UniqueIndex>,
}

#[derive(Debug)]
struct ExistingColumn {
    name: String,
    declared: String,
    /// The type's own name, `int8` where people say `bigint`.
    kind: String,
    /// Length, precision and the like; -1 for none.
    modifier: i32,
    not_null: bool,
    has_default: bool,
    generated: bool,
    deterministic: bool,
}

#[derive(Debug)]
struct UniqueIndex {
    /// Neither partial nor on an expression nor checked late: it can carry an upsert.
    plain: bool,
    columns: Vec<String>,
}

/// Reads the description of whatever has the table's name; `None` when there is nothing.
pub(crate) async fn look(
    client: &Client,
    transaction: &mut Transaction,
    table: &Table,
) -> Result<Option<Existing>, PostgresError> {
    const ACTION: &str = "look at the table";
    let failed = |source| client.error(ACTION, source);
    let connection = &mut transaction.connection;
    let asked = query(ABOUT_TABLE).bind(table.name.quoted()).fetch_optional(&mut *connection);
    let Some(about) = client.within(ACTION, asked).await? else { return Ok(None) };
    let id: i64 = about.try_get(0).map_err(failed)?;
    let asked = query(COLUMNS).bind(id).fetch_all(&mut *connection);
    let columns = client.within(ACTION, asked).await?;
    let asked = query(UNIQUE_INDEXES).bind(id).fetch_all(&mut *connection);
    let indexes = client.within(ACTION, asked).await?;
    existing(&about, &columns, &indexes).map(Some).map_err(failed)
}

/// Whether the role may make a table there.
pub(crate) async fn may_create(
    client: &Client,
    transaction: &mut Transaction,
    table: &Table,
) -> Result<(), PostgresError> {
    const ACTION: &str = "look at the schema";
    let failed = |source| client.error(ACTION, source);
    let schema = table.name.schema.as_deref();
    let asked = query(MAY_CREATE).bind(schema).fetch_one(&mut transaction.connection);
    let found = client.within(ACTION, asked).await?;
    let role: String = found.try_get(0).map_err(failed)?;
    let schema: Option<String> = found.try_get(1).map_err(failed)?;
    if found.try_get::<Option<bool>, _>(2).map_err(failed)? == Some(true) {
        return Ok(());
    }
    let schema = schema.unwrap_or_else(|| "public".to_owned());
    let grant = format!("grant create on schema {} to {}", quoted(&schema), quoted(&role));
    Err(TableError::Create { table: table.display_name(), role, grant }.into())
}

fn existing(about: &PgRow, columns: &[PgRow], indexes: &[PgRow]) -> Result<Existing, sqlx::Error> {
    let columns = columns
        .iter()
        .map(|row| {
            Ok(ExistingColumn {
                name: row.try_get(0)?,
                declared: row.try_get(1)?,
                kind: row.try_get(2)?,
                modifier: row.try_get(3)?,
                not_null: row.try_get(4)?,
                has_default: row.try_get(5)?,
                generated: row.try_get(6)?,
                deterministic: row.try_get(7)?,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let indexes = indexes
        .iter()
        .map(|row| Ok(UniqueIndex { plain: row.try_get(0)?, columns: row.try_get(1)? }))
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    Ok(Existing {
        kind: about.try_get(1)?,
        persistence: about.try_get(2)?,
        role: about.try_get(3)?,
        may_insert: about.try_get(4)?,
        may_update: about.try_get(5)?,
        may_select: about.try_get(6)?,
        may_delete: about.try_get(7)?,
        ruled: about.try_get(8)?,
        columns,
        indexes,
    })
}

impl Existing {
    /// Whether this table keeps the rows of `wanted` as they are.
    pub(crate) fn check(&self, wanted: &Table) -> Result<(), TableError> {
        let table = wanted.display_name();
        if let Some(kind) = other_kind(&self.kind) {
            return Err(TableError::NotATable { table, kind });
        }
        match self.persistence.as_str() {
            "p" => {}
            "u" => return Err(TableError::NotLogged { table, kind: "unlogged" }),
            _ => return Err(TableError::NotLogged { table, kind: "temporary" }),
        }
        self.check_rights(wanted)?;
        self.check_missing(wanted)?;
        for (i, column) in wanted.columns.iter().enumerate() {
            let Some(found) = self.column(&column.name) else { continue };
            let (table, name) = (table.clone(), column.name.clone());
            if found.generated {
                return Err(TableError::Generated { table, column: name });
            }
            if !keeps(&found.kind, found.modifier, column.stored) {
                let (declared, needed) = (found.declared.clone(), column.declared());
                return Err(TableError::Type { table, column: name, declared, needed });
            }
            if wanted.unique.contains(&i) && !found.deterministic {
                return Err(TableError::Collation { table, column: name });
            }
        }
        for found in &self.columns {
            let known = wanted.columns.iter().any(|column| column.name == found.name);
            let fills_itself = found.has_default || found.generated;
            if found.not_null && !known && !fills_itself && wanted.mode != Mode::Update {
                return Err(TableError::Required { table, column: found.name.clone() });
            }
        }
        self.check_index(wanted)
    }

    /// Whether COPY does the same as INSERT: it passes over rules, is not had under policies, and sends each value in the
    /// column's own type.
    pub(crate) fn suits_copy(&self, wanted: &Table) -> bool {
        let same_type = |column: &TableColumn| {
            self.column(&column.name).is_some_and(|found| {
                let is_text = column.stored == Stored::Text && found.kind == "varchar";
                is_text || found.kind == column.stored.type_name()
            })
        };
        !self.ruled && wanted.columns.iter().all(same_type)
    }

    fn check_rights(&self, wanted: &Table) -> Result<(), TableError> {
        let needed: &[(&str, bool)] = match wanted.mode {
            Mode::Append | Mode::Insert | Mode::Ignore => {
                &[("insert", self.may_insert), ("select", self.may_select)]
            }
            Mode::Upsert => &[
                ("insert", self.may_insert),
                ("update", self.may_update),
                ("select", self.may_select),
            ],
            Mode::Update => &[("update", self.may_update), ("select", self.may_select)],
        };
        let delete = wanted.obeys.map(|_| ("delete", self.may_delete));
        let needed = needed.iter().copied().chain(delete);
        let lacking: Vec<&str> = needed.filter(|(_, may)| !may).map(|(right, _)| right).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let rights = lacking.join(", ");
        let (name, role) = (wanted.name.quoted(), quoted(&self.role));
        let grant = format!("grant {rights} on {name} to {role}");
        let (table, role) = (wanted.display_name(), self.role.clone());
        Err(TableError::Rights { table, role, rights, grant })
    }

    fn check_missing(&self, wanted: &Table) -> Result<(), TableError> {
        let missing = self.missing(wanted)?;
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = missing.iter().map(|column| column.name.as_str()).collect();
        Err(TableError::MissingColumns {
            table: wanted.display_name(),
            columns: names.join(", "),
            ddl: missing
                .iter()
                .map(|column| addition(wanted, column))
                .collect::<Vec<_>>()
                .join("\n"),
        })
    }

    /// Statements that add what is missing, as columns that may be null.
    pub(crate) fn additions(&self, wanted: &Table) -> Result<Vec<String>, TableError> {
        if other_kind(&self.kind).is_some() {
            return Ok(Vec::new());
        }
        let missing = self.missing(wanted)?;
        let unique = wanted.unique_names();
        if let Some(key) = missing.iter().find(|column| unique.contains(&column.name)) {
            let (table, column) = (wanted.display_name(), key.name.clone());
            return Err(TableError::CannotAdd { table, column, needs: "identifies a row" });
        }
        Ok(missing.into_iter().map(|column| addition(wanted, column)).collect())
    }

    fn missing<'a>(&self, wanted: &'a Table) -> Result<Vec<&'a TableColumn>, TableError> {
        let absent = |column: &&TableColumn| self.column(&column.name).is_none();
        let missing: Vec<&TableColumn> = wanted.columns.iter().filter(absent).collect();
        for column in &missing {
            let alike = |found: &&ExistingColumn| found.name.eq_ignore_ascii_case(&column.name);
            if let Some(found) = self.columns.iter().find(alike) {
                let (table, column) = (wanted.display_name(), column.name.clone());
                return Err(TableError::CaseClash { table, column, found: found.name.clone() });
            }
        }
        Ok(missing)
    }

    /// What each wanted column holds at most.
    pub(crate) fn limits(&self, wanted: &Table) -> Vec<Option<Limit>> {
        let limit = |column: &TableColumn| {
            let found = self.column(&column.name).filter(|found| found.kind == "varchar")?;
            let most = usize::try_from(found.modifier.checked_sub(4)?).ok()?;
            Some(Limit::Characters(most))
        };
        wanted.columns.iter().map(limit).collect()
    }

    fn check_index(&self, wanted: &Table) -> Result<(), TableError> {
        let unique = wanted.unique_names();
        if self.indexes.iter().any(|index| index.plain && same(&index.columns, &unique)) {
            return Ok(());
        }
        let (name, list) = (wanted.name.quoted(), quoted_list(&unique));
        let table = wanted.display_name();
        let ddl = format!("CREATE UNIQUE INDEX ON {name} ({list})");
        Err(TableError::NoUniqueIndex { table, columns: unique.join(", "), ddl })
    }

    fn column(&self, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A column that is added to rows already there cannot be NOT NULL.
fn addition(wanted: &Table, column: &TableColumn) -> String {
    let (table, name) = (wanted.name.quoted(), quoted(&column.name));
    format!("ALTER TABLE {table} ADD COLUMN {name} {};", column.declared())
}

fn other_kind(kind: &str) -> Option<&'static str> {
    match kind {
        // A plain table, a partitioned one.
        "r" | "p" => None,
        "v" => Some("view"),
        "m" => Some("materialized view"),
        "f" => Some("foreign table, which cannot be written in one transaction with its cursor"),
        "S" => Some("sequence"),
        _ => Some("something else"),
    }
}

/// Whether two lists name the same columns, in whatever order.
fn same(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().all(|name| b.contains(name))
}

/// Whether a column of this type gives values back as they went in, or refuses them aloud.
fn keeps(kind: &str, modifier: i32, stored: Stored) -> bool {
    let whole_numeric = |digits: i32| match numeric_modifier(modifier) {
        None => true,
        Some((precision, scale)) => precision - scale >= digits,
    };
    match stored {
        Stored::Boolean => kind == "bool",
        Stored::SmallInt => match kind {
            "int2" | "int4" | "int8" => true,
            _ => kind == "numeric" && whole_numeric(5),
        },
        Stored::Int => match kind {
            "int4" | "int8" => true,
            _ => kind == "numeric" && whole_numeric(10),
        },
        Stored::BigInt => kind == "int8" || (kind == "numeric" && whole_numeric(19)),
        Stored::Real => matches!(kind, "float4" | "float8"),
        Stored::Double => kind == "float8",
        Stored::Decimal { precision, scale } => {
            let (precision, scale) = (i32::from(precision), i32::from(scale));
            let fits = |(p, s): (i32, i32)| s >= scale && p - s >= precision - scale;
            kind == "numeric" && numeric_modifier(modifier).is_none_or(fits)
        }
        Stored::Position => kind == "numeric" && whole_numeric(39),
        // A varchar(n) refuses what is too long; char(n) fills up with blanks.
        Stored::Text => matches!(kind, "text" | "varchar"),
        Stored::Date => kind == "date",
        // Fewer digits of a second would be rounded.
        Stored::Timestamp => kind == "timestamptz" && matches!(modifier, -1 | 6),
        Stored::Bytes(_) => kind == "bytea",
    }
}

/// Precision and scale of `numeric(p,s)`; `None`: without limits.
fn numeric_modifier(modifier: i32) -> Option<(i32, i32)> {
    if modifier < 4 {
        return None;
    }
    let packed = modifier - 4;
    // Eleven bits, signed.
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    Some(((packed >> 16) & 0xffff, scale))
}
