//! Which shard of a pipeline's destination takes which slots of a key.
//!
//! In: the map of a pipeline's first start. Out: the one that its rows are placed by. Promise: a map is on stable storage when
//! [`Meta::slots`] returns, before a row is placed by it, and stays: shards that are not those of the map are refused. A
//! destination that never had shards has no row: all slots are the main shard's, by epoch 0. Not here: placing rows (`sink`).

use garam_proto::PipelineId;
use garam_stage::{MAIN_SHARD, SlotMap, SlotPart, SlotRange};

use crate::Meta;
use crate::error::MetaError;
use crate::tables::now_us;

const READ: &str = "SELECT epoch, parts FROM slot_maps WHERE pipeline = ?";

const FIRST: &str = "\
INSERT INTO slot_maps (pipeline, epoch, parts, since_us) VALUES (?, ?, ?, ?) ON CONFLICT (pipeline) DO NOTHING";

const HAS_CURSOR: &str = "SELECT count(*) FROM cursors WHERE pipeline = ?";

impl Meta {
    /// The map that a pipeline's rows are placed by, which becomes `first` when it never ran. Refused where the shards are not
    /// those of the map.
    pub async fn slots(
        &self,
        pipeline: PipelineId,
        name: &str,
        first: &SlotMap,
    ) -> Result<SlotMap, MetaError> {
        let mut stored = self.stored_slots(pipeline).await?;
        if stored.is_none() && first.parts.len() > 1 && !self.has_cursor(pipeline).await? {
            let query = sqlx::query(FIRST).bind(pipeline.to_string());
            let query = query.bind(first.epoch).bind(text(first)).bind(now_us());
            let mut connection = self.connection.lock().await;
            let done = query.execute(&mut *connection).await;
            done.map_err(|source| self.error("keep a slot map in", source))?;
            drop(connection);
            stored = self.stored_slots(pipeline).await?;
        }
        let map = stored.unwrap_or_else(|| SlotMap::even(0, &[MAIN_SHARD]));
        if map.shards() != first.shards() {
            let (stored, found) = (map.shards().join(", "), first.shards().join(", "));
            return Err(MetaError::OtherShards { pipeline: name.to_owned(), stored, found });
        }
        Ok(map)
    }

    async fn stored_slots(&self, pipeline: PipelineId) -> Result<Option<SlotMap>, MetaError> {
        let query = sqlx::query(READ).bind(pipeline.to_string());
        let mut connection = self.connection.lock().await;
        let rows = query.fetch_all(&mut *connection).await;
        let rows = rows.map_err(|source| self.error("read a slot map from", source))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let found: String = self.column(row, 1)?;
        let Some(parts) = parsed(&found) else {
            let (path, what) = (self.path.clone(), "a slot map");
            return Err(MetaError::Stored { path, what, found });
        };
        Ok(Some(SlotMap { epoch: self.column(row, 0)?, parts }))
    }

    /// Whether it was ever seen to stand anywhere.
    async fn has_cursor(&self, pipeline: PipelineId) -> Result<bool, MetaError> {
        let query = sqlx::query_scalar(HAS_CURSOR).bind(pipeline.to_string());
        let mut connection = self.connection.lock().await;
        let counts: Vec<i64> = query
            .fetch_all(&mut *connection)
            .await
            .map_err(|source| self.error("look for a cursor in", source))?;
        Ok(counts.iter().any(|count| *count > 0))
    }
}

/// `main 0 511` a part, one a line.
fn text(map: &SlotMap) -> String {
    let line = |part: &SlotPart| format!("{} {} {}", part.shard, part.slots.first, part.slots.last);
    map.parts.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Option<Vec<SlotPart>> {
    let mut parts: Vec<SlotPart> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let shard = words.next()?.to_owned();
        let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let begin = parts.last().map_or(0, |part| part.slots.last + 1);
        if words.next().is_some() || first != begin || last < first || last > SlotRange::ALL.last {
            return None;
        }
        parts.push(SlotPart { slots: SlotRange { first, last }, shard });
    }
    (parts.last()?.slots.last == SlotRange::ALL.last).then_some(parts)
}

#[cfg(test)]
mod tests {
    use garam_stage::SlotMap;

    use super::{parsed, text};

    #[test]
    fn a_map_is_read_as_it_was_written_and_anything_else_is_told() {
        let map = SlotMap::even(1, &["main", "b", "c"]);
        assert_eq!(text(&map), "main 0 340\nb 341 681\nc 682 1023");
        assert_eq!(parsed(&text(&map)), Some(map.parts));
        for wrong in ["", "main 0 1022", "main 0 340\nb 342 1023", "main 0 1024", "main 0 1023 x"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
