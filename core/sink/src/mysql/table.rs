//! The table as it should be: column types, DDL and the statements that fill it.
//!
//! In: the configuration and the rows' schema, then which server it is. Out: SQL text, made once per connection's kind of server.
//! Names are quoted always and checked first, so that no name can become SQL. Statements exist for a few numbers of rows only,
//! so that the server prepares each once.
//! Not here: what the database has (`inspect`), values (`encode`).

use std::sync::Arc;

use arrow_schema::SchemaRef;

use super::dialect::Dialect;
use super::error::{MySqlError, OnlyMySql};
use crate::changes::Truncate;
use crate::mode::Mode;
use crate::table::{Shape, Stored, TableColumn, TableError, TableName};

/// Rows of a statement that writes: the largest that fits is taken, and again for what is left, so that fewer than 512 rows
/// take 9 round trips at most.
const WRITE_SIZES: [usize; 10] = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];
/// Rows of a statement that looks for rows.
const LOOK_SIZES: [usize; 3] = [64, 8, 1];
/// The wire protocol counts the parameters of a prepared statement in 16 bits (COM_STMT_PREPARE_OK, num_params): a server
/// refuses more (1390), so a wide table's larger statements are left out. One of a single row always stays.
const MOST_PLACEHOLDERS: usize = 65_535;
/// The most bytes of an index (InnoDB, pages of 16 KiB).
const MOST_KEY_BYTES: usize = 3_072;
/// The most characters of a text in a key, where the index has room.
const MOST_KEY_TEXT: usize = 512;

/// The most bytes of all `varchar` outside the key together: half of what a row may have (65 535).
const MOST_VARCHAR_BYTES: usize = 32_768;

/// What is wanted, whichever the server.
#[derive(Debug)]
pub(crate) struct Wanted {
    name: TableName,
    shape: Shape,
    mode: Mode,
    key_text: usize,
}

/// A checked table and its statements for one kind of server.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) mode: Mode,
    pub(crate) unique: Vec<usize>,
    pub(crate) version: Option<usize>,
    pub(crate) dialect: Dialect,
    /// Characters of a text in the key.
    key_text: usize,
    /// Writes rows, all columns of each in order; for `update` the columns of [`Table::update_columns`].
    pub(crate) write: Statements,
    /// Which of some keys are there, by number from 0.
    pub(crate) present: Statements,
    /// Which of some keys are there with a larger version than the one behind the key, by number from 0.
    pub(crate) newer: Option<Statements>,
    /// Deletes keys.
    pub(crate) delete: Statements,
    /// What it does with row changes, where it obeys them.
    pub(crate) obeys: Option<Truncate>,
}

/// One statement in several sizes, the largest first, the last of one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statements(Vec<(usize, Arc<str>)>);

impl Statements {
    fn new(sizes: &[usize], placeholders: usize, text: impl Fn(usize) -> String) -> Self {
        let fits = |size: &usize| *size == 1 || size * placeholders <= MOST_PLACEHOLDERS;
        let sizes = sizes.iter().copied().filter(fits);
        Self(sizes.map(|size| (size, text(size).into())).collect())
    }

    /// The largest of at most so many rows.
    pub(crate) fn of_at_most(&self, rows: usize) -> (usize, &Arc<str>) {
        let found = self.0.iter().find(|(size, _)| *size <= rows).or_else(|| self.0.last());
        found.map_or_else(
            || unreachable!("there is one of a single row"),
            |(size, sql)| (*size, sql),
        )
    }
}

impl Wanted {
    pub(crate) fn new(
        name: &str,
        schema: &SchemaRef,
        mode: Mode,
        key: &[String],
        version: Option<&str>,
        truncate: Option<Truncate>,
    ) -> Result<Self, MySqlError> {
        let name = TableName::parse(name)?;
        let shape = Shape::new(schema, mode, key, version, truncate)??;
        let key_text = key_text(&shape).ok_or(OnlyMySql::KeyTooLong { most: MOST_KEY_BYTES })?;
        Ok(Self { name, shape, mode, key_text })
    }

    pub(crate) fn name(&self) -> &TableName {
        &self.name
    }

