//! What a request to deliver again comes to: where its cursors are to stand, and that it is done.
//!
//! Promise: [`Meta::replay`] keeps all of it or nothing, so that a request is never carried out a second time.
//! Not here: moving cursors (`flow`), the requests themselves ([`crate::requests`]).

use garam_stage::{CursorKey, Decision};
use uuid::Uuid;

use crate::Meta;
use crate::decisions;
use crate::error::MetaError;
use crate::requests;

impl Meta {
    /// Keeps the decisions of a request, of which `asked` were asked for, and that it is done.
    pub async fn replay(
        &self,
        request: Uuid,
        decisions: &[(CursorKey, Decision)],
        asked: usize,
    ) -> Result<(), MetaError> {
        let mut connection = self.begin().await?;
        for (key, decision) in decisions {
            let done = decisions::storing(key, decision)?.execute(&mut connection).await;
            done.map_err(|source| self.error("keep a decision in", source))?;
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (taken, unfit) = (count(decisions.len()), count(asked - decisions.len()));
        let done = requests::finishing(request, taken, unfit, decisions.is_empty());
        let done = done.execute(&mut connection).await;
        done.map_err(|source| self.error("finish a request in", source))?;
        self.commit(connection).await
    }
}
