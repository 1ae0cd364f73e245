//! `on_full = "detach"`: the stream goes on without the reader that keeps it full, and that is on record first.

use std::io::ErrorKind;
use std::time::Duration;

use garam_log::{EmbeddedLog, Log, LogError, OnFull, State};
use garam_proto::LogOffset;

use crate::kit::*;
use crate::room::{Room, room_with};
use crate::world::Fault;

const PATIENCE: Duration = Duration::from_secs(31);

/// A full stream with a reader at its start and one at its end.
async fn full() -> Room {
    let mut room = room_with(|stream| stream.on_full = OnFull::Detach).await;
    room.pin("slow", LogOffset(0));
    room.pin("fast", LogOffset(100));
    room.log.allow_trimming();
    assert!(matches!(room.fill(300).await, Err(LogError::Full { .. })));
    assert_eq!(room.start(), 0);
    room
}

fn stood(room: &Room, reader: &str) -> Option<LogOffset> {
    room.log.detached(&partition("s", 0), reader)
}

async fn detached(room: &mut Room) {
    room.upkeep().await;
    room.clock.pass(PATIENCE);
    until("the stream goes on", async || stood(room, "slow").is_some()).await;
}

#[tokio::test]
async fn a_reader_that_keeps_its_stream_full_is_cut_off_and_the_stream_goes_on() {
    let mut room = full().await;
    room.upkeep().await;
    assert!(matches!(room.fill(1).await, Err(LogError::Full { .. })), "it waits at first");
    assert_eq!(stood(&room, "slow"), None);
    detached(&mut room).await;
    assert_eq!(stood(&room, "slow"), Some(LogOffset(0)));
    assert_eq!(stood(&room, "fast"), None, "it was not in the way");
    room.log.unpin(&partition("s", 0), "fast");
    until("room again", async || room.log.stats()[0].state == State::Ok).await;
    room.fill(300).await.unwrap();
    assert!(room.start() > 100);
    assert!(room.log.stats()[0].bytes <= 1024 * 1024 + 9000, "it stays inside its quota");
    assert_eq!(room.log.stats()[0].detached, [("slow".to_owned(), LogOffset(0))]);
}

#[tokio::test]
async fn that_it_was_cut_off_survives_a_restart_and_ends_when_it_rejoins() {
    let mut room = full().await;
    detached(&mut room).await;
    until("trimmed", async || room.start() > 0).await;
    room.reopen().await;
    assert_eq!(stood(&room, "slow"), Some(LogOffset(0)));
    room.pin("slow", LogOffset(room.start()));
    assert_eq!(stood(&room, "slow"), Some(LogOffset(0)), "it may still pass the gap");
    assert_eq!(room.log.stats()[0].detached, [], "it is waited for again");
    room.log.rejoin(&partition("s", 0), "slow");
    assert_eq!(stood(&room, "slow"), None);
    room.upkeep().await;
    room.reopen().await;
    assert_eq!(stood(&room, "slow"), None);
}

#[tokio::test]
async fn a_reader_that_is_back_holds_its_stream_and_keeps_the_place_of_its_first_gap() {
    let mut room = full().await;
    detached(&mut room).await;
    room.log.unpin(&partition("s", 0), "fast");
    room.fill(100).await.unwrap();
    let start = room.start();
    room.pin("slow", LogOffset(start));
    assert!(room.fill(300).await.is_err());
    assert_eq!(room.start(), start);
    room.upkeep().await;
    room.clock.pass(PATIENCE);
    until("cut off again", async || room.start() > start).await;
    assert_eq!(stood(&room, "slow"), Some(LogOffset(0)), "it did not get past the first gap");
    room.pin("slow", LogOffset(start));
    room.fill(100).await.unwrap();
    assert!(room.start() > start, "a pin below the log holds nothing");
}

/// Every entry but the first, a claim, is a block of 8 000 bytes.
fn bytes_from(room: &Room, from: u64) -> u64 {
    (room.start() - from.max(1)) * 8000
}

