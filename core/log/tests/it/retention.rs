//! What goes and what stays: pins, age by the log clock, quotas.

use std::time::Duration;

use garam_log::{
    AppendBody, Appended, EmbeddedLog, Log, LogConfig, LogError, State, StreamConfig, offline,
};
use garam_proto::LogOffset;

use crate::kit::*;
use crate::room::{HOUR, Room, room, room_with};

#[tokio::test]
async fn nothing_goes_before_trimming_is_allowed_or_while_it_is_young_or_pinned() {
    let mut room = room().await;
    room.fill(20).await.unwrap();
    room.clock.pass(3 * HOUR);
    room.upkeep().await;
    assert_eq!(room.start(), 0, "trimming was not allowed yet");

    room.pin("slow", LogOffset(5));
    room.pin("fast", room.end());
    room.log.allow_trimming();
    until("trimmed to the slow reader's segment", async || room.start() > 0).await;
    room.upkeep().await;
    assert!(room.start() <= 5, "{}", room.start());
    assert!(room.log.reader(&partition("s", 0), LogOffset(5)).await.is_ok());

    room.log.unpin(&partition("s", 0), "slow");
    until("only the fast reader's segment is left", async || room.log.stats()[0].segments <= 1)
        .await;

    room.fill(20).await.unwrap();
    room.pin("fast", room.end());
    let start = room.start();
    room.clock.pass(HOUR);
    room.upkeep().await;
    assert_eq!(room.start(), start, "younger than retain");
}

#[tokio::test]
async fn whoever_makes_room_goes_beyond_the_quota_but_not_without_end() {
    let mut room = room_with(|stream| stream.relief = Some(origin(2))).await;
    room.log.allow_trimming();
    room.pin("slow", LogOffset(0));
    assert!(room.fill(300).await.is_err(), "full");
    granted(&room.log, 2, 10).await;
    let (mut mark, mut taken) = (0, 0);
    while append(&room.log, block(2, 10, mark, &[b'x'; 8000])).await.is_ok() {
        (mark, taken) = (mark + 8000, taken + 1);
    }
    assert!((14..=18).contains(&taken), "an eighth of 1 MiB, not {taken} times 8 kB");
    assert!(room.fill(1).await.is_err(), "nobody else does");
    room.pin("slow", room.end());
    room.upkeep().await;
    room.fill(1).await.unwrap();
}

#[tokio::test]
async fn the_quota_takes_what_is_young_but_never_what_is_pinned() {
    let mut room = room().await;
    room.log.allow_trimming();
    room.fill(300).await.unwrap();
    assert!(room.start() > 0, "2.4 MB went through a quota of 1 MiB");
    assert!(room.log.stats()[0].bytes <= 1024 * 1024 + 9000);

    room.pin("slow", LogOffset(room.start()));
    let start = room.start();
    let full = room.fill(300).await;
    let why = full.unwrap_err().to_string();
    assert!(why.contains("slow stands at") && why.contains("raise the quota"), "{why}");
    assert!(matches!(room.log.stats()[0].state, State::Full(_)));
    assert_eq!(room.start(), start);
    let repeat = append(&room.log, block(1, 10, 0, b"x")).await.unwrap();
    assert!(matches!(repeat, Appended::Repeat { .. }), "a full stream still tells what it has");
    assert!(matches!(granted_or_full(&room.log).await, Err(LogError::Full { .. })));

    room.pin("slow", room.end());
    until("there is room again", async || granted_or_full(&room.log).await.is_ok()).await;
    room.fill(10).await.unwrap();
}

async fn granted_or_full(log: &EmbeddedLog) -> Result<garam_log::Claimed, LogError> {
    log.claim(claim(2, 10)).await?.wait().await
}

#[tokio::test]
async fn a_reader_inside_a_trimmed_segment_reads_it_to_its_end() {
    let mut room = room().await;
    room.fill(9).await.unwrap();
    let mut reader = room.log.reader(&partition("s", 0), LogOffset(0)).await.unwrap();
    reader.next().await.unwrap();
    room.pin("other", room.end());
    room.log.allow_trimming();
    room.clock.pass(3 * HOUR);
    until("trimmed", async || room.start() > 0).await;
    room.upkeep().await;
    let mut last = reader.next().await.unwrap();
    let gone = loop {
        match reader.next().await {
            Ok(entry) => last = entry,
            Err(error) => break error,
        }
    };
    assert!(matches!(gone, LogError::OutOfRange { .. }), "{gone}");
    assert_eq!(reader.position(), last.offset.next());
    let early = room.log.reader(&partition("s", 0), LogOffset(0)).await.err().unwrap();
    assert!(matches!(early, LogError::OutOfRange { .. }), "{early}");
}

#[tokio::test]
async fn the_log_clock_advances_at_most_an_hour_while_the_core_is_off() {
    let mut room = room().await;
    room.fill(5).await.unwrap();
    room.clock.pass(Duration::from_secs(61));
    room.reopen_after(72 * HOUR).await;
    room.pin("reader", room.end());
    room.log.allow_trimming();
    room.upkeep().await;
    assert_eq!(room.start(), 0, "three days off count as one hour");
    room.clock.pass(HOUR);
    until("older than retain", async || room.start() > 0).await;
}

