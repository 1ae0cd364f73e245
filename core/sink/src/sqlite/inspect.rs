//! The table as the database has it, and whether it fits.
//!
//! In: SQLite's own description of a table. Out: nothing, or the first reason why values would be lost or changed, with
//! what to do. Promise: a table that passes keeps every value exactly as it was handed over.
//!
//! SQLite converts values by a column's *affinity*: a decimal `12.50` in a NUMERIC column becomes the float 12.5. So each
//! stored form names the affinities that leave it alone.

use sqlx::{Row as _, SqliteConnection};

use garam_stage::WriteMode;

use super::error::TableError;
use super::table::{Stored, Table, quoted, quoted_list};

/// A table as it is.
#[derive(Debug)]
pub(crate) struct Existing {
    kind: String,
    strict: bool,
    columns: Vec<ExistingColumn>,
    indexes: Vec<UniqueIndex>,
}

#[derive(Debug)]
struct ExistingColumn {
    name: String,
    declared: String,
    not_null: bool,
    has_default: bool,
    in_primary_key: bool,
    generated: bool,
}

#[derive(Debug)]
struct UniqueIndex {
    name: String,
    /// Empty names stand for expressions.
    columns: Vec<String>,
    /// Partial, on an expression, or comparing other than byte by byte: it cannot carry an upsert.
    special: bool,
}

/// What SQLite does to a value stored in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Text,
    Numeric,
    Integer,
    Real,
    /// Keeps whatever it is given.
    Any,
    /// STRICT BLOB: refuses everything else.
    BlobOnly,
}

