//! The declared columns of a dimension, as a contract that its rows are read by.
//!
//! In: `[dimension.NAME.columns]` and how cells stand in what is read. Out: [`Dimension`] for whoever joins, and refiners for
//! whoever reads. A row is read by the rules of contracts, and nothing else: types, casts, `from`, `default`, bounds.

use garam_refine::{ContractRefiner, sample};
use garam_stage::contract::{ColumnConfig, OneOrMany};
use garam_stage::{
    Column, ColumnType, Contract, ContractConfig, Dimension, Format, Missing, Refiner as _,
    UnknownColumns,
};

use crate::config::PlanError;
use crate::error::DimensionError;

/// Columns, key, and what stands in for a row that is missing.
#[derive(Debug, Clone)]
pub struct Shape {
    contract: Contract,
    dimension: Dimension,
}

/// How the columns' values stand in what is read.
#[derive(Debug, Clone)]
pub(crate) struct Cells {
    pub(crate) format: Format,
    pub(crate) delimiter: Option<char>,
    pub(crate) zone: Option<String>,
}

impl Shape {
    pub(crate) fn check(
        name: &str,
        columns: Vec<(String, ColumnConfig)>,
        key: Vec<String>,
        missing: Missing,
        cells: &Cells,
    ) -> Result<Self, PlanError> {
        if key.is_empty() {
            let why = "name at least one column".to_owned();
            return Err(PlanError { key: "key", why });
        }
        let Cells { format, delimiter, zone } = cells.clone();
        let contract = ContractConfig {
            columns,
            key: Some(OneOrMany::Many(key.clone())),
            unknown: UnknownColumns::Drop,
            delimiter,
            zone,
            ..ContractConfig::new(format, Vec::new())
        };
        let contract = contract.check()?;
        check_key(&contract, &key)?;
        if missing == Missing::Default {
            has_defaults(&contract, &key)?;
        }
        let in_columns = |error: String| PlanError { key: "columns", why: error };
        let refiner = ContractRefiner::new(contract.clone());
        let refiner = refiner.map_err(|error| in_columns(error.to_string()))?;
        let declared: Vec<usize> = (0..contract.columns.len()).collect();
        let schema = refiner.schema().project(&declared);
        let schema = schema.map_err(|error| in_columns(error.to_string()))?.into();
        let default_row = default_row(&contract).map_err(|error| in_columns(error.to_string()))?;
        let dimension = Dimension { name: name.to_owned(), schema, key, missing, default_row };
        Ok(Self { contract, dimension })
    }

    /// For whoever joins it.
    pub fn dimension(&self) -> &Dimension {
        &self.dimension
    }

    /// Whether a pipeline may use it so: `default` needs defaults.
    pub fn allows(&self, missing: Missing) -> Result<(), PlanError> {
        match missing {
            Missing::Default => has_defaults(&self.contract, &self.dimension.key),
            Missing::Null | Missing::Quarantine => Ok(()),
        }
    }

    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Reads records whose cells have these names, in this order. Every column must be among them.
    pub(crate) fn by_names(
        &self,
        place: &str,
        names: Vec<String>,
    ) -> Result<ContractRefiner, DimensionError> {
        let is_there = |column: &&Column| {
            let aliases = &self.contract.reading.aliases;
            let is_named = |name: &String| {
                let is_own = column.is_named && *name == column.name;
                is_own || aliases.iter().any(|(alias, of)| alias == name && *of == column.name)
            };
            column.rules.constant.is_some() || names.iter().any(is_named)
        };
        if let Some(column) = self.contract.columns.iter().find(|column| !is_there(column)) {
            return Err(DimensionError::NoColumn {
                place: place.to_owned(),
                column: column.name.clone(),
                there: names.join(", "),
            });
        }
        let mut contract = self.contract.clone();
        contract.reading.fields = names;
        self.refiner(place, contract)
    }

    /// Reads records whose cells are the columns in their order, or that name their values themselves.
    pub(crate) fn as_declared(&self, place: &str) -> Result<ContractRefiner, DimensionError> {
        self.refiner(place, self.contract.clone())
    }

    fn refiner(&self, place: &str, contract: Contract) -> Result<ContractRefiner, DimensionError> {
        ContractRefiner::new(contract).map_err(|error| DimensionError::Internal {
            place: place.to_owned(),
            why: error.to_string(),
        })
    }

    /// What rows mean: names, types and rules.
    pub(crate) fn definition(&self) -> String {
        format!("{} key {:?}", self.contract.canonical_text(), self.dimension.key)
    }
}

fn check_key(contract: &Contract, key: &[String]) -> Result<(), PlanError> {
    for (i, name) in key.iter().enumerate() {
        let refuse = |why: String| Err(PlanError { key: "key", why });
        if key.iter().take(i).any(|other| other == name) {
            return refuse(format!("column {name} is named twice"));
        }
        let column = contract.columns.iter().find(|column| column.name == *name);
        if column.is_some_and(|c| matches!(c.kind, ColumnType::Real | ColumnType::Double)) {
            return refuse(format!(
                "column {name} is a binary float, which is seldom equal to another: use decimal"
            ));
        }
    }
    Ok(())
}

/// Columns that may not be null have something that stands in for them.
fn has_defaults(contract: &Contract, key: &[String]) -> Result<(), PlanError> {
    let lacks = |column: &&Column| {
        let stands_in = column.rules.default.is_some() || column.rules.constant.is_some();
        !key.contains(&column.name) && !column.nullable && !stands_in
    };
    match contract.columns.iter().find(lacks) {
        None => Ok(()),
        Some(column) => Err(PlanError {
            key: "missing",
            why: format!(
                "\"default\" needs a default for column {0}, which is \"not null\": {0} = {{ type = \"…\", default = … }}",
                column.name
            ),
        }),
    }
}

/// What a record that says nothing is read as, were every column nullable.
fn default_row(contract: &Contract) -> Result<arrow_array::RecordBatch, DimensionError> {
    let broken = |why: String| DimensionError::Internal { place: "a default row".into(), why };
    let mut contract = contract.clone();
    contract.format = Format::Json;
    contract.columns.iter_mut().for_each(|column| column.nullable = true);
    let declared: Vec<usize> = (0..contract.columns.len()).collect();
    let refiner = ContractRefiner::new(contract).map_err(|error| broken(error.to_string()))?;
    let refined = refiner.refine(&[sample(&["{}"], 0)]).map_err(|e| broken(e.to_string()))?;
    if let Some(bad) = refined.bad.first() {
        return Err(broken(bad.detail.clone()));
    }
    refined.rows.project(&declared).map_err(|error| broken(error.to_string()))
}
