//! What a changed configuration means for a core: compared by `garam check`, carried out by `garam reload`.
//!
//! In: the plan of a configuration; what a core runs by, from itself or, when none runs, from its metadata. Out: the changes as a
//! table and as stable JSON. Not here: what may change (`config::change`), carrying it out (`app::reload`).

use std::time::Duration;

use garam_meta::recorded_definition;
use serde::Serialize;

use super::admin_client::Core;
use super::exit::{Coded, Exit, eprintln_quietly};
use super::output::{self, Format, Table};
use crate::config::Plan;
use crate::config::change::{Change, Changes, Definition, Verdict, compare};

/// Pipelines end at a batch boundary one by one, each within its deadline.
const PATIENCE: Duration = Duration::from_secs(120);

/// Changes, and against what they were found.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    /// `running` or `recorded`: a core that answers, or what the metadata holds of the last one.
    against: &'static str,
    #[serde(flatten)]
    pub(crate) changes: Changes,
}

/// Compares with the core of this configuration. `None`: there is nothing to compare with.
pub(crate) fn compared(plan: &Plan) -> anyhow::Result<Option<Compared>> {
    let core = Core::Here { socket: plan.admin.socket.clone() };
    let after = Definition::of(plan);
    let found = super::block_on(async {
        let unreachable = match core.get::<Definition>("/v1/definition").await {
            Ok(before) => return Ok(Some(("running", before))),
            Err(error) => error,
        };
        let exit = unreachable.downcast_ref::<Coded>().map(|coded| coded.exit);
        if exit != Some(Exit::Unreachable) {
            eprintln_quietly(&format!("not compared with the running core: {unreachable:#}"));
            return Ok(None);
        }
        let recorded = recorded_definition(&plan.meta_path()).await?;
        Ok(recorded.and_then(|text| Some(("recorded", Definition::from_text(&text)?))))
    })?;
    let compared =
        found.map(|(against, before)| Compared { against, changes: compare(&before, &after) });
    Ok(compared)
}

impl Compared {
    /// How `garam check` ends: what a restart takes is no error of the configuration.
    pub(crate) fn exit(&self) -> Exit {
        match self.changes.verdict {
            Verdict::Unchanged | Verdict::Applies | Verdict::Restart => Exit::Ok,
            Verdict::Refused => Exit::Conflict,
        }
    }

    pub(crate) fn text(&self) -> String {
        let than = match self.against {
            "running" => "the running core",
            _ => "the core that ran last",
        };
        let verdict = match self.changes.verdict {
            Verdict::Unchanged => return format!("\nas {than} has it: nothing would change\n"),
            Verdict::Applies => "`garam reload` or SIGHUP applies it",
            Verdict::Restart => "a running core does not take it, a restart does",
            Verdict::Refused => "refused as it is: nothing of it is applied",
        };
        format!("\ncompared with {than}: {verdict}\n{}", table(&self.changes).render())
    }
}

pub(crate) fn reload(core: &Core, format: Format) -> anyhow::Result<Exit> {
    let changes: Changes = super::block_on(core.post_for("/v1/reload", PATIENCE))?;
    output::print(format, &changes, &table(&changes))?;
    Ok(Exit::Ok)
}

/// One row for each setting that differs, one for each thing that stays.
fn table(changes: &Changes) -> Table {
    let mut table = Table::new(&["NAME", "WHAT", "CHANGE", "HOW"]);
    for item in &changes.items {
        let mut row = |how: String| {
            let what = item.what.name().to_owned();
            table.row([item.name.clone(), what, item.change.name().to_owned(), how]);
        };
        if item.change != Change::Changed && !item.effect.is_empty() || item.details.is_empty() {
            row(item.effect.clone());
        }
        for detail in &item.details {
            row(detail.to_string());
        }
        if item.change == Change::Changed {
            row(item.effect.clone());
        }
    }
    table
}