#[tokio::test]
async fn a_lost_clock_file_only_makes_the_log_younger() {
    let mut room = room().await;
    room.clock.pass(10 * HOUR);
    room.fill(5).await.unwrap();
    room.log.shutdown().await;
    std::fs::write(room.config.dir.join("CLOCK"), b"torn").unwrap();
    room.log = EmbeddedLog::open_with(room.config.clone(), room.env.clone()).unwrap();
    room.pin("reader", room.end());
    room.log.allow_trimming();
    room.upkeep().await;
    assert_eq!(room.start(), 0);
    room.clock.pass(3 * HOUR);
    until("older than retain", async || room.start() > 0).await;
}

#[tokio::test]
async fn retired_origins_are_forgotten_by_writer_and_readers_alike() {
    let mut room = room().await;
    let mut reader = room.log.reader(&partition("s", 0), LogOffset(0)).await.unwrap();
    granted(&room.log, 2, 10).await;
    append(&room.log, append_of(2, 10, AppendBody::Retire { mark: 0 })).await.unwrap();
    assert_eq!(room.log.stats()[0].origins, 2);
    room.clock.pass(3 * HOUR);
    room.fill(4).await.unwrap();
    until("forgotten", async || room.log.stats()[0].origins == 1).await;
    let mut again = claim(2, 11);
    again.from = 77;
    let claimed = room.log.claim(again).await.unwrap().wait().await.unwrap();
    assert_eq!(claimed.state.mark, 77, "it begins anew");
    room.fill(4).await.unwrap();
    room.reopen().await;
    let truth = read_all(&room.log, &partition("s", 0)).await.unwrap();
    assert_eq!(truth.last().unwrap().offset.next(), room.end());
    while reader.position() < truth[6].offset {
        reader.next().await.unwrap();
    }
    let report = &garam_log::inspect::inspect(&room.config.dir).unwrap()[0];
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.origins.len(), 2);
    assert_eq!(report.end, room.end());
}

#[tokio::test]
async fn a_stream_that_is_added_later_waits_for_its_first_pin() {
    let room = room().await;
    room.log.allow_trimming();
    let mut late = StreamConfig::new(stream("_quarantine.p"));
    late.quota = 1024 * 1024;
    late.retain = Duration::ZERO;
    room.log.add_stream(late).await.unwrap();
    let at = partition("_quarantine.p", 0);
    let mut first = claim(3, 10);
    first.stream = at.stream.clone();
    room.log.claim(first).await.unwrap().wait().await.unwrap();
    for i in 0..5u128 {
        let append = block(3, 10, i * 8000, &[b'x'; 8000]);
        room.log.append(&at, append).await.unwrap().wait().await.unwrap();
    }
    room.clock.pass(HOUR);
    room.upkeep().await;
    assert_eq!(room.log.bounds(&at).unwrap().start, LogOffset(0));
    room.log.pin(&at, "p", room.log.bounds(&at).unwrap().end);
    until("trimmed", async || room.log.bounds(&at).unwrap().start > LogOffset(0)).await;
}

#[tokio::test]
async fn an_open_stream_takes_other_limits_and_goes_on() {
    let mut room = room().await;
    room.log.allow_trimming();
    room.pin("slow", LogOffset(0));
    assert!(room.fill(300).await.is_err(), "a quota of 1 MiB is full");
    let wider = StreamConfig { quota: 64 * 1024 * 1024, ..room.config.streams[0].clone() };
    room.log.change_stream(wider.clone()).await.unwrap();
    until("it takes again", async || room.log.stats()[0].state == State::Ok).await;
    room.fill(100).await.unwrap();
    assert_eq!(room.start(), 0);

    let more = StreamConfig { partitions: 2, ..wider.clone() };
    let refused = room.log.change_stream(more).await.unwrap_err().to_string();
    assert!(refused.contains("another number takes a restart"), "{refused}");
    let unknown = StreamConfig { name: stream("nobody"), ..wider };
    let refused = room.log.change_stream(unknown).await.unwrap_err();
    assert!(matches!(refused, LogError::UnknownStream { .. }), "{refused}");
}

#[tokio::test]
async fn the_pace_of_a_stream_is_that_of_its_sealed_segments() {
    let mut room = room().await;
    let pace = |room: &Room, name: &str| offline::pace(&room.config.dir, &stream(name)).unwrap();
    assert_eq!((pace(&room, "s"), pace(&room, "other")), (None, None));
    for sealed in 1..=4 {
        room.clock.pass(Duration::from_secs(10));
        room.fill(3).await.unwrap();
        // The answers come before the segment is sealed, at the time it is then.
        until("sealed", async || room.log.stats()[0].segments > sealed).await;
    }
    // Three blocks of 8 000 bytes seal a segment of 16 KiB, one each ten seconds.
    let found = pace(&room, "s").unwrap();
    assert!((2_400.0..2_600.0).contains(&found), "{found}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let check = |change: fn(&mut LogConfig), expect: &str| {
        let mut config = config(&dir.path().join("log"));
        change(&mut config);
        let refused = EmbeddedLog::open(config).err().unwrap().to_string();
        assert!(refused.contains(expect), "{refused}");
        assert!(!dir.path().join("log").try_exists().unwrap());
    };
    check(|c| c.segment_size = 1, "segment_size");
    check(|c| c.queue_bytes = 1, "queue_bytes");
    check(|c| c.streams[0].partitions = 0, "1 to 1024");
    check(|c| c.streams[0].quota = 1, "1 MiB is the least");
    check(|c| c.streams[0].max_origins = 0, "max_origins");
    check(|c| c.streams.push(StreamConfig::new(stream("s"))), "configured twice");
}
