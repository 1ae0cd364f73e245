//! Where origins and lineages live, over all partitions: derived from the folds, never stored.
//!
//! In: the origins of each partition. Out: the partition of a known origin, that of a lineage in a stream, and the
//! largest source epoch ever given to a source. Promise: only a hint is lost when it is rebuilt; the folds decide.

use std::collections::HashMap;

use garam_proto::{AgentId, LineageId, OriginId, SourceName};

use crate::api::OriginState;
use crate::fold::Fold;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    homes: HashMap<OriginId, usize>,
    lineages: HashMap<(usize, LineageId), usize>,
    epochs: HashMap<(AgentId, SourceName), u32>,
}

impl Registry {
    /// Takes in everything a partition knows.
    pub(crate) fn learn_all(&mut self, stream: usize, partition: usize, fold: &Fold) {
        for state in fold.origins() {
            self.learn(stream, partition, state);
        }
        for saved in fold.saved_epochs() {
            self.learn_epoch(saved.agent, saved.source, saved.epoch);
        }
    }

    pub(crate) fn learn(&mut self, stream: usize, partition: usize, state: &OriginState) {
        self.homes.insert(state.origin, partition);
        self.lineages.insert((stream, state.lineage), partition);
        self.learn_epoch(state.origin.agent, state.source.clone(), state.source_epoch);
    }

    pub(crate) fn home(&self, origin: &OriginId) -> Option<usize> {
        self.homes.get(origin).copied()
    }

    pub(crate) fn lineage(&self, stream: usize, lineage: LineageId) -> Option<usize> {
        self.lineages.get(&(stream, lineage)).copied()
    }

    /// The epoch of the next generation of a source, given the largest its claimant has seen.
    pub(crate) fn next_epoch(&self, agent: AgentId, source: &SourceName, seen: u32) -> u32 {
        let known = self.epochs.get(&(agent, source.clone())).copied().unwrap_or(0);
        known.max(seen).saturating_add(1)
    }

    fn learn_epoch(&mut self, agent: AgentId, source: SourceName, epoch: u32) {
        let known = self.epochs.entry((agent, source)).or_insert(0);
        *known = (*known).max(epoch);
    }
}
