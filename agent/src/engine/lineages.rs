//! Who belongs to which lineage: how an origin finds the older ones without all being gone through.
//!
//! In: every origin's lineage, each time it gets one. Out: the members of a lineage. Not here: which of them come first
//! ([`super::meet`]).

use std::collections::BTreeSet;

use garam_proto::LineageId;

use super::origin::Id;

#[derive(Debug, Default)]
pub(super) struct Lineages(BTreeSet<(LineageId, Id)>);

impl Lineages {
    /// The origin belongs to `lineage` from now on, and to `before` no more.
    pub(super) fn join(&mut self, id: Id, before: Option<LineageId>, lineage: Option<LineageId>) {
        if let Some(before) = before {
            self.0.remove(&(before, id));
        }
        if let Some(lineage) = lineage {
            self.0.insert((lineage, id));
        }
    }

    pub(super) fn members(&self, lineage: LineageId) -> impl Iterator<Item = Id> {
        self.0.range((lineage, Id(0))..=(lineage, Id(u64::MAX))).map(|&(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_member_of_one_lineage() {
        let (first, second) = (LineageId(1), LineageId(2));
        let mut lineages = Lineages::default();
        lineages.join(Id(7), None, Some(first));
        lineages.join(Id(8), None, Some(first));
        lineages.join(Id(7), Some(first), Some(second));
        assert_eq!(lineages.members(first).collect::<Vec<_>>(), [Id(8)]);
        assert_eq!(lineages.members(second).collect::<Vec<_>>(), [Id(7)]);
        lineages.join(Id(7), Some(second), None);
        assert_eq!(lineages.members(second).count(), 0);
    }
}
