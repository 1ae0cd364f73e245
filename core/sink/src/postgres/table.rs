//! The table as it should be: column types, DDL and the statements that fill it.
//!
//! In: the configuration and the rows' schema. Out: SQL text, made once per writer. Names are quoted always and checked first,
//! so that no name can become SQL. One statement text serves every number of rows: each column travels as one array.
//! Not here: what the database has (`inspect`), values (`encode`).

use std::sync::Arc;

use arrow_schema::SchemaRef;

use super::error::PostgresError;
use crate::changes::Truncate;
use crate::mode::Mode;
use crate::table::{Shape, Stored, TableColumn, TableError, TableName};

/// What the server allows as n of `varchar(n)`.
const MOST_VARCHAR: u32 = 10_485_760;

/// A checked table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) mode: Mode,
    /// What makes a row unique, as indexes into `columns`: the configured key, or the record's name.
    pub(crate) unique: Vec<usize>,
    /// The guard, as an index into `columns`.
    pub(crate) version: Option<usize>,
    /// Writes rows: one array per column.
    pub(crate) write: Arc<str>,
    /// Takes rows of which none is there yet.
    pub(crate) copy: Arc<str>,
    /// Numbers of the offered keys, from 1, that are not in the table: one array per key column.
    pub(crate) absent: Arc<str>,
    /// Numbers of the offered keys, from 1, that the table holds in a newer version: the key's arrays, then the version's.
    pub(crate) newer: Option<Arc<str>>,
    /// Deletes keys: one array per key column.
    pub(crate) delete: Arc<str>,
    /// What it does with row changes, where it obeys them.
    pub(crate) obeys: Option<Truncate>,
}

impl Table {
    pub(crate) fn new(
        name: &str,
        schema: &SchemaRef,
        mode: Mode,
        key: Vec<String>,
        version: Option<&str>,
        truncate: Option<Truncate>,
    ) -> Result<Self, PostgresError> {
        let name = TableName::parse(name)?;
        let shape = Shape::new(schema, mode, &key, version, truncate)??;
        let Shape { columns, unique, version, obeys } = shape;
        let [write, copy, absent, delete] = [const { "" }; 4].map(Arc::from);
        let mut table = Self {
            name,
            columns,
            mode,
            unique,
            version,
            write,
            copy,
            absent,
            newer: None,
            delete,
            obeys,
        };
        table.write = table.write_sql().into();
        table.copy = table.copy_sql().into();
        table.absent = table.absent_sql().into();
        table.delete = table.delete_sql().into();
        table.newer = version.map(|version| table.newer_sql(version).into());
        Ok(table)
    }

    /// As people write it.
    pub(crate) fn display_name(&self) -> String {
        self.name.display()
    }

    pub(crate) fn unique_names(&self) -> Vec<String> {
        self.names(&self.unique)
    }

    /// `CREATE TABLE`.
    pub(crate) fn ddl(&self) -> String {
        let mut lines: Vec<String> =
            self.columns.iter().map(|column| format!("  {}", column.definition())).collect();
        let unique = quoted_list(&self.unique_names());
        lines.push(match self.mode {
            Mode::Append => format!("  UNIQUE ({unique})"),
            _ => format!("  PRIMARY KEY ({unique})"),
        });
        format!("CREATE TABLE {} (\n{}\n)", self.name.quoted(), lines.join(",\n"))
    }

    pub(crate) fn missing(&self) -> TableError {
        TableError::Missing { table: self.display_name(), ddl: self.ddl() }
    }

    fn names(&self, columns: &[usize]) -> Vec<String> {
        columns.iter().filter_map(|&i| self.columns.get(i)).map(|c| c.name.clone()).collect()
    }

    /// `unnest($1::bigint[],…)` of these columns.
    fn unnest(&self, columns: impl IntoIterator<Item = usize>) -> String {
        let columns = columns.into_iter().filter_map(|i| self.columns.get(i));
        let arrays = columns.enumerate().map(|(i, column)| {
            let (number, array) = (i + 1, column.stored.array());
            format!("${number}::{array}")
        });
        format!("unnest({})", arrays.collect::<Vec<_>>().join(","))
    }

    fn copy_sql(&self) -> String {
        let (name, all) = (self.name.quoted(), self.all());
        format!("COPY {name} ({all}) FROM STDIN (FORMAT binary)")
    }

    /// Every column, as a list.
    fn all(&self) -> String {
        quoted_list(&self.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>())
    }

