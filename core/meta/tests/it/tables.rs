//! Names, plans and certificates.

use garam_meta::{IssuedAgent, MetaError, recorded_definition};
use garam_proto::{AgentId, LogOffset, StreamName};
use garam_stage::{CursorKey, CursorMemory as _, PlanId, SlotMap, SlotRange};

use crate::Place;

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

#[tokio::test]
async fn a_pipeline_keeps_its_id_whatever_it_reads_and_writes() {
    let place = Place::new();
    let meta = place.open().await;
    let id = meta.pipeline("orders-to-db", &stream("orders"), "sqlite a.db").await.unwrap();
    let other = meta.pipeline("other", &stream("orders"), "sqlite a.db").await.unwrap();
    assert_ne!(id, other);
    drop(meta);

    let meta = place.open().await;
    let again = meta.pipeline("orders-to-db", &stream("orders2"), "sqlite b.db").await.unwrap();
    assert_eq!(again, id);
    let all = meta.pipelines().await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].id, id);
    assert_eq!((all[0].stream.as_str(), all[0].destination.as_str()), ("orders2", "sqlite b.db"));
}

#[tokio::test]
async fn a_stream_keeps_its_id() {
    let place = Place::new();
    let id = place.open().await.stream(&stream("raw.app")).await.unwrap();
    let meta = place.open().await;
    assert_eq!(meta.stream(&stream("raw.app")).await.unwrap(), id);
    assert_ne!(meta.stream(&stream("raw.web")).await.unwrap(), id);
}

#[tokio::test]
async fn a_plan_is_kept_whole_and_never_changed() {
    let place = Place::new();
    let meta = place.open().await;
    let id = PlanId(u64::MAX);
    assert_eq!(meta.plan_text(id).await.unwrap(), None);
    meta.plan(id, "select *\nfrom input", None).await.unwrap();
    meta.plan(id, "select *\nfrom input", None).await.unwrap();
    let error = meta.plan(id, "select 1", None).await.unwrap_err();
    assert!(matches!(error, MetaError::PlanCollision { id: u64::MAX }), "{error}");
    let text = place.open().await.plan_text(id).await.unwrap();
    assert_eq!(text.as_deref(), Some("select *\nfrom input"));
}

#[tokio::test]
async fn what_a_plan_is_made_of_is_noted_once() {
    let place = Place::new();
    let meta = place.open().await;
    let (id, other) = (PlanId(7), PlanId(8));
    assert_eq!(meta.recipe(id).await.unwrap(), None);
    // Known before there were recipes.
    meta.plan(id, "select 1", None).await.unwrap();
    assert_eq!(meta.recipe(id).await.unwrap(), None);
    meta.plan(id, "select 1", Some("flour")).await.unwrap();
    meta.plan(id, "select 1", Some("sugar")).await.unwrap();
    meta.plan(id, "select 1", None).await.unwrap();
    meta.plan(other, "select 2", Some("salt")).await.unwrap();
    drop(meta);
    let meta = place.open().await;
    assert_eq!(meta.recipe(id).await.unwrap().as_deref(), Some("flour"));
    assert_eq!(meta.recipe(other).await.unwrap().as_deref(), Some("salt"));
}

#[tokio::test]
async fn certificates_are_listed_as_issued() {
    let place = Place::new();
    let meta = place.open().await;
    let issued = |name: &str, serial: &str, issued_us| IssuedAgent {
        agent: AgentId([3; 16]),
        name: name.into(),
        serial: serial.into(),
        issued_us,
        expires_us: issued_us + 1_000,
    };
    let (first, second, other) =
        (issued("web-1", "0a", 1), issued("web-1", "09", 2), issued("db-1", "ff", 3));
    for agent in [&second, &first, &other, &first] {
        meta.record_agent(agent).await.unwrap();
    }
    assert_eq!(place.open().await.agents().await.unwrap(), [other, first, second]);
}

#[tokio::test]
async fn an_edited_id_is_named() {
    let place = Place::new();
    let meta = place.open().await;
    meta.pipeline("p", &stream("s"), "d").await.unwrap();
    place.execute("update pipelines set id = 'nonsense'").await;
    let error = meta.pipeline("p", &stream("s"), "d").await.unwrap_err();
    let text = error.to_string().replace(&place.path().display().to_string(), "DB");
    assert_eq!(text, "DB: a pipeline's id holds \"nonsense\", which is not its form");
}

#[tokio::test]
async fn what_the_core_runs_by_is_told_without_opening_the_file_for_writing() {
    let place = Place::new();
    assert_eq!(recorded_definition(&place.path()).await.unwrap(), None);
    let meta = place.open().await;
    assert_eq!(recorded_definition(&place.path()).await.unwrap(), None);
    meta.define("one").await.unwrap();
    meta.define("two").await.unwrap();
    assert_eq!(recorded_definition(&place.path()).await.unwrap().as_deref(), Some("two"));
    drop(meta);
    assert_eq!(recorded_definition(&place.path()).await.unwrap().as_deref(), Some("two"));
}

#[tokio::test]
async fn a_pipeline_keeps_its_slot_map_and_other_shards_are_refused() {
    let place = Place::new();
    let meta = place.open().await;
    let id = meta.pipeline("p", &stream("orders"), "sqlite a.db").await.unwrap();
    let two = SlotMap::even(1, &["main", "b"]);
    let alone = SlotMap::even(0, &["main"]);
    assert_eq!(meta.slots(id, "p", &two).await.unwrap(), two);
    drop(meta);
    let meta = place.open().await;
    assert_eq!(meta.slots(id, "p", &two).await.unwrap(), two);
    for other in [&alone, &SlotMap::even(1, &["main", "c"]), &SlotMap::even(1, &["main", "b", "c"])]
    {
        let refused = meta.slots(id, "p", other).await.unwrap_err();
        assert!(matches!(refused, MetaError::OtherShards { .. }), "{refused}");
    }

    // One that ran without shards has all rows in one place.
    let id = meta.pipeline("q", &stream("orders"), "sqlite c.db").await.unwrap();
    assert_eq!(meta.slots(id, "q", &alone).await.unwrap(), alone);
    let key = CursorKey { pipeline: id, partition: 0, slots: SlotRange::ALL };
    meta.remember(&key, LogOffset(3)).await.unwrap();
    let refused = meta.slots(id, "q", &two).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "pipeline q has its rows in shards main, and the configuration says main, b: put those back; other shards need a \
         pipeline of another name, which fills them from what the log holds"
    );
    assert_eq!(meta.slots(id, "q", &alone).await.unwrap(), alone);
}