/// What is seen of the log while it is not trimmed.
async fn at_rest<T>(room: &Room, look: impl Fn() -> T) -> T {
    loop {
        room.upkeep().await;
        let start = room.start();
        let seen = look();
        room.upkeep().await;
        if room.start() == start {
            return seen;
        }
    }
}

#[tokio::test]
async fn what_a_reader_misses_is_counted_to_the_byte_from_wherever_its_cursor_stands() {
    let mut room = full().await;
    let missed = |room: &Room, from| room.log.given_up(&partition("s", 0), "slow", LogOffset(from));
    assert_eq!(missed(&room, 0), None, "it is not cut off");
    detached(&mut room).await;
    room.log.unpin(&partition("s", 0), "fast");
    until("room again", async || room.log.stats()[0].state == State::Ok).await;
    room.fill(300).await.unwrap();
    assert!(at_rest(&room, || room.start()).await > 100);
    for from in [0, 1, 7, 50, room.start() - 1] {
        assert_eq!(missed(&room, from), Some(bytes_from(&room, from)), "from {from}");
    }
    room.reopen().await;
    assert_eq!(missed(&room, 3), Some(bytes_from(&room, 3)), "also after a restart");
    room.log.allow_trimming();
    room.pin("other", room.end());
    room.log.unpin(&partition("s", 0), "other");
    room.fill(200).await.unwrap();
    let since = at_rest(&room, || missed(&room, 3)).await;
    assert_eq!(since, Some(bytes_from(&room, 3)), "and what went since");
    assert_eq!(room.log.given_up(&partition("s", 0), "other", LogOffset(3)), None);
}

#[tokio::test]
async fn a_removal_that_failed_is_counted_once() {
    let mut room = full().await;
    room.disk.breaks(Fault::Remove, ".seg");
    detached(&mut room).await;
    room.upkeep().await;
    let missed = || room.log.given_up(&partition("s", 0), "slow", LogOffset(0));
    until("counted, and still there", async || room.start() == 0 && missed() == Some(0)).await;
    room.disk.heals();
    until("trimmed", async || room.start() > 0).await;
    assert_eq!(at_rest(&room, missed).await, Some(bytes_from(&room, 0)));
}

#[tokio::test]
async fn nothing_is_removed_before_it_is_on_record_who_needed_it() {
    for fault in [
        Fault::Create(ErrorKind::StorageFull),
        Fault::Write(ErrorKind::StorageFull),
        Fault::Sync,
        Fault::SyncDir,
    ] {
        let mut room = full().await;
        room.disk.breaks(fault, if fault == Fault::SyncDir { "0000" } else { "DETACHED" });
        room.upkeep().await;
        room.clock.pass(PATIENCE);
        room.upkeep().await;
        assert_eq!((room.start(), stood(&room, "slow")), (0, None), "{fault:?}");
        assert!(matches!(room.fill(1).await, Err(LogError::Full { .. })), "{fault:?}");
        room.disk.heals();
        until("recorded and trimmed", async || stood(&room, "slow").is_some() && room.start() > 0)
            .await;
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_names_nobody() {
    let mut room = full().await;
    detached(&mut room).await;
    room.log.shutdown().await;
    let path = room.config.dir.join("s/0000/DETACHED");
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        let log = EmbeddedLog::open_with(room.config.clone(), room.env.clone()).unwrap();
        assert_eq!(log.detached(&partition("s", 0), "slow"), None, "byte {at}");
        log.shutdown().await;
        std::fs::write(&path, &good[..at]).unwrap();
        let log = EmbeddedLog::open_with(room.config.clone(), room.env.clone()).unwrap();
        assert_eq!(log.detached(&partition("s", 0), "slow"), None, "cut at {at}");
        log.shutdown().await;
    }
}

#[tokio::test]
async fn stop_stream_waits_for_ever() {
    let mut room = room_with(|_| {}).await;
    room.pin("slow", LogOffset(0));
    room.log.allow_trimming();
    assert!(room.fill(300).await.is_err());
    room.upkeep().await;
    room.clock.pass(PATIENCE);
    room.upkeep().await;
    assert_eq!((room.start(), stood(&room, "slow")), (0, None));
}