    /// For this kind of server.
    pub(crate) fn table(&self, dialect: Dialect) -> Result<Table, MySqlError> {
        let most = dialect.most_scale();
        for column in &self.shape.columns {
            if let Stored::Decimal { scale, .. } = column.stored
                && scale > most
            {
                let column = column.name.clone();
                return Err(OnlyMySql::Scale { column, scale, most, dialect }.into());
            }
        }
        let mut table = Table {
            name: self.name.clone(),
            columns: self.shape.columns.clone(),
            mode: self.mode,
            unique: self.shape.unique.clone(),
            version: self.shape.version,
            dialect,
            key_text: self.key_text,
            write: Statements::default(),
            present: Statements::default(),
            newer: None,
            delete: Statements::default(),
            obeys: self.shape.obeys,
        };
        let (columns, key) = (table.columns.len(), table.unique.len());
        table.write = match table.mode {
            Mode::Update => Statements::new(&[1], columns + 1, |_| table.update_sql()),
            _ => Statements::new(&WRITE_SIZES, columns, |rows| table.insert_sql(rows)),
        };
        table.present = Statements::new(&LOOK_SIZES, key, |rows| table.look_sql(rows, None));
        table.delete = Statements::new(&LOOK_SIZES, key, |rows| table.delete_sql(rows));
        table.newer = table.version.map(|version| {
            Statements::new(&LOOK_SIZES, key + 1, |rows| table.look_sql(rows, Some(version)))
        });
        Ok(table)
    }
}

impl Table {
    pub(crate) fn unique_names(&self) -> Vec<String> {
        self.unique.iter().map(|&i| self.column_name(i).to_owned()).collect()
    }

    /// `CREATE TABLE`.
    pub(crate) fn ddl(&self) -> String {
        let lines = self.columns.iter().enumerate().map(|(i, column)| {
            let not_null = if column.nullable { "" } else { " NOT NULL" };
            format!("  {} {}{not_null},\n", quoted(&column.name), self.declared(i))
        });
        let (name, lines) = (full_name(&self.name), lines.collect::<String>());
        let unique = quoted_list(&self.unique_names());
        format!(
            "CREATE TABLE {name} (\n{lines}  PRIMARY KEY ({unique})\n) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {}",
            self.dialect.exact_collation()
        )
    }

    pub(crate) fn missing(&self) -> TableError {
        TableError::Missing { table: self.name.display(), ddl: self.ddl() }
    }

    /// The type of a column that is created.
    pub(crate) fn declared(&self, column: usize) -> String {
        let Some(stored) = self.columns.get(column).map(|column| column.stored) else {
            return String::new();
        };
        match stored {
            Stored::Boolean => "boolean".into(),
            Stored::SmallInt => "smallint".into(),
            Stored::Int => "int".into(),
            Stored::BigInt => "bigint".into(),
            Stored::Real => "float".into(),
            Stored::Double => "double".into(),
            Stored::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Stored::Position => "decimal(39,0)".into(),
            Stored::Text if self.unique.contains(&column) => {
                let most = self.key_text.min(self.characters(column).unwrap_or(usize::MAX));
                format!("varchar({most})")
            }
            Stored::Text => match self.characters(column).filter(|_| self.has_room(column)) {
                Some(most) => format!("varchar({most})"),
                None => "longtext".into(),
            },
            Stored::Date => "date".into(),
            Stored::Timestamp => "datetime(6)".into(),
            Stored::Bytes(size) => format!("binary({size})"),
        }
    }

    /// How many characters the contract allows.
    fn characters(&self, column: usize) -> Option<usize> {
        usize::try_from(self.columns.get(column)?.characters?).ok()
    }

    /// Whether a row has room for this column and all before it as `varchar`: what a row may have is shared by its columns.
    fn has_room(&self, column: usize) -> bool {
        let upto = (0..=column).filter(|i| !self.unique.contains(i));
        let bytes = upto.filter_map(|i| self.characters(i)).map(|most| most.saturating_mul(4));
        bytes.fold(0, usize::saturating_add) <= MOST_VARCHAR_BYTES
    }

    /// What an update of one row is given: values, the key, the version where there is a guard.
    pub(crate) fn update_columns(&self) -> Vec<usize> {
        self.values().chain(self.unique.iter().copied()).chain(self.version).collect()
    }

    fn column_name(&self, column: usize) -> &str {
        self.columns.get(column).map_or("", |column| column.name.as_str())
    }

    /// Columns outside the key, the version last: what is assigned before it can still see the old one.
    fn values(&self) -> impl Iterator<Item = usize> {
        let plain = |i: &usize| !self.unique.contains(i) && Some(*i) != self.version;
        let last = self.version.filter(|version| !self.unique.contains(version));
        (0..self.columns.len()).filter(plain).chain(last)
    }

