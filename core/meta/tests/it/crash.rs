//! kill -9 of a process that writes: what it was told is done is there.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use garam_proto::{LogOffset, PipelineId, StreamName};
use garam_stage::{CursorKey, CursorMemory, PlanId, SlotRange};

use crate::Place;

/// Says in which folder the child writes.
const FOLDER: &str = "GARAM_META_CRASH_FOLDER";

fn cursor(round: u64) -> CursorKey {
    let pipeline = PipelineId([7; 16]);
    CursorKey { pipeline, partition: round as u32, slots: SlotRange::ALL }
}

/// Writes for ever and prints what is done. Does nothing as a test of its own.
#[tokio::test]
async fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let meta =
        garam_meta::Meta::open(&std::path::Path::new(&folder).join("meta.db")).await.unwrap();
    let first = meta.pipelines().await.unwrap().len() as u64;
    for round in first.. {
        let stream = StreamName::new("s").unwrap();
        let id = meta.pipeline(&format!("p{round}"), &stream, "d").await.unwrap();
        meta.plan(PlanId(round), &format!("select {round}"), None).await.unwrap();
        meta.remember(&cursor(round), LogOffset(round)).await.unwrap();
        let count = meta.count_attempt(&cursor(0), LogOffset(4)).await.unwrap();
        println!("done {round} {id} {count}");
    }
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_done_is_there() {
    let place = Place::new();
    let mut random = fastrand::Rng::with_seed(1);
    let cluster = place.open().await.cluster();
    let mut done: Vec<(u64, String)> = Vec::new();
    let mut attempts = 0;
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::the_process_that_is_killed", "--nocapture"])
            .env(FOLDER, place.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = random.usize(1..6);
        let mut told = 0;
        for line in lines.map(|line| line.unwrap()) {
            let Some(line) = line.split("done ").nth(1) else { continue };
            let words: Vec<&str> = line.split(' ').collect();
            done.push((words[0].parse().unwrap(), words[1].to_owned()));
            attempts = words[2].parse().unwrap();
            told += 1;
            if told == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();

        let meta = place.open().await;
        assert_eq!(meta.cluster(), cluster);
        let stored = meta.pipelines().await.unwrap();
        for (round, id) in &done {
            let found = stored.iter().find(|pipeline| pipeline.name == format!("p{round}"));
            assert_eq!(&found.unwrap().id.to_string(), id);
            let plan = meta.plan_text(PlanId(*round)).await.unwrap();
            assert_eq!(plan, Some(format!("select {round}")));
            let remembered = meta.remembered(&cursor(*round)).await.unwrap();
            assert_eq!(remembered, Some(LogOffset(*round)));
        }
        let counted = meta.attempts(&cursor(0), LogOffset(4)).await.unwrap();
        assert!(counted == attempts || counted == attempts + 1, "{counted} of {attempts}");
    }
    let leftovers = std::fs::read_dir(place.folder.path()).unwrap().count();
    assert!(leftovers <= 4 + 12, "{leftovers} files");
}
