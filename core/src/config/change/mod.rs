//! What another configuration would change in a core: item by item, what takes effect when, and what is refused with what to do.
//!
//! In: two [`Definition`]s, the one that a core runs by and the one that it would. Out: [`Changes`]. Promise: `garam check`, `garam
//! reload` and SIGHUP say the same, since this is the only place that decides; a change that is refused in one item is refused
//! as a whole. Reading order: `definition` (what is compared) → here (core, policies, streams, pipelines) → `contract`.
//! Not here: carrying a change out (`app::reload`).

mod contract;
mod definition;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use definition::{
    ColumnDefinition, ContractDefinition, Definition, PipelineDefinition, Settings,
    StreamDefinition,
};

/// Everything that would change, and what would not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub verdict: Verdict,
    pub items: Vec<Item>,
}

/// What a reload would make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is to be done.
    Unchanged,
    /// It takes effect without a restart.
    Applies,
    /// A running core does not take it; a restart does.
    Restart,
    /// Not before something is changed in it.
    Refused,
}

/// One thing of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub what: What,
    pub name: String,
    pub change: Change,
    /// When it takes effect, and what happens then.
    pub effect: String,
    pub details: Vec<Detail>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Core,
    Policy,
    Stream,
    Pipeline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Unchanged,
    Added,
    Removed,
    Changed,
    Refused,
}

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    pub key: String,
    pub before: Option<String>,
    pub after: Option<String>,
    pub note: Option<String>,
    pub refused: Option<Refused>,
}

/// Why a change is not taken, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub needs: Needs,
    pub why: String,
    pub action: String,
}

/// Whose hands are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    Restart,
    /// A pipeline of another name.
    NewPipeline,
    /// Another `version` in the contract.
    Version,
    /// It cannot be done at all.
    Never,
}

const AT_NEXT_BATCH: &str = "from its next batch on, by a new plan; its cursor stays";
const AT_ONCE: &str = "at once";
const REMOVED: &str = "it stops behind the batch in its hands. Its rows, its cursor and its quarantine stay; the log keeps nothing \
                       for it any more beyond retain: use `garam pause` instead if it is to come back";

/// What leads from one definition to the other.
pub fn compare(before: &Definition, after: &Definition) -> Changes {
    let mut items = vec![core(&before.core, &after.core)];
    items.extend(policies(&before.policies, &after.policies));
    items.extend(streams(&before.streams, &after.streams));
    items.extend(pipelines(before, after));
    let refused: Vec<_> = items.iter().flat_map(Item::refusals).collect();
    let verdict = if items.iter().all(|item| item.change == Change::Unchanged) {
        Verdict::Unchanged
    } else if refused.is_empty() {
        Verdict::Applies
    } else if refused.iter().all(|refused| refused.needs == Needs::Restart) {
        Verdict::Restart
    } else {
        Verdict::Refused
    };
    Changes { verdict, items }
}

impl Changes {
    /// Why a running core does not take it; one sentence for each setting.
    pub fn refusals(&self) -> Vec<String> {
        let of_item = |item: &Item| {
            let refused = item.details.iter().filter(|detail| detail.refused.is_some());
            let text = |detail: &Detail| format!("{} {}, {detail}", item.what.name(), item.name);
            refused.map(text).collect::<Vec<_>>()
        };
        self.items.iter().flat_map(of_item).collect()
    }

    /// A destination differs in what is in no definition: the secret of its address.
    pub fn note_secret(&mut self, pipeline: &str) {
        let mut items = self.items.iter_mut();
        let item = items.find(|item| item.what == What::Pipeline && item.name == pipeline);
        let Some(item) = item.filter(|item| item.change == Change::Unchanged) else { return };
        let note = Some("another secret, or otherwise written".to_owned());
        let key = "to".to_owned();
        let detail = Detail { key, before: None, after: None, note, refused: None };
        *item = Item::of(What::Pipeline, pipeline, vec![detail], AT_NEXT_BATCH);
        if self.verdict == Verdict::Unchanged {
            self.verdict = Verdict::Applies;
        }
    }

    /// The pipelines with this change.
    pub fn pipelines(&self, change: Change) -> BTreeSet<String> {
        let those = self.items.iter().filter(|i| i.what == What::Pipeline && i.change == change);
        those.map(|item| item.name.clone()).collect()
    }
}

impl Item {
    fn of(what: What, name: &str, details: Vec<Detail>, effect: &str) -> Self {
        let change = match () {
            () if details.iter().any(|detail| detail.refused.is_some()) => Change::Refused,
            () if details.is_empty() => Change::Unchanged,
            () => Change::Changed,
        };
        let effect = if change == Change::Changed { effect } else { "" };
        Self { what, name: name.to_owned(), change, effect: effect.to_owned(), details }
    }

    fn new(what: What, name: &str, change: Change, effect: impl Into<String>) -> Self {
        let (effect, details) = (effect.into(), Vec::new());
        Self { what, name: name.to_owned(), change, effect, details }
    }

    fn refusals(&self) -> impl Iterator<Item = &Refused> {
        self.details.iter().filter_map(|detail| detail.refused.as_ref())
    }
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Policy => "policy",
            Self::Stream => "stream",
            Self::Pipeline => "pipeline",
        }
    }
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Refused => "refused",
        }
    }
}

impl Detail {
    fn of(key: &str, before: &impl ToString, after: &impl ToString) -> Self {
        let (before, after) = (Some(before.to_string()), Some(after.to_string()));
        Self { key: key.to_owned(), before, after, note: None, refused: None }
    }

