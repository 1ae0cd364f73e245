//! Random connections against a plain model: sessions that take over, cut again, straggle and vanish; rolls, trims,
//! reopenings, and crashes that leave any part of what was not acknowledged, or garbage behind it.
//!
//! Every origin has a source whose byte at each position is known, so the oracle needs no bookkeeping by the log: what a
//! reader is given of an origin must be exactly its source, from the first position to the mark, once, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use garam_log::embedded::Env;
use garam_log::{
    Append, AppendBody, Appended, EmbeddedLog, EntryBody, Log, LogConfig, LogError, LogReader,
};
use garam_proto::message::GapReason;
use garam_proto::{LogOffset, OriginId, PartitionId};
use proptest::prelude::*;

use crate::kit::*;
use crate::world::{Clock, world};

#[derive(Debug, Clone)]
enum Action {
    /// A new session claims, or the present one claims again.
    Claim {
        origin: u8,
        takes_over: bool,
    },
    /// `old`: under the session before; `shift`: how far from the mark it begins.
    Block {
        origin: u8,
        old: bool,
        shift: i8,
        len: u16,
    },
    Gap {
        origin: u8,
        len: u8,
    },
    Advance {
        origin: u8,
        len: u8,
    },
    Retire {
        origin: u8,
    },
    /// The pipeline reads everything and pins behind it; time passes.
    Consume {
        hours: u8,
    },
    Reopen,
    /// Blocks are on their way when the process dies: a part of their bytes is left, and garbage behind it.
    Crash {
        origin: u8,
        blocks: u8,
        kept: u8,
        garbage: u8,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let origin = 0..4u8;
    let action = prop_oneof![
        3 => (origin.clone(), any::<bool>())
            .prop_map(|(origin, takes_over)| Action::Claim { origin, takes_over }),
        12 => (origin.clone(), prop::bool::weighted(0.15), prop_oneof![6 => Just(0i8), 2 => -20..20i8], 1..900u16)
            .prop_map(|(origin, old, shift, len)| Action::Block { origin, old, shift, len }),
        1 => (origin.clone(), 1..50u8).prop_map(|(origin, len)| Action::Gap { origin, len }),
        1 => (origin.clone(), 1..50u8).prop_map(|(origin, len)| Action::Advance { origin, len }),
        1 => origin.clone().prop_map(|origin| Action::Retire { origin }),
        2 => (0..4u8).prop_map(|hours| Action::Consume { hours }),
        1 => Just(Action::Reopen),
        2 => (origin, 0..6u8, any::<u8>(), any::<u8>())
            .prop_map(|(origin, blocks, kept, garbage)| Action::Crash { origin, blocks, kept, garbage }),
    ];
    prop::collection::vec(action, 1..80)
}

/// What the model knows of an origin.
#[derive(Debug, Clone, Default)]
struct Source {
    session: u64,
    mark: u128,
    retired: bool,
}

/// What a reader was given of an origin.
#[derive(Debug, Clone, Default)]
struct Delivered {
    position: u128,
    bytes: u64,
    skipped: u64,
}

fn byte_at(origin: u8, position: u128) -> u8 {
    (position.wrapping_mul(31).wrapping_add(u128::from(origin) * 7) % 251) as u8
}

fn cut(origin: u8, session: u64, from: u128, len: u128) -> Append {
    let bytes: Vec<u8> = (from..from + len).map(|at| byte_at(origin, at)).collect();
    block(origin, session, from, &bytes)
}

struct Model {
    log: Arc<EmbeddedLog>,
    config: LogConfig,
    env: Env,
    clock: Clock,
    sources: BTreeMap<u8, Source>,
    sessions: u64,
    /// What the pipeline was given since the beginning of time.
    consumed: BTreeMap<OriginId, Delivered>,
    next: LogOffset,
    sent: BTreeMap<u8, u64>,
    skipped: BTreeMap<u8, u64>,
}

impl Model {
    fn open(dir: &Path) -> Self {
        let (_, clock, env) = world();
        let mut config = config(dir);
        config.segment_size = 4096;
        // Retired origins must stay known here, so ages count in years and trimming is the quota's and the pins' matter.
        config.streams[0].retain = Duration::from_secs(2 * 60 * 60);
        let log = EmbeddedLog::open_with(config.clone(), env.clone()).unwrap();
        log.pin(&partition("s", 0), "pipeline", LogOffset(0));
        log.allow_trimming();
        let sources = BTreeMap::new();
        let (consumed, sent, skipped) = Default::default();
        let next = LogOffset(0);
        Self { log, config, env, clock, sources, sessions: 0, consumed, next, sent, skipped }
    }

