//! The writer on a disk that fails, runs full, tears and forgets: lines by number.

use std::path::Path;

use garam_faulty_disk::{Call, EIO, ENOSPC, Effect, Fault, FaultyFs, Odds};

use super::super::SpoolPlan;
use super::super::counts::SpoolStatus;
use super::*;

const STATE: &str = "/state";

/// A spool on that disk, and its writer at work.
struct Bench {
    spool: Arc<Spool>,
    inlet: Inlet,
    writing: tokio::task::JoinHandle<()>,
    next: u64,
}

fn open(disk: &FaultyFs) -> Arc<Spool> {
    let plan = SpoolPlan {
        name: garam_proto::SourceName::new("s").unwrap(),
        stream: garam_proto::StreamName::new("t").unwrap(),
        limit: 2 * 1024 * 1024,
        sync: Duration::from_millis(100),
    };
    let note_of = |line: &[u8]| line.split(|byte| *byte == b' ').next().map(<[u8]>::to_vec);
    Spool::open(Arc::new(disk.clone()), Path::new(STATE), &plan, Some(note_of)).unwrap()
}

impl Bench {
    fn new(disk: &FaultyFs) -> Self {
        let spool = open(disk);
        let (queue, incoming) = mpsc::channel(QUEUE);
        let inlet = Inlet { spool: spool.clone(), queue };
        let writer = Writer {
            spool: spool.clone(),
            sync: Duration::from_millis(100),
            open: None,
            tail: Vec::new(),
            messages: 0,
            last_line: None,
            written: 0,
            since: None,
        };
        Self { spool, inlet, writing: tokio::spawn(writer.run(incoming)), next: 0 }
    }

    async fn put(&mut self, lines: u64) {
        let mut batch = Batch::default();
        for _ in 0..lines {
            self.next += 1;
            let line = format!("{} {}\n", self.next, "x".repeat((self.next % 200) as usize));
            batch.bytes.extend_from_slice(line.as_bytes());
            batch.messages += 1;
        }
        self.inlet.put(batch).await;
    }

    async fn end(self) -> u64 {
        drop(self.inlet);
        self.writing.await.unwrap();
        self.next
    }

    fn status(&self) -> SpoolStatus {
        self.spool.status(&garam_proto::StreamName::new("t").unwrap())
    }
}

/// The numbers of all lines that may be read, in order.
fn lines(disk: &FaultyFs, spool: &Spool) -> Vec<u64> {
    let segments = spool.state().segments.clone();
    let mut numbers = Vec::new();
    for (number, segment) in segments {
        let bytes = disk.bytes(&spool.path(number)).unwrap();
        let text = String::from_utf8(bytes[..segment.readable as usize].to_vec()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        numbers.extend(
            text.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()),
        );
    }
    numbers
}

fn check(found: &[u64], expect: &[u64], seed: u64) {
    let same = found.iter().zip(expect).take_while(|(found, expect)| found == expect).count();
    let (found, expect) = (&found[same..], &expect[same..]);
    assert!(found.is_empty() && expect.is_empty(), "seed {seed}: {found:?} instead of {expect:?}");
}

fn disk(seed: u64) -> FaultyFs {
    let disk = FaultyFs::new(seed);
    open(&disk);
    disk
}

#[tokio::test(start_paused = true)]
async fn every_line_is_there_once_whatever_calls_fail() {
    for seed in 0..60 {
        let disk = disk(seed);
        let mut bench = Bench::new(&disk);
        disk.odds(Odds { io_errors: 150, full: 150, ..Odds::default() });
        for batch in 0..40 {
            bench.put(1 + (seed + batch) % 50).await;
            if batch % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(70)).await;
            }
        }
        let spool = bench.spool.clone();
        let written = bench.end().await;
        disk.heals();
        let expect: Vec<u64> = (1..=written).collect();
        check(&lines(&disk, &spool), &expect, seed);
        let after = disk.crash();
        let spool = open(&after);
        check(&lines(&after, &spool), &expect, seed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_takes_nothing_that_was_counted_as_spooled() {
    for seed in 0..60 {
        let disk = disk(seed);
        let mut bench = Bench::new(&disk);
        disk.odds(Odds { io_errors: 60, full: 60, ..Odds::default() });
        for batch in 0..(seed % 17) {
            bench.put(1 + (seed * 7 + batch) % 90).await;
            tokio::time::sleep(Duration::from_millis(seed % 90)).await;
        }
        let (spooled, readable) = (bench.status().spooled, lines(&disk, &bench.spool));
        assert_eq!(readable, (1..=spooled).collect::<Vec<u64>>(), "seed {seed}");
        for after in [disk.crash(), disk.kill()] {
            let found = lines(&after, &open(&after));
            let many = found.len() as u64;
            assert!(many >= spooled, "seed {seed}: {many} of {spooled}");
            assert_eq!(found, (1..=many).collect::<Vec<u64>>(), "seed {seed}");
            let note = open(&after).note().map(|note| String::from_utf8(note).unwrap());
            assert_eq!(note.unwrap_or("0".into()), many.to_string(), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_out_and_a_failed_sync_is_never_believed() {
    let disk = disk(1);
    let mut bench = Bench::new(&disk);
    bench.put(100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.status().spooled, 100);
    disk.breaks(Fault::once(Call::Sync, "log.", Effect::Error(EIO), 0));
    disk.breaks(Fault::always(Call::Write, "log.", Effect::Error(ENOSPC)));
    bench.put(100).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(bench.status().full);
    bench.inlet.offer(Batch { bytes: b"dropped\n".to_vec(), messages: 1 }).await;
    assert_eq!(bench.status().dropped_by["spool_full"], 1);
    disk.heals();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!bench.status().full);
    let spool = bench.spool.clone();
    bench.end().await;
    assert_eq!(lines(&disk, &spool), (1..=200).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_waits_for_segments_to_be_removed() {
    let disk = disk(2);
    let mut bench = Bench::new(&disk);
    let spool = bench.spool.clone();
    let mut seen = Vec::new();
    let feeding = tokio::spawn(async move {
        for _ in 0..2000 {
            bench.put(50).await;
        }
        bench.end().await
    });
    while !feeding.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(spool.used() <= spool.limit());
        let closed: Vec<u64> = spool.state().segments.keys().copied().collect();
        for number in closed.into_iter().filter(|number| spool.is_closed(*number)) {
            let bytes = disk.bytes(&spool.path(number)).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            seen.extend(text.lines().map(|l| l.split(' ').next().unwrap().parse::<u64>().unwrap()));
            spool.remove(number).unwrap();
            assert!(disk.bytes(&spool.path(number)).is_none());
        }
    }
    let written = feeding.await.unwrap();
    seen.extend(lines(&disk, &spool));
    for number in spool.state().segments.clone().into_keys() {
        spool.remove(number).unwrap();
    }
    let note = open(&disk.crash()).note().map(|note| String::from_utf8(note).unwrap());
    assert_eq!(note, Some(written.to_string()), "also when no segment is left");
    assert_eq!(seen, (1..=written).collect::<Vec<u64>>());
}