    fn insert_sql(&self, rows: usize) -> String {
        let all: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let row = format!("({})", vec!["?"; all.len()].join(","));
        let insert = format!(
            "INSERT INTO {} ({}) VALUES {}",
            full_name(&self.name),
            quoted_list(&all),
            vec![row.as_str(); rows].join(",")
        );
        if self.mode != Mode::Upsert {
            return insert;
        }
        let (alias, assignments) = (self.dialect.row_alias(), self.assignments().join(","));
        format!("{insert}{alias} ON DUPLICATE KEY UPDATE {assignments}")
    }

    fn assignments(&self) -> Vec<String> {
        let held = |name: &str| format!("{}.{}", quoted(&self.name.name), quoted(name));
        let offered = |name: &str| self.dialect.offered(&quoted(name));
        let key = self.unique_names();
        let same: Vec<String> =
            key.iter().map(|name| format!("{}={}", held(name), offered(name))).collect();
        // Another unique index may have met the row of another key: that must not be changed, so this fails it.
        let own = key.first().map(|name| {
            let same = same.join(" AND ");
            format!("{}=IF({same},{},NULL)", quoted(name), held(name))
        });
        let guard = self.version.map(|version| {
            let version = self.column_name(version);
            let (held, offered) = (held(version), offered(version));
            format!("{held} IS NULL OR {held}<={offered}")
        });
        let values = self.values().map(|column| {
            let name = self.column_name(column);
            let offered = offered(name);
            match &guard {
                Some(guard) => format!("{}=IF({guard},{offered},{})", quoted(name), held(name)),
                None => format!("{}={offered}", quoted(name)),
            }
        });
        own.into_iter().chain(values).collect()
    }

    fn update_sql(&self) -> String {
        let set: Vec<String> =
            self.values().map(|column| format!("{}=?", quoted(self.column_name(column)))).collect();
        let guard = self.version.map_or_else(String::new, |version| {
            let version = quoted(self.column_name(version));
            format!(" AND ({version} IS NULL OR {version}<=?)")
        });
        format!(
            "UPDATE {} SET {} WHERE {}{guard}",
            full_name(&self.name),
            set.join(","),
            self.same_key()
        )
    }

    fn delete_sql(&self, rows: usize) -> String {
        let one = format!("({})", self.same_key());
        let (name, each) = (full_name(&self.name), vec![one.as_str(); rows].join(" OR "));
        format!("DELETE FROM {name} WHERE {each}")
    }

    fn look_sql(&self, rows: usize, version: Option<usize>) -> String {
        let newer = version.map_or_else(String::new, |version| {
            format!(" AND {}>?", quoted(self.column_name(version)))
        });
        let (name, same) = (full_name(&self.name), self.same_key());
        let each = (0..rows).map(|i| {
            let number = if i == 0 { "0 AS number".to_owned() } else { i.to_string() };
            format!("SELECT {number} FROM {name} WHERE {same}{newer}")
        });
        each.collect::<Vec<_>>().join(" UNION ALL ")
    }

    /// `id=? AND …`
    fn same_key(&self) -> String {
        let same = self.unique_names().into_iter().map(|name| format!("{}=?", quoted(&name)));
        same.collect::<Vec<_>>().join(" AND ")
    }
}

/// Characters of each text in the key, so that the index has room for all; `None`: there is none.
fn key_text(shape: &Shape) -> Option<usize> {
    let key = || shape.unique.iter().filter_map(|&i| shape.columns.get(i)).map(|c| c.stored);
    let fixed: usize = key().map(key_bytes).sum();
    let texts = key().filter(|stored| *stored == Stored::Text).count();
    let room = MOST_KEY_BYTES.checked_sub(fixed)?;
    if shape.unique.len() > 16 {
        return None;
    }
    let each = (room / texts.max(1) / 4).min(MOST_KEY_TEXT);
    (each > 0).then_some(each)
}

/// What a column adds to an index, apart from the text itself.
fn key_bytes(stored: Stored) -> usize {
    match stored {
        Stored::Boolean => 1,
        Stored::SmallInt | Stored::Text => 2,
        Stored::Int | Stored::Real | Stored::Date => 4,
        Stored::BigInt | Stored::Double | Stored::Timestamp => 8,
        Stored::Decimal { .. } | Stored::Position => 20,
        Stored::Bytes(size) => usize::try_from(size).unwrap_or(0),
    }
}

/// An identifier in quotes, so that it is nothing but a name.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(crate) fn quoted_list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",")
}

/// A table, quoted, with its database where one is named.
pub(crate) fn full_name(name: &TableName) -> String {
    beside(name, &name.name)
}

/// Another table of the same database, quoted.
pub(crate) fn beside(name: &TableName, other: &str) -> String {
    match &name.schema {
        Some(database) => format!("{}.{}", quoted(database), quoted(other)),
        None => quoted(other),
    }
}