    fn write_sql(&self) -> String {
        let all = self.all();
        let source = self.unnest(0..self.columns.len());
        let name = self.name.quoted();
        let key = quoted_list(&self.unique_names());
        let insert = format!("INSERT INTO {name} AS t ({all}) SELECT * FROM {source} AS s ({all})");
        let values = (0..self.columns.len()).filter(|i| !self.unique.contains(i));
        let values = self.names(&values.collect::<Vec<_>>());
        let set = |from: &str| {
            let each = values.iter().map(|value| format!("{0}={from}.{0}", quoted(value)));
            each.collect::<Vec<_>>().join(",")
        };
        let guard = |from: &str| {
            let version = self.version.and_then(|version| self.columns.get(version));
            version.map(|version| {
                let version = quoted(&version.name);
                format!("(t.{version} IS NULL OR t.{version} <= {from}.{version})")
            })
        };
        match self.mode {
            Mode::Insert => insert,
            Mode::Append | Mode::Ignore => format!("{insert} ON CONFLICT ({key}) DO NOTHING"),
            Mode::Upsert => {
                let guard = guard("excluded").map(|g| format!(" WHERE {g}")).unwrap_or_default();
                format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {}{guard}", set("excluded"))
            }
            Mode::Update => {
                let guard = guard("s").map(|g| format!(" AND {g}")).unwrap_or_default();
                let same = self.same_key();
                format!(
                    "UPDATE {name} AS t SET {} FROM {source} AS s ({all}) WHERE {same}{guard}",
                    set("s")
                )
            }
        }
    }

    fn absent_sql(&self) -> String {
        let key = quoted_list(&self.unique_names());
        format!(
            "SELECT s.number FROM {} WITH ORDINALITY AS s ({key}, number) \
             WHERE NOT EXISTS (SELECT 1 FROM {} AS t WHERE {})",
            self.unnest(self.unique.iter().copied()),
            self.name.quoted(),
            self.same_key()
        )
    }

    fn newer_sql(&self, version: usize) -> String {
        let columns: Vec<usize> = self.unique.iter().copied().chain([version]).collect();
        let guard = quoted(self.columns.get(version).map_or("", |c| c.name.as_str()));
        format!(
            "SELECT s.number FROM {} WITH ORDINALITY AS s ({}, number) JOIN {} AS t ON {} WHERE t.{guard} > s.{guard}",
            self.unnest(columns.iter().copied()),
            quoted_list(&self.names(&columns)),
            self.name.quoted(),
            self.same_key()
        )
    }

    fn delete_sql(&self) -> String {
        format!(
            "DELETE FROM {} AS t USING {} AS s ({}) WHERE {}",
            self.name.quoted(),
            self.unnest(self.unique.iter().copied()),
            quoted_list(&self.unique_names()),
            self.same_key()
        )
    }

    /// `t.id=s.id AND …`
    fn same_key(&self) -> String {
        let same =
            self.unique_names().into_iter().map(|name| format!("t.{0}=s.{0}", quoted(&name)));
        same.collect::<Vec<_>>().join(" AND ")
    }
}

impl TableName {
    /// Another table of the same schema, quoted.
    pub(crate) fn sibling(&self, name: &str) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(name)),
            None => quoted(name),
        }
    }

    pub(crate) fn quoted(&self) -> String {
        self.sibling(&self.name)
    }
}

impl TableColumn {
    /// Name, type and nullability, as in `CREATE TABLE`.
    pub(crate) fn definition(&self) -> String {
        let not_null = if self.nullable { "" } else { " NOT NULL" };
        format!("{} {}{not_null}", quoted(&self.name), self.declared())
    }

    /// The type of a column that is created.
    pub(crate) fn declared(&self) -> String {
        match (self.stored, self.characters) {
            (Stored::Text, Some(most @ 1..=MOST_VARCHAR)) => format!("varchar({most})"),
            (stored, _) => stored.declared(),
        }
    }
}

impl Stored {
    /// The type of a column that is created.
    pub(crate) fn declared(self) -> String {
        match self {
            Self::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
            Self::Position => "numeric(39)".to_owned(),
            other => other.kind().to_owned(),
        }
    }

    fn array(self) -> String {
        format!("{}[]", self.kind())
    }

    /// The type's own name, as `pg_type` has it.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Boolean => "bool",
            Self::SmallInt => "int2",
            Self::Int => "int4",
            Self::BigInt => "int8",
            Self::Real => "float4",
            Self::Double => "float8",
            Self::Decimal { .. } | Self::Position => "numeric",
            Self::Text => "text",
            Self::Date => "date",
            Self::Timestamp => "timestamptz",
            Self::Bytes(_) => "bytea",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::SmallInt => "smallint",
            Self::Int => "integer",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Decimal { .. } | Self::Position => "numeric",
            Self::Text => "text",
            Self::Date => "date",
            Self::Timestamp => "timestamptz",
            Self::Bytes(_) => "bytea",
        }
    }
}

/// An identifier in quotes, so that it is nothing but a name.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn quoted_list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",")
}
