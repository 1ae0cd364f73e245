//! Damage anywhere: found before anything is believed, told with the ways out, and nothing touched.

use std::fs;
use std::path::{Path, PathBuf};

use garam_meta::{IssuedAgent, Meta, MetaError};
use garam_proto::{AgentId, ClusterId, LogOffset, PipelineId, StreamName};
use garam_stage::{CursorKey, CursorMemory, FailureKind, PlanId, SlotRange};

use crate::Place;

/// What must come out of a file that opens.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    cluster: ClusterId,
    pipelines: Vec<(String, PipelineId)>,
    plan: Option<String>,
    certificates: Vec<(String, AgentId)>,
    is_remembered: bool,
}

fn key() -> CursorKey {
    CursorKey { pipeline: PipelineId([7; 16]), partition: 0, slots: SlotRange::ALL }
}

async fn fill(meta: &Meta) {
    for number in 0..20 {
        let stream = StreamName::new("raw.app").unwrap();
        meta.pipeline(&format!("pipeline-{number}"), &stream, "sqlite a.db").await.unwrap();
    }
    meta.plan(PlanId(1), &"select * from input ".repeat(200), None).await.unwrap();
    let name = "web-1".to_owned();
    let serial = "0a".to_owned();
    let agent = AgentId([3; 16]);
    let issued = IssuedAgent { agent, name, serial, issued_us: 1, expires_us: 2 };
    meta.record_agent(&issued).await.unwrap();
    meta.remember(&key(), LogOffset(7)).await.unwrap();
}

async fn facts(meta: &Meta) -> Result<Facts, MetaError> {
    let pipelines = meta.pipelines().await?;
    let agents = meta.agents().await?;
    Ok(Facts {
        cluster: meta.cluster(),
        pipelines: pipelines.into_iter().map(|pipeline| (pipeline.name, pipeline.id)).collect(),
        plan: meta.plan_text(PlanId(1)).await?,
        certificates: agents.into_iter().map(|agent| (agent.serial, agent.agent)).collect(),
        is_remembered: meta.remembered(&key()).await.is_ok_and(|next| next.is_some()),
    })
}

/// A filled folder as a killed process leaves it: file, write-ahead log and copy.
async fn killed() -> (Facts, Vec<(PathBuf, Vec<u8>)>) {
    let place = Place::new();
    let meta = place.open().await;
    fill(&meta).await;
    let facts = facts(&meta).await.unwrap();
    let files = ["meta.db", "meta.db-wal", "meta.db.copy"];
    let read = |name| (PathBuf::from(name), fs::read(place.folder.path().join(name)).unwrap());
    (facts, files.map(read).to_vec())
}

fn lay(folder: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Opens files of which one is damaged: they say the truth or are refused, unchanged.
async fn check(expect: &Facts, files: &[(PathBuf, Vec<u8>)], what: &str) -> bool {
    let place = Place::new();
    lay(place.folder.path(), files);
    let outcome = match Meta::open(&place.path()).await {
        Ok(meta) => facts(&meta).await,
        Err(error) => {
            for (name, bytes) in files {
                assert!(
                    fs::read(place.folder.path().join(name)).unwrap() == *bytes,
                    "{what}: {name:?} was changed"
                );
            }
            Err(error)
        }
    };
    match outcome {
        Ok(facts) => {
            assert_eq!(&facts, expect, "{what}");
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "{what}");
            false
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_refused_or_changes_nothing_that_counts() {
    let (expect, whole) = killed().await;
    let mut random = fastrand::Rng::with_seed(5);
    let mut refused = 0;
    for round in 0..240 {
        let mut files = whole.clone();
        let (name, bytes) = &mut files[round % 2];
        let at = random.usize(0..bytes.len());
        bytes[at] ^= 1 << random.u8(0..8);
        let what = format!("{} byte {at}", name.display());
        refused += u32::from(!check(&expect, &files, &what).await);
    }
    assert!(refused > 20, "{refused}");
}

#[tokio::test]
async fn a_file_cut_or_zeroed_anywhere_is_refused_or_whole() {
    let (expect, whole) = killed().await;
    for file in [0, 1] {
        let len = whole[file].1.len();
        for step in 0..40 {
            let at = len * step / 40;
            let mut cut = whole.clone();
            cut[file].1.truncate(at);
            check(&expect, &cut, &format!("{file} cut at {at}")).await;
            let mut zeroed = whole.clone();
            zeroed[file].1[at..].fill(0);
            check(&expect, &zeroed, &format!("{file} zeroed from {at}")).await;
        }
    }
}

#[tokio::test]
async fn a_missing_file_is_not_made_anew_while_its_copy_is_there() {
    let (expect, whole) = killed().await;
    let place = Place::new();
    lay(place.folder.path(), &whole[2..]);
    let error = Meta::open(&place.path()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Corrupt);
    let text = error.to_string().replace(&place.path().display().to_string(), "DB");
    expect_test::expect!["DB is missing or empty, but its copy is there: put the copy back (cp DB.copy DB); or remove the copy too, and the core starts with new ids: pipelines then begin as at their first start"].assert_eq(&text);
    assert!(!place.path().try_exists().unwrap());

    fs::copy(place.folder.path().join("meta.db.copy"), place.path()).unwrap();
    assert_eq!(facts(&*place.open().await).await.unwrap(), expect);
}

#[tokio::test]
async fn a_file_older_than_its_copy_is_told_from_the_newest() {
    let place = Place::new();
    let stream = StreamName::new("s").unwrap();
    let meta = place.open().await;
    place.execute("pragma wal_checkpoint(truncate)").await;
    let older = fs::read(place.path()).unwrap();
    meta.pipeline("later", &stream, "d").await.unwrap();
    let copy = fs::read(place.folder.path().join("meta.db.copy")).unwrap();
    let restored = Place::new();
    lay(restored.folder.path(), &[("meta.db".into(), older), ("meta.db.copy".into(), copy)]);
    let error = Meta::open(&restored.path()).await.unwrap_err();
    assert!(
        error.to_string().contains("the id of pipeline later of the copy is not in it"),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_copy_is_made_anew() {
    let place = Place::new();
    let meta = place.open().await;
    fill(&meta).await;
    let copy = place.folder.path().join("meta.db.copy");
    let whole = fs::read(&copy).unwrap();
    drop(meta);
    for damaged in [Vec::new(), whole[..whole.len() / 2].to_vec(), vec![0; whole.len()]] {
        fs::write(&copy, damaged).unwrap();
        drop(place.open().await);
        fs::copy(&copy, place.folder.path().join("other.db")).unwrap();
        let other = Meta::open(&place.folder.path().join("other.db")).await.unwrap();
        assert_eq!(other.pipelines().await.unwrap().len(), 20);
    }
}
