//! How a pipeline's records become rows: by its stream's contract, and by its SQL where it has some.
//!
//! In: the stream's contract and refiner, the SQL. Out: [`Refining`]: one refiner, the schema of what it gives, and the text that
//! the pipeline's plan is named by. Not here: what SQL may say (`garam-refine-sql`).

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use garam_refine::{ContractRefiner, SEMANTICS};
use garam_stage::{Contract, Refiner};

/// What a pipeline does to records.
#[derive(Clone)]
pub struct Refining {
    refiner: Arc<dyn Refiner>,
    sql: Option<String>,
    text: String,
}

impl Refining {
    /// Plans the SQL once, or says why it cannot be planned.
    pub fn new(
        contract: &Contract,
        refiner: Arc<ContractRefiner>,
        sql: Option<String>,
    ) -> Result<Self, String> {
        let mut text =
            format!("contract {}\nrefine semantics {SEMANTICS}\n", contract.canonical_text());
        let Some(sql) = sql else { return Ok(Self { refiner, sql: None, text }) };
        let (refiner, semantics) = planned(refiner, &sql)?;
        text.push_str(&format!("sql semantics {semantics}\nsql {}\n", sql.trim()));
        Ok(Self { refiner, sql: Some(sql), text })
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

#[cfg(feature = "sql")]
fn planned(
    contract: Arc<ContractRefiner>,
    sql: &str,
) -> Result<(Arc<dyn Refiner>, &'static str), String> {
    use garam_refine_sql::SqlRefiner;
    let refiner = SqlRefiner::new(contract, sql).map_err(|error| error.to_string())?;
    Ok((Arc::new(refiner), garam_refine_sql::SEMANTICS))
}

#[cfg(not(feature = "sql"))]
fn planned(_: Arc<ContractRefiner>, _: &str) -> Result<(Arc<dyn Refiner>, &'static str), String> {
    Err("this garam was built without SQL: use one that was built with the feature `sql`".into())
}