    fn refused(self, refused: Refused) -> Self {
        Self { refused: Some(refused), ..self }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, ": {before} → {after}")?,
            (Some(before), None) => write!(f, ": {before} → nothing")?,
            _ => {}
        }
        match (&self.refused, &self.note, &self.before) {
            (Some(Refused { why, action, .. }), ..) => write!(f, ": {why}: {action}"),
            (None, Some(note), Some(_)) => write!(f, " ({note})"),
            (None, Some(note), None) => write!(f, ": {note}"),
            _ => Ok(()),
        }
    }
}

fn core(before: &Settings, after: &Settings) -> Item {
    // A setting that one of the builds does not know is no difference.
    let known = |settings: &Settings, other: &Settings| -> Settings {
        let both = settings.iter().filter(|(key, _)| other.contains_key(*key));
        both.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let details = differing(&known(before, after), &known(after, before));
    let restart = |detail: Detail| {
        detail.refused(Refused {
            needs: Needs::Restart,
            why: "it is read once, at the start".into(),
            action: "needs a restart".into(),
        })
    };
    Item::of(What::Core, "core", details.into_iter().map(restart).collect(), "")
}

fn policies(before: &BTreeMap<String, Settings>, after: &BTreeMap<String, Settings>) -> Vec<Item> {
    let sessions = "for sessions that begin from now on";
    let item = |name: &String| match (before.get(name), after.get(name)) {
        (Some(old), Some(new)) => Item::of(What::Policy, name, differing(old, new), sessions),
        (None, _) => Item::new(What::Policy, name, Change::Added, AT_ONCE),
        (_, None) => {
            let effect = "agents that carry it are refused at their next session";
            Item::new(What::Policy, name, Change::Removed, effect)
        }
    };
    names(before, after).iter().map(item).collect()
}

fn streams(
    before: &BTreeMap<String, StreamDefinition>,
    after: &BTreeMap<String, StreamDefinition>,
) -> Vec<Item> {
    let item = |name: &String| match (before.get(name), after.get(name)) {
        (Some(old), Some(new)) => {
            let mut details: Vec<_> =
                partitions(old.partitions, new.partitions).into_iter().collect();
            details.extend(differing(&old.limits, &new.limits));
            details.extend(contract::compare(&old.contract, &new.contract));
            let effect = "limits at once; the contract from the next batch of its pipelines on";
            Item::of(What::Stream, name, details, effect)
        }
        (None, _) => Item::new(What::Stream, name, Change::Added, "agents may send to it at once"),
        (_, None) => {
            let gone = Detail { before: Some("configured".into()), ..Detail::of(name, &"", &"") };
            let gone = Detail { after: None, ..gone }.refused(Refused {
                needs: Needs::Restart,
                why: "agents may be sending to it".into(),
                action: "needs a restart, after which they hold; its log stays on disk".into(),
            });
            Item::of(What::Stream, name, vec![gone], "")
        }
    };
    names(before, after).iter().map(item).collect()
}

fn partitions(before: u32, after: u32) -> Option<Detail> {
    let detail = Detail::of("partitions", &before, &after);
    match after.cmp(&before) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(detail.refused(Refused {
            needs: Needs::Restart,
            why: "partitions are opened at the start".into(),
            action: "needs a restart; new lineages use the new ones".into(),
        })),
        std::cmp::Ordering::Less => Some(detail.refused(Refused {
            needs: Needs::Never,
            why: "partitions can only be added: what lies in one would be read by nobody".into(),
            action: format!("say partitions = {before}"),
        })),
    }
}

fn pipelines(before: &Definition, after: &Definition) -> Vec<Item> {
    let item = |name: &String| match (before.pipelines.get(name), after.pipelines.get(name)) {
        (Some(old), Some(new)) => {
            let mut details: Vec<_> = differing(&old.identity, &new.identity)
                .into_iter()
                .map(another_destination)
                .collect();
            details.extend(differing(&old.settings, &new.settings));
            details.extend(read_otherwise(before, after, new));
            Item::of(What::Pipeline, name, details, AT_NEXT_BATCH)
        }
        (None, Some(new)) => {
            let from = new.identity.get("from").map_or("", String::as_str);
            let effect = format!(
                "it begins at the {} of {from}",
                match new.start.as_str() {
                    "now" => "end",
                    _ => "earliest entry",
                }
            );
            Item::new(What::Pipeline, name, Change::Added, effect)
        }
        (_, None) => Item::new(What::Pipeline, name, Change::Removed, REMOVED),
    };
    names(&before.pipelines, &after.pipelines).iter().map(item).collect()
}

fn another_destination(detail: Detail) -> Detail {
    let why = "its rows and its cursor belong to what it was".to_owned();
    let action =
        "needs a new pipeline: give it another name, and remove this one when it has caught up";
    detail.refused(Refused { needs: Needs::NewPipeline, why, action: action.into() })
}

/// The contract of the stream that it reads.
fn read_otherwise(
    before: &Definition,
    after: &Definition,
    pipeline: &PipelineDefinition,
) -> Option<Detail> {
    let from = pipeline.identity.get("from")?;
    let (old, new) = (before.streams.get(from)?, after.streams.get(from)?);
    if old.contract == new.contract {
        return None;
    }
    let note = format!("as stream {from} says");
    Some(Detail {
        key: "contract".into(),
        before: None,
        after: None,
        note: Some(note),
        refused: None,
    })
}

/// The settings that differ, by name.
fn differing(before: &Settings, after: &Settings) -> Vec<Detail> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let none = || "none".to_owned();
    let detail = |name: &String| {
        let (old, new) = (before.get(name), after.get(name));
        let pair = (old.cloned().unwrap_or_else(none), new.cloned().unwrap_or_else(none));
        (pair.0 != pair.1).then(|| Detail::of(name, &pair.0, &pair.1))
    };
    names.into_iter().filter_map(detail).collect()
}

fn names<T>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<String> {
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    all.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests;
