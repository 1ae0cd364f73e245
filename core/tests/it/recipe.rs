//! A plan into a stream is made again from what the metadata keeps of it.

use garam_core::config::{self, Config, Plan, Recipe, plan_id, plan_text};
use garam_proto::StreamName;
use garam_stage::PlanId;

const CONFIG: &str = r#"
[stream.orders]
[stream.orders.contract]
format = "json"
time = "at"
key = ["user_id", "order_id"]
unknown = "drop"
zone = "+09:00"
time_fallback = "ingest"
max_ahead = "1m"
max_behind = "36h"
[stream.orders.contract.aliases]
at = ["ts", "/meta/time"]
[stream.orders.contract.columns]
user_id = "bigint not null"
order_id = { type = "bigint not null", cast = "lenient", min = 1 }
at = "timestamp not null"
amount = { type = "decimal(18,2)", default = "0.00", max = 1e6, on_breach = "default" }
state = { type = "varchar(8)", one_of = ["new", "paid"], on_breach = "null" }
source = { type = "text not null", constant = "shop" }
[stream.by-user]
partitions = 4
[stream.by-user.contract]
format = "json"
[stream.by-user.contract.columns]
user_id = "bigint not null"
amount = "decimal(18,2)"
[stream.plain]
[pipeline.rekey]
from = "orders"
sql = "select user_id, amount from input where amount > 1"
to.stream = { name = "by-user", key = ["user_id"] }
[pipeline.lines]
from = "plain"
to.stream = { name = "by-user" }
[pipeline.table]
from = "by-user"
to.sqlite = { path = "/tmp/rows.sqlite", table = "rows" }
"#;

fn plan(text: &str) -> Plan {
    config::parse("garam.toml", text).and_then(Config::check).unwrap()
}

/// A pipeline's plan and what it is made of.
fn made(plan: &Plan, name: &str) -> (PlanId, Option<String>) {
    let pipeline = plan.pipelines.iter().find(|pipeline| pipeline.name == name).unwrap();
    let partitions = |name: &StreamName| plan.stream(name).unwrap().partitions;
    let id = plan_id(&plan_text(&pipeline.refining, pipeline.to.placement(partitions)));
    let from = plan.stream(&pipeline.from).unwrap();
    (id, Recipe::of(pipeline, from, partitions).map(|recipe| recipe.text().unwrap()))
}

#[test]
fn a_plan_into_a_stream_is_made_again_as_it_was() {
    let plan = plan(CONFIG);
    for name in ["rekey", "lines"] {
        let (id, recipe) = made(&plan, name);
        let remade = Recipe::remake(&recipe.unwrap(), id).unwrap();
        let pipeline = plan.pipelines.iter().find(|pipeline| pipeline.name == name).unwrap();
        assert_eq!(remade.refining.text(), pipeline.refining.text());
        assert_eq!(remade.refining.schema(), pipeline.refining.schema());
        assert_eq!((remade.target.stream.as_str(), remade.partitions), ("by-user", 4));
    }
    assert_eq!(made(&plan, "table").1, None, "a table takes a record again");
}

#[test]
fn what_would_give_other_records_is_refused() {
    let (id, recipe) = made(&plan(CONFIG), "rekey");
    let recipe = recipe.unwrap();
    let refused = |text: &str| Recipe::remake(text, id).err().unwrap();
    for (what, other) in [("user_id, amount", "amount"), ("paid", "owed"), ("\"1m\"", "\"2m\"")] {
        let changed = recipe.replace(what, other);
        assert_ne!(changed, recipe, "{what}");
        let text = refused(&changed);
        assert!(text.contains("other records of the same definition"), "{what}: {text}");
    }
    let text = refused("{\"from\": \"a newer release\"}");
    assert!(text.contains("unknown field `from`"), "{text}");
}