    async fn run(&mut self, action: Action) {
        match action {
            Action::Claim { origin, takes_over } => self.claim(origin, takes_over).await,
            Action::Block { origin, old, shift, len } => {
                let Some(source) = self.sources.get(&origin).cloned() else { return };
                let from = source.mark.saturating_add_signed(i128::from(shift));
                let session = source.session - u64::from(old);
                let append = cut(origin, session, from, u128::from(len));
                self.offer(origin, append, from, from + u128::from(len), old, false).await;
            }
            Action::Gap { origin, len } => {
                let Some(Source { mark, session, .. }) = self.sources.get(&origin).cloned() else {
                    return;
                };
                let to = mark + u128::from(len);
                let reason = GapReason::Truncated;
                let body = AppendBody::Gap { from: mark, to, at_least: false, reason };
                self.offer(origin, append_of(origin, session, body), mark, to, false, true).await;
            }
            Action::Advance { origin, len } => {
                let Some(Source { mark, session, .. }) = self.sources.get(&origin).cloned() else {
                    return;
                };
                let to = mark + u128::from(len);
                let body = AppendBody::Advance { from: mark, to, tail_hash: 0, resume: None };
                self.offer(origin, append_of(origin, session, body), mark, to, false, true).await;
            }
            Action::Retire { origin } => self.retire(origin).await,
            Action::Consume { hours } => self.consume(hours).await,
            Action::Reopen => {
                self.log.shutdown().await;
                self.reopen().await;
            }
            Action::Crash { origin, blocks, kept, garbage } => {
                self.crash(origin, blocks, kept, garbage).await;
            }
        }
    }

    async fn claim(&mut self, origin: u8, takes_over: bool) {
        let known = self.sources.get(&origin).cloned();
        if known.is_none() || takes_over {
            self.sessions += 2;
        }
        let session = match &known {
            Some(source) if !takes_over => source.session,
            _ => self.sessions,
        };
        let claimed = granted(&self.log, origin, session).await;
        let mark = known.map_or(0, |source| source.mark);
        assert_eq!(claimed.state.mark, mark, "a claim tells the mark");
        self.sources.insert(origin, Source { session, mark, retired: false });
    }

    /// Offers `[from, to)` and checks the answer against the rules, written down a second time.
    async fn offer(
        &mut self,
        origin: u8,
        offered: Append,
        from: u128,
        to: u128,
        old: bool,
        skips: bool,
    ) {
        let answer = append(&self.log, offered).await.unwrap();
        let source = self.sources.get_mut(&origin).unwrap();
        let mark = source.mark;
        match answer {
            Appended::Stale => assert!(old, "only an old session is stale"),
            _ if old => panic!("an old session was answered: {answer:?}"),
            Appended::Repeat { mark: told } => {
                assert!(told == mark && to <= mark, "{from}..{to} at {mark}: {answer:?}");
            }
            Appended::Durable { mark: told, .. } => {
                assert!(from == mark && told == to, "{from}..{to} at {mark}: {answer:?}");
                source.mark = to;
                source.retired = false;
                let count = if skips { &mut self.skipped } else { &mut self.sent };
                *count.entry(origin).or_default() += (to - from) as u64;
            }
            Appended::Reposition { mark: told, .. } => {
                assert!(told == mark && from != mark && to > mark, "{from}..{to}: {answer:?}");
            }
        }
    }

    async fn retire(&mut self, origin: u8) {
        let Some(Source { mark, session, retired }) = self.sources.get(&origin).cloned() else {
            return;
        };
        let append_retire = append_of(origin, session, AppendBody::Retire { mark });
        let answer = append(&self.log, append_retire).await.unwrap();
        assert_eq!(matches!(answer, Appended::Repeat { .. }), retired, "{answer:?}");
        self.sources.get_mut(&origin).unwrap().retired = true;
        // Forgotten by age otherwise, which the retention tests look at.
        self.claim(origin, false).await;
    }

    async fn consume(&mut self, hours: u8) {
        let at = partition("s", 0);
        let mut reader = self.log.reader(&at, self.next).await.unwrap();
        take(&mut *reader, &mut self.consumed).await.unwrap();
        self.next = reader.position();
        assert_eq!(self.next, self.log.bounds(&at).unwrap().end);
        let expected = self.log.fingerprint(&at, self.next).await.unwrap();
        self.log.pin(&at, "pipeline", self.next);
        self.clock.pass(Duration::from_secs(60 * 60) * u32::from(hours));
        assert_eq!(self.log.fingerprint(&at, self.next).await.unwrap(), expected);
    }

    async fn reopen(&mut self) {
        self.log = EmbeddedLog::open_with(self.config.clone(), self.env.clone()).unwrap();
        let at = partition("s", 0);
        self.log.pin(&at, "pipeline", self.next);
        self.log.allow_trimming();
        let stats = &self.log.stats()[0];
        assert_eq!(stats.state, garam_log::State::Ok);
        self.check_readable().await;
    }