/// Reads the description of a table, view or virtual table; `None` when there is none of that name.
pub(crate) async fn look(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Option<Existing>, sqlx::Error> {
    let sql = "SELECT type, strict FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE";
    let Some(found) = sqlx::query(sql).bind(table).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let sql = "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?)";
    let rows = sqlx::query(sql).bind(table).fetch_all(&mut *connection).await?;
    let columns = rows
        .iter()
        .map(|row| {
            Ok(ExistingColumn {
                name: row.try_get(0)?,
                declared: row.try_get(1)?,
                not_null: row.try_get::<i64, _>(2)? != 0,
                has_default: row.try_get::<i64, _>(3)? != 0,
                in_primary_key: row.try_get::<i64, _>(4)? != 0,
                generated: row.try_get::<i64, _>(5)? != 0,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let indexes = unique_indexes(connection, table, &columns).await?;
    Ok(Some(Existing {
        kind: found.try_get(0)?,
        strict: found.try_get::<i64, _>(1)? != 0,
        columns,
        indexes,
    }))
}

async fn unique_indexes(
    connection: &mut SqliteConnection,
    table: &str,
    columns: &[ExistingColumn],
) -> Result<Vec<UniqueIndex>, sqlx::Error> {
    let sql = "SELECT name, partial, origin FROM pragma_index_list(?) WHERE \"unique\" = 1";
    let rows = sqlx::query(sql).bind(table).fetch_all(&mut *connection).await?;
    let mut indexes = Vec::new();
    let mut has_primary_key = false;
    for row in rows {
        let name: String = row.try_get(0)?;
        let partial = row.try_get::<i64, _>(1)? != 0;
        has_primary_key |= row.try_get::<String, _>(2)? == "pk";
        let sql = "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno";
        let parts = sqlx::query(sql).bind(&name).fetch_all(&mut *connection).await?;
        let mut index = UniqueIndex { name, columns: Vec::new(), special: partial };
        for part in parts {
            let column: Option<String> = part.try_get(0)?;
            let collation: Option<String> = part.try_get(1)?;
            index.special |= column.is_none();
            index.special |= !collation.is_some_and(|name| name.eq_ignore_ascii_case("BINARY"));
            index.columns.push(column.unwrap_or_default());
        }
        indexes.push(index);
    }
    // An INTEGER PRIMARY KEY is the rowid itself and has no index of its own.
    let rowid: Vec<String> =
        columns.iter().filter(|column| column.in_primary_key).map(|c| c.name.clone()).collect();
    if !has_primary_key && !rowid.is_empty() {
        let name = "the primary key".to_owned();
        indexes.push(UniqueIndex { name, columns: rowid, special: false });
    }
    Ok(indexes)
}

impl Existing {
    /// Whether this table keeps the rows of `wanted` as they are.
    pub(crate) fn check(&self, wanted: &Table) -> Result<(), TableError> {
        let table = wanted.name.clone();
        if self.kind != "table" {
            return Err(TableError::NotATable { table, kind: self.kind.clone() });
        }
        self.check_missing(wanted)?;
        for column in &wanted.columns {
            let Some(found) = self.column(&column.name) else { continue };
            let name = column.name.clone();
            if found.generated {
                return Err(TableError::Generated { table, column: name });
            }
            let affinity = affinity(&found.declared, self.strict);
            if !keeps(affinity, column.stored, self.strict) {
                let declared = found.declared.clone();
                let needed = needed(column.stored, self.strict);
                return Err(TableError::Affinity { table, column: name, declared, needed });
            }
        }
        for found in &self.columns {
            let wanted = wanted.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&found.name));
            let fills_itself = found.has_default || found.generated || self.is_rowid(found);
            if found.not_null && !wanted && !fills_itself {
                return Err(TableError::Required { table, column: found.name.clone() });
            }
        }
        self.check_indexes(wanted)
    }

    fn check_missing(&self, wanted: &Table) -> Result<(), TableError> {
        let missing: Vec<_> =
            wanted.columns.iter().filter(|column| self.column(&column.name).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        // A column that is added to rows already there cannot be NOT NULL.
        let add = |column: &&super::table::TableColumn| {
            format!(
                "ALTER TABLE {} ADD COLUMN {} {};",
                quoted(&wanted.name),
                quoted(&column.name),
                needed(column.stored, self.strict)
            )
        };
        let names: Vec<&str> = missing.iter().map(|column| column.name.as_str()).collect();
        Err(TableError::MissingColumns {
            table: wanted.name.clone(),
            columns: names.join(", "),
            ddl: missing.iter().map(add).collect::<Vec<_>>().join("\n"),
        })
    }

    fn check_indexes(&self, wanted: &Table) -> Result<(), TableError> {
        let columns = wanted.unique.join(", ");
        let carries = |index: &&UniqueIndex| !index.special && same(&index.columns, &wanted.unique);
        if self.indexes.iter().find(carries).is_none() {
            let (table, list) = (quoted(&wanted.name), quoted_list(&wanted.unique));
            let index = quoted(&format!("{}_garam", wanted.name));
            let ddl = format!("CREATE UNIQUE INDEX {index} ON {table} ({list})");
            return Err(TableError::NoUniqueIndex { table: wanted.name.clone(), columns, ddl });
        }
        // In append mode a row that meets another unique index is refused and put aside; in upsert mode it would be
        // unclear which of two rows it replaces.
        let other = self.indexes.iter().find(|index| !same(&index.columns, &wanted.unique));
        match (wanted.mode, other) {
            (WriteMode::Upsert, Some(other)) => Err(TableError::OtherUniqueIndex {
                table: wanted.name.clone(),
                index: other.name.clone(),
                columns: other.columns.join(", "),
                key: columns,
            }),
            _ => Ok(()),
        }
    }

    fn column(&self, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// An `INTEGER PRIMARY KEY` numbers itself.
    fn is_rowid(&self, column: &ExistingColumn) -> bool {
        let keys = self.columns.iter().filter(|column| column.in_primary_key).count();
        column.in_primary_key && keys == 1 && column.declared.eq_ignore_ascii_case("INTEGER")
    }
}

/// Whether two lists name the same columns, in whatever order.
fn same(a: &[String], b: &[String]) -> bool {
    let has = |list: &[String], name: &String| list.iter().any(|n| n.eq_ignore_ascii_case(name));
    a.len() == b.len() && a.iter().all(|name| has(b, name))
}

/// SQLite's rules for a declared type ("Determination Of Column Affinity").
fn affinity(declared: &str, strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    match (strict, declared.as_str()) {
        (true, "ANY") => return Affinity::Any,
        (true, "BLOB") => return Affinity::BlobOnly,
        _ => {}
    }
    if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if has("BLOB") || declared.is_empty() {
        Affinity::Any
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

/// Whether values in this form come back as they went in.
fn keeps(affinity: Affinity, stored: Stored, strict: bool) -> bool {
    use Affinity::{Any, BlobOnly, Integer, Numeric, Real, Text};
    match stored {
        Stored::Boolean | Stored::SmallInt | Stored::Int | Stored::BigInt => {
            matches!(affinity, Integer | Numeric | Any)
        }
        Stored::Real | Stored::Double => matches!(affinity, Real | Numeric | Any),
        // "0012" or "12.50" would become numbers.
        Stored::Decimal | Stored::Text => matches!(affinity, Text | Any),
        // Never look like numbers, so a NUMERIC column (DATE, DATETIME) leaves them alone.
        Stored::Date | Stored::Timestamp => matches!(affinity, Text | Numeric | Any),
        Stored::Blob => {
            if strict {
                matches!(affinity, BlobOnly | Any)
            } else {
                true
            }
        }
        Stored::Position => affinity == Any,
    }
}

/// The type to declare so that values in this form are kept.
fn needed(stored: Stored, strict: bool) -> &'static str {
    match stored {
        Stored::Position if !strict => "BLOB",
        stored => stored.declared(),
    }
}
