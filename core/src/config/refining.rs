//! How a pipeline's records become rows: by its stream's contract, and by its SQL where it has some.
//!
//! In: the stream's contract and refiner, the SQL, the dimensions it may join. Out: [`Refining`]: one refiner, the schema of what it gives, and the text that
//! the pipeline's plan is named by. Not here: what SQL may say (`garam-refine-sql`).

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use garam_refine::{ContractRefiner, SEMANTICS};
use garam_stage::{Contract, Dimension, Refiner, Snapshots};

/// What a pipeline does to records.
#[derive(Clone)]
pub struct Refining {
    refiner: Arc<dyn Refiner>,
    sql: Option<String>,
    /// The dimensions that the SQL joins.
    joins: Vec<String>,
    /// What of their declarations decides which rows there are.
    tables: String,
    keeps_every_row: bool,
    text: String,
}

struct Planned {
    refiner: Arc<dyn Refiner>,
    joins: Vec<String>,
    keeps_every_row: bool,
    semantics: &'static str,
}

impl Refining {
    /// Plans the SQL once, or says why it cannot be planned. It may join these tables, whose newest rows are at `snapshots`.
    pub fn new(
        contract: &Contract,
        refiner: Arc<ContractRefiner>,
        sql: Option<String>,
        tables: Vec<Dimension>,
        snapshots: &Snapshots,
    ) -> Result<Self, String> {
        let mut text =
            format!("contract {}\nrefine semantics {SEMANTICS}\n", contract.canonical_text());
        let Some(sql) = sql else {
            let (joins, tables) = (Vec::new(), String::new());
            return Ok(Self { refiner, sql: None, joins, tables, keeps_every_row: true, text });
        };
        let known = tables.clone();
        let Planned { refiner, joins, keeps_every_row, semantics } =
            planned(refiner, &sql, tables, snapshots)?;
        text.push_str(&format!("sql semantics {semantics}\nsql {}\n", sql.trim()));
        let joined = known.iter().filter(|table| joins.contains(&table.name));
        let tables: String = joined.map(declared).collect();
        text.push_str(&tables);
        Ok(Self { refiner, sql: Some(sql), joins, tables, keeps_every_row, text })
    }

    pub fn refiner(&self) -> Arc<dyn Refiner> {
        Arc::clone(&self.refiner)
    }

    /// Columns of every batch that goes to the destination.
    pub fn schema(&self) -> SchemaRef {
        self.refiner.schema()
    }

    pub fn sql(&self) -> Option<&str> {
        self.sql.as_deref()
    }

    /// Whether no row by the contract is left out by the SQL.
    pub fn keeps_every_row(&self) -> bool {
        self.keeps_every_row
    }

    /// The dimensions that the SQL joins.
    pub fn joins(&self) -> &[String] {
        &self.joins
    }

    /// How those are declared and used, a line for each.
    pub fn tables(&self) -> &str {
        &self.tables
    }

    /// What the plan is named by: the same text, the same rows.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Refining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refining").field("text", &self.text).finish_non_exhaustive()
    }
}

/// What of a dimension's declaration decides which rows there are. Its rows are no part of a plan: a pipeline goes on with
/// the newest ones.
fn declared(table: &Dimension) -> String {
    let column = |field: &arrow_schema::FieldRef| format!("{} {}", field.name(), field.data_type());
    let columns: Vec<String> = table.schema.fields().iter().map(column).collect();
    let (name, key) = (&table.name, table.key.join(" "));
    format!(
        "dimension {name} key {key} missing {:?} columns {}\n",
        table.missing,
        columns.join(", ")
    )
}

#[cfg(feature = "sql")]
fn planned(
    contract: Arc<ContractRefiner>,
    sql: &str,
    tables: Vec<Dimension>,
    snapshots: &Snapshots,
) -> Result<Planned, String> {
    use garam_refine_sql::{Dimensions, SEMANTICS, SqlRefiner};
    let dimensions = Dimensions { tables, snapshots: snapshots.clone() };
    let refiner = SqlRefiner::joining(contract, sql, &dimensions);
    let refiner = refiner.map_err(|error| error.to_string())?;
    let mut joins = refiner.dimensions().to_vec();
    joins.sort();
    joins.dedup();
    let keeps_every_row = refiner.keeps_every_row();
    Ok(Planned { refiner: Arc::new(refiner), joins, keeps_every_row, semantics: SEMANTICS })
}

#[cfg(not(feature = "sql"))]
fn planned(
    _: Arc<ContractRefiner>,
    _: &str,
    _: Vec<Dimension>,
    _: &Snapshots,
) -> Result<Planned, String> {
    Err("this garam was built without SQL: use one that was built with the feature `sql`".into())
}