    /// Everything still held can be read, and ends where the model stands.
    async fn check_readable(&self) {
        let at = partition("s", 0);
        let bounds = self.log.bounds(&at).unwrap();
        assert!(bounds.start <= self.next && self.next <= bounds.end, "the pin held");
        let marks = loop {
            // Nothing pins the log's start, so it may be trimmed under this reader.
            match self.read_marks(&at).await {
                Err(LogError::OutOfRange { .. }) => {}
                marks => break marks.unwrap(),
            }
        };
        for (&n, source) in &self.sources {
            if let Some(mark) = marks.get(&origin(n)) {
                assert_eq!(*mark, source.mark, "origin {n}");
            }
        }
    }

    async fn read_marks(&self, at: &PartitionId) -> Result<BTreeMap<OriginId, u128>, LogError> {
        let mut reader = self.log.reader(at, self.log.bounds(at)?.start).await?;
        let mut marks = BTreeMap::new();
        while let Some(entry) = reader.try_next().await? {
            marks.insert(entry.origin.origin, entry.origin.mark);
        }
        Ok(marks)
    }

    /// Sends blocks nobody waits for, dies, and keeps a random part of the bytes behind what was acknowledged.
    async fn crash(&mut self, n: u8, blocks: u8, kept: u8, garbage: u8) {
        let (path, acknowledged) = self.newest();
        let mut offered = Vec::new();
        if let Some(source) = self.sources.get(&n).cloned() {
            let mut from = source.mark;
            for i in 0..blocks {
                let len = u128::from(i) * 150 + 1;
                let append = cut(n, source.session, from, len);
                drop(self.log.append(&partition("s", 0), append).await.unwrap());
                from += len;
                offered.push(from);
            }
        }
        self.log.shutdown().await;
        if self.newest().0 == path {
            let bytes = std::fs::read(&path).unwrap();
            let unacknowledged = bytes.len() - acknowledged;
            let keep = acknowledged + unacknowledged * usize::from(kept) / 255;
            let mut left = bytes[..keep].to_vec();
            left.extend((0..garbage % 64).map(|i| i.wrapping_mul(garbage)));
            std::fs::write(&path, left).unwrap();
        }
        // What survived of the blocks nobody waited for is the log's to say: a prefix of them.
        let report = &garam_log::inspect::inspect(&self.config.dir).unwrap()[0];
        if let Some(source) = self.sources.get_mut(&n) {
            let state = report.origins.iter().find(|state| state.origin == origin(n)).unwrap();
            let extra = state.mark - source.mark;
            assert!(extra == 0 || offered.contains(&state.mark), "a prefix of what was sent");
            *self.sent.entry(n).or_default() += extra as u64;
            source.mark = state.mark;
        }
        self.reopen().await;
    }

    /// The newest segment file and its length.
    fn newest(&self) -> (PathBuf, usize) {
        let listed = std::fs::read_dir(self.config.dir.join("s/0000")).unwrap();
        let paths = listed.map(|entry| entry.unwrap().path());
        // The writer may just be preparing the next one.
        let path = paths.filter(|path| path.extension().is_some_and(|e| e == "seg")).max().unwrap();
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        (path, len)
    }

    async fn finish(mut self) {
        self.consume(0).await;
        for (&n, source) in &self.sources {
            let got = self.consumed.get(&origin(n)).cloned().unwrap_or_default();
            assert_eq!(got.position, source.mark, "origin {n}");
            assert_eq!(got.bytes, self.sent.get(&n).copied().unwrap_or(0), "bytes of origin {n}");
            assert_eq!(got.skipped, self.skipped.get(&n).copied().unwrap_or(0));
        }
        self.log.shutdown().await;
        let report = &garam_log::inspect::inspect(&self.config.dir).unwrap()[0];
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}

/// Reads to the end, checking that each origin goes on exactly where it stood and says what its source says.
async fn take(
    reader: &mut dyn LogReader,
    delivered: &mut BTreeMap<OriginId, Delivered>,
) -> Result<(), LogError> {
    while let Some(entry) = reader.try_next().await? {
        let n = entry.origin.origin.generation.0[0];
        let seen = delivered.entry(entry.origin.origin).or_default();
        let (from, to) = match &entry.body {
            EntryBody::Block { header, payload } => {
                let source: Vec<u8> = (header.from..header.to).map(|at| byte_at(n, at)).collect();
                assert_eq!(payload, &source, "altered");
                seen.bytes += payload.len() as u64;
                (header.from, header.to)
            }
            EntryBody::Gap { from, to, .. } | EntryBody::Advance { from, to } => {
                seen.skipped += (to - from) as u64;
                (*from, *to)
            }
            EntryBody::Claim | EntryBody::Retire => (seen.position, seen.position),
        };
        assert_eq!(from, seen.position, "lost or repeated");
        assert_eq!(entry.origin.mark, to);
        seen.position = to;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() })]
    #[test]
    fn no_history_of_connections_loses_repeats_or_alters_anything(actions in actions()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut model = Model::open(dir.path());
            for action in actions {
                model.run(action).await;
            }
            model.finish().await;
        });
    }
}
