//! A core, an agent, and somebody who writes numbered records into whatever files a story needs.
//!
//! In: a [`Ground`]. Out: helpers that read as the steps of a story, and the judgement at the end. Promise: a record is in
//! the book when its last byte is written; nothing is judged before all of it is accounted for.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use super::report::{Idle, Report};
use crate::admin;
use crate::book::{Book, Chapter, Id, Page};
use crate::database;
use crate::generate::record::Members;
use crate::ground::Ground;
use crate::oracle::Judge;
use crate::rig::Rig;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);
const GLANCE: Duration = Duration::from_millis(20);
/// What comes behind the last record would be a repetition; this long it may take.
const AFTERMATH: Duration = Duration::from_secs(1);

pub(super) struct Trial {
    pub(super) rig: Rig,
    book: Book,
    rng: Rng,
    rests: u64,
    /// Bytes that the story knows to be lost.
    pub(super) lost_bytes: u64,
    /// Records that the core is to refuse, apart from the book: how many came, how many may.
    pub(super) refused: Option<u64>,
    pub(super) idle: Option<Idle>,
    why: Vec<String>,
}

impl Trial {
    pub(super) fn new(ground: Ground, seed: u64) -> Self {
        Self {
            rig: Rig::new(ground),
            book: Book::default(),
            rng: Rng::with_seed(seed),
            rests: 0,
            lost_bytes: 0,
            refused: None,
            idle: None,
            why: Vec::new(),
        }
    }

    /// Configures both, starts the core, not the agent.
    pub(super) async fn begin(&mut self, include: &str, extra: &str) -> anyhow::Result<()> {
        self.rig.ground.write_core("", &[self.rig.ground.pipe()])?;
        self.configure(include, extra, "")?;
        self.rig.ground.make_certificates().await?;
        self.rig.start_core()?;
        self.rig.core_ready().await
    }

    /// Writes the agent's configuration; `extra` goes into the table and behind it.
    pub(super) fn configure(&self, include: &str, extra: &str, ship: &str) -> anyhow::Result<()> {
        let ground = &self.rig.ground;
        let text = format!(
            "state_dir = {:?}\nidentity_dir = {:?}\ncore = [\"{}\"]\n[ship]\n{ship}\n[[file]]\nname = \"soak\"\n\
             include = [\"{}/{include}\"]\nstream = \"soak\"\n{extra}\n",
            ground.state,
            ground.identity(),
            ground.gateway,
            ground.logs.display(),
        );
        fs::write(&ground.agent_config, text).context("cannot write the agent's configuration")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.rig.ground.logs.join(name)
    }

    /// New records of a writer, as lines.
    pub(super) fn lines(&mut self, writer: u32, count: u64) -> Vec<u8> {
        let draft = self.draft(writer, count);
        let bytes = draft.iter().flat_map(|(line, _)| line).copied().collect();
        self.admit(writer, draft.into_iter().map(|(_, page)| page));
        bytes
    }

    /// The next records of a writer, without taking them into the book.
    pub(super) fn draft(&mut self, writer: u32, count: u64) -> Vec<(Vec<u8>, Page)> {
        let place = writer as usize;
        let written =
            self.book.chapters.get(place).map_or(0, |chapter| chapter.pages().count()) as u64;
        let mut draft = Vec::new();
        for seq in written + 1..=written + count {
            let payload = "x".repeat(self.rng.usize(0..120));
            let members =
                Members { id: Id { writer, seq }, weight: self.rng.i32(..), payload: &payload };
            draft.push(members.line(None));
        }
        draft
    }

    /// Takes the next records of a writer into the book: from now on they must arrive.
    pub(super) fn admit(&mut self, writer: u32, pages: impl IntoIterator<Item = Page>) {
        let place = writer as usize;
        if self.book.chapters.len() <= place {
            self.book.chapters.resize_with(place + 1, Chapter::default);
        }
        let Some(chapter) = self.book.chapters.get_mut(place) else { return };
        let first = chapter.pages().count() as u64 + 1;
        for (seq, page) in (first..).zip(pages) {
            chapter.note(seq, page);
        }
    }

    /// Appends records of a writer to a file, which is created when it is not there.
    pub(super) fn append(&mut self, name: &str, writer: u32, count: u64) -> anyhow::Result<()> {
        let bytes = self.lines(writer, count);
        self.append_bytes(name, &bytes)
    }

    pub(super) fn append_bytes(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.log(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(bytes))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> anyhow::Result<()> {
        fs::rename(self.log(from), self.log(to)).context("cannot rename")
    }

    pub(super) async fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::ask(&self.rig.ground.state).await
    }

    /// Waits until the agent's account is as it should be.
    pub(super) async fn until(
        &mut self,
        what: &str,
        is_so: impl Fn(&Ledger) -> bool,
    ) -> anyhow::Result<Ledger> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            self.rig.check()?;
            let asked = Instant::now();
            if let Ok(ledger) = self.ledger().await {
                if is_so(&ledger) {
                    return Ok(ledger);
                }
                last = Some(ledger);
            }
            // An account of very many files costs the agent more than its work: it is asked for the more rarely.
            sleep(GLANCE.max(asked.elapsed() * 20)).await;
        }
        let told = last.map(|ledger| (ledger.connected, ledger.totals, ledger.files.len()));
        anyhow::bail!("never came true: {what}; the agent says {told:?}")
    }

    /// Waits until everything has been delivered and the agent rests; every ledger must balance then.
    pub(super) async fn settle(&mut self) -> anyhow::Result<Ledger> {
        self.settle_but(0).await
    }

    /// The same with so many bytes that are not to be read yet.
    pub(super) async fn settle_but(&mut self, unread: u64) -> anyhow::Result<Ledger> {
        let ledger = self.until("the agent rests", |ledger| ledger.rests(unread)).await?;
        let written = self.book.len() + self.refused.unwrap_or(0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.rig.check()?;
            let settled = admin::status(&self.rig.ground.socket()).await?.counters().settled();
            if settled >= written {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "{settled} of {written} records arrived");
            sleep(GLANCE).await;
        }
        self.rests += 1;
        self.why.extend(ledger.unbalanced());
        let gap = ledger.gap();
        if gap > self.lost_bytes {
            self.why.push(format!("a gap of {gap} bytes, {} were lost", self.lost_bytes));
        }
        Ok(ledger)
    }

    pub(super) fn complain(&mut self, met: bool, complaint: &str) {
        if !met {
            self.why.push(complaint.into());
        }
    }

    /// Stops both and lets the oracle look.
    pub(super) async fn finish(&mut self, name: &'static str) -> anyhow::Result<Report> {
        sleep(AFTERMATH).await;
        self.why.extend(self.rig.stop().await);
        let ground = &self.rig.ground;
        let mut judge = Judge::new(&self.book);
        database::read_rows(&ground.database, &mut judge).await?;
        let asides = ground.quarantined(&ground.pipe().name).await?;
        match self.refused {
            None => asides.iter().for_each(|aside| judge.aside(&aside.record)),
            Some(expected) if expected == asides.len() as u64 => {}
            Some(expected) => self
                .why
                .push(format!("{} records were refused, {expected} should have", asides.len())),
        }
        let found = judge.finish();
        let why = std::mem::take(&mut self.why);
        Ok(Report::new(name, self.book.len(), self.rests, self.idle.take(), &found, why))
    }
}
