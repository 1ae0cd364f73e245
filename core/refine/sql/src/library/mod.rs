//! The functions that SQL may call: DataFusion's row-local ones that replay identically, and a few that Spark has too.
//!
//! In: a name. Out: the function, or that it is an aggregate, not repeatable, unknown. Own ones: [`mask`], [`digest`] (hashes of
//! personal data), [`json`] (a value out of JSON text), [`extract`] (a group of a match).
//! Not here: what each of DataFusion's does (`docs/sql.md`).

mod digest;
mod extract;
mod json;
mod mask;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::{ScalarUDF, Volatility};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;

use crate::error;

/// Functions by their names and other names.
#[derive(Debug)]
pub(crate) struct Library {
    functions: BTreeMap<String, Arc<ScalarUDF>>,
    /// Known, and refused: what they give is not a matter of the record alone.
    unrepeatable: Vec<String>,
    pub(crate) planners: Vec<Arc<dyn ExprPlanner>>,
}

/// What the field calls aggregates; the planner has none.
const AGGREGATES: [&str; 34] = [
    "any_value",
    "approx_count_distinct",
    "approx_distinct",
    "approx_median",
    "approx_percentile",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "collect_list",
    "collect_set",
    "corr",
    "count",
    "count_if",
    "first",
    "first_value",
    "grouping",
    "last",
    "last_value",
    "listagg",
    "max",
    "mean",
    "median",
    "min",
    "percentile",
    "stddev",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];
/// Functions of the clock and of chance, by the names that other systems give them.
const UNREPEATABLE: [&str; 18] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "curdate",
    "getdate",
    "gen_random_uuid",
    "localtime",
    "localtimestamp",
    "monotonically_increasing_id",
    "now",
    "rand",
    "randn",
    "random",
    "spark_partition_id",
    "sysdate",
    "today",
    "unix_timestamp",
    "uuid",
];
/// They tell of the engine instead of the record: an upgrade would change them.
const OF_THE_ENGINE: [&str; 3] = ["arrow_metadata", "arrow_typeof", "version"];

impl Library {
    pub(crate) fn new() -> Self {
        let own = [
            digest::sha2(),
            digest::sha256(),
            extract::regexp_extract(),
            json::get_json_object(),
            mask::mask(),
        ];
        let all =
            datafusion_functions::all_default_functions().into_iter().chain(own.map(Arc::new));
        let (mut functions, mut unrepeatable) = (BTreeMap::new(), Vec::new());
        for function in all {
            let names = [function.name().to_owned()].into_iter().chain(function.aliases().to_vec());
            let repeats = function.signature().volatility == Volatility::Immutable;
            for name in names.filter(|name| !OF_THE_ENGINE.contains(&name.as_str())) {
                if repeats {
                    functions.insert(name, Arc::clone(&function));
                } else {
                    unrepeatable.push(name);
                }
            }
        }
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(CoreFunctionPlanner::default()),
            Arc::new(DatetimeFunctionPlanner),
            Arc::new(UnicodeFunctionPlanner),
        ];
        Self { functions, unrepeatable, planners }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.get(name).cloned()
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Whether it would not give the same again on replay.
    pub(crate) fn is_unrepeatable(&self, name: &str) -> bool {
        let is_known = UNREPEATABLE.contains(&name) && !self.knows(name);
        is_known || self.unrepeatable.iter().any(|known| known == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        error::nearest(name, self.names())
    }
}

pub(crate) fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

/// What to write in place of a function that does not replay.
pub(crate) fn instead_of(name: &str) -> &'static str {
    match name {
        "rand" | "randn" | "random" => {
            "take a part of a hash, e.g. of sha256(id), for a stable choice"
        }
        "uuid" | "gen_random_uuid" | "monotonically_increasing_id" | "spark_partition_id" => {
            "a record is named by _origin, _position and _ordinal"
        }
        _ => "use _ingest_time, when the record was taken in, or _event_time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_clock_or_chance_is_known_and_refused() {
        let library = Library::new();
        for name in
            ["now", "current_date", "current_time", "random", "uuid", "current_timestamp", "today"]
        {
            assert!(library.is_unrepeatable(name) && !library.knows(name), "{name}");
        }
        assert!(library.knows("mask") && library.knows("upper") && !library.knows("version"));
        assert_eq!(library.nearest("uper").as_deref(), Some("upper"));
    }
}
