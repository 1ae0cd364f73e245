//! A real database behind a real core, and everything that can go wrong around a COMMIT.
//!
//! In: which database, a seed. Out: every record by id and value, and counts that only the database could make. Promise: the
//! strikes are real (kill -9, RST, answers that are lost after the server gave them, `kill -9` of the server, deadlocks that the
//! server finds, a copy put in the place of the database, a core that sleeps while another takes over); the judge looks when
//! all have healed. Not here: the destination's furniture and the judging ([`ledger`]), the server (`crate::server`).

mod ledger;
mod rivals;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::Verdict;
use super::findings;
use super::home::{Place, play_at};
use crate::admin;
use crate::generate::Generator;
use crate::ground::Programs;
use crate::proxy::{Cut, Proxy, Weather};
use crate::rig::Rig;
use crate::server::{Db, Server};
use rivals::Competitor;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The destination.
    #[arg(long, value_enum)]
    db: Db,
    /// Decides what is written, and when what is struck.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How many strikes before the restored copy and the sleeping core.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    strikes: u32,
    /// Records a second over all writers.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(500..=100_000))]
    rate: u32,
    #[command(flatten)]
    home: Place,
}

/// What was done and what was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    scenario: &'static str,
    db: &'static str,
    seed: u64,
    generated: u64,
    rows: u64,
    quarantined: u64,
    /// Of these, refused by the table and not by the contract.
    poison: u64,
    core_kills: u64,
    cuts: u64,
    /// COMMITs that the server answered and nobody heard of.
    lost_replies: usize,
    bounces: u64,
    restores: u64,
    takeovers: u64,
    /// As the core's log has them.
    contention: usize,
    /// COMMITs of which the core did not know what had become.
    unsettled: usize,
    fenced: usize,
    lost: u64,
    duplicated: u64,
    altered: u64,
    misjudged: u64,
    /// Counts in the database that say that a batch was in twice, or not at all.
    miscounted: u64,
    ok: bool,
    why: Vec<String>,
}

/// One thing that is done to a running pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    KillCore,
    Reset,
    CutInside,
    /// What was on its way arrives after the core has gone on.
    Orphan,
    LoseReply,
    KillServer,
    StopServer,
}

/// How long everything may take to arrive at the end, and a pipeline to go on.
const HEALING: Duration = Duration::from_secs(120);
/// How long a single strike is waited for.
const FELT: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(20);
/// A zombie's locks are gone after this.
const STATEMENT_TIMEOUT: &str = "2s";

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    // Servers that drop their rights must reach their folder: it does not lie in the work folder, which is closed.
    let folder = tempfile::Builder::new().prefix("garam-soak-db-").tempdir()?;
    crate::server::open_to_all(folder.path())?;
    let mut server = block_in_place(|| Server::start(args.db, folder.path()))?;
    let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await?;
    let mut report = Report {
        scenario: "sink_faults",
        db: args.db.name(),
        seed: args.seed,
        ..Report::default()
    };
    furnish(rig, &server, &proxy).await?;
    rig.start_agent()?;
    let generator = Generator::start(&rig.ground.logs, args.seed, args.rate, 60);
    let mut competitor = Competitor::start(&server, args.seed);
    let mut rng = fastrand::Rng::with_seed(args.seed);
    for number in 0..args.strikes {
        let strike = choose(args.db, number, &mut rng);
        goes_on(rig).await?;
        sleep(Duration::from_millis(rng.u64(0..150))).await;
        strike.carry_out(rig, &mut server, &proxy, &mut rng, &mut report).await?;
        if number == args.strikes / 2 {
            // It would lock what is copied, and is no part of that.
            competitor.stop().await?;
            put_back_older(rig, &server, &mut report).await?;
            competitor = Competitor::start(&server, args.seed + 1);
        }
    }
    goes_on(rig).await?;
    if args.db.is_server() {
        rivals::take_over_from_a_sleeper(rig, &proxy, &mut report).await?;
    }
    goes_on(rig).await?;
    competitor.stop().await?;
    generator.check()?;
    let book = generator.finish().await?;
    if !rig.all_settled(book.len(), HEALING).await? {
        report.why.push("it does not heal".into());
    }
    report.why.extend(rig.stop().await);
    report.lost_replies = proxy.answers_lost();
    report.generated = book.len();
    report.read_log(&rig.ground.dir)?;
    let asides = rig.ground.quarantined(&rig.ground.pipe().name).await?;
    let found = ledger::judge(&server, &asides, &book).await?;
    report.conclude(args.db, found);
    Ok(report)
}

/// Has the core make its table, then adds what counts.
async fn furnish(rig: &mut Rig, server: &Server, proxy: &Proxy) -> anyhow::Result<()> {
    let (db, ground) = (server.db, &rig.ground);
    let mut session = server.session().await?;
    ledger::prepare(&mut session).await?;
    if db.kind() != "sqlite" {
        session.run("create table ballast (n bigint)").await?;
    }
    if db == Db::Postgres {
        // The core's own sessions find a deadlock before the waiting ends.
        session.run("alter role garam set deadlock_timeout = '50ms'").await?;
    }
    server.remember_the_password().await?;
    let place = match db {
        Db::Sqlite => format!("path = {:?}", server.file()),
        _ => {
            let url = server.url_through(proxy.address().port());
            format!("url = {url:?}\nstatement_timeout = \"{STATEMENT_TIMEOUT}\"")
        }
    };
    let mut pipe = ground.pipe();
    pipe.pipeline = "max_wait = \"100ms\"".into();
    pipe.to = Some(format!(
        "{}]\n{place}\ntable = \"soak\"\nmode = \"upsert\"\nkey = [\"writer\", \"seq\"]",
        db.kind()
    ));
    ground.write_core("", &[pipe])?;
    ground.write_agent(ground.gateway, "")?;
    ground.make_certificates().await?;
    rig.start_core()?;
    rig.core_ready().await?;
    let deadline = Instant::now() + HEALING;
    while session.rows("select count(*) from _garam_cursors").await.is_err() {
        anyhow::ensure!(Instant::now() < deadline, "the core makes no tables");
        sleep(GLANCE).await;
    }
    grant(db, &mut session).await?;
    ledger::furnish(db, &mut session).await
}

/// The pipeline's role may write what its triggers write.
async fn grant(db: Db, session: &mut crate::server::Session) -> anyhow::Result<()> {
    match db {
        Db::Postgres => session.run("grant all on all tables in schema public to garam").await,
        _ => Ok(()),
    }
}

fn choose(db: Db, number: u32, rng: &mut fastrand::Rng) -> Strike {
    use Strike::{CutInside, KillCore, KillServer, LoseReply, Orphan, Reset, StopServer};
    if !db.is_server() {
        return KillCore;
    }
    // Each kind comes early; then chance decides.
    const FIRST: [Strike; 6] = [KillCore, LoseReply, KillServer, CutInside, LoseReply, KillCore];
    const ALL: [Strike; 9] = [
        KillCore, LoseReply, Reset, Orphan, KillCore, CutInside, LoseReply, KillServer, StopServer,
    ];
    let first = usize::try_from(number).ok().and_then(|i| FIRST.get(i).copied());
    first.unwrap_or_else(|| ALL.get(rng.usize(0..ALL.len())).copied().unwrap_or(KillCore))
}

impl Strike {
    async fn carry_out(
        self,
        rig: &mut Rig,
        server: &mut Server,
        proxy: &Proxy,
        rng: &mut fastrand::Rng,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        match self {
            Self::KillCore => {
                report.core_kills += 1;
                rig.kill_core().await?;
                rig.restart_core()?;
                return Ok(());
            }
            Self::Reset => proxy.cut(Cut::Reset),
            Self::CutInside => proxy.cut_after(rng.u32(1..200_000)),
            Self::Orphan => proxy.cut(Cut::Orphan(Duration::from_millis(rng.u64(1..800)))),
            Self::LoseReply => {
                let before = proxy.answers_lost();
                proxy.lose_answer_to(server.db.commit());
                let deadline = Instant::now() + FELT;
                while proxy.answers_lost() == before && Instant::now() < deadline {
                    rig.check()?;
                    sleep(GLANCE).await;
                }
                return Ok(());
            }
            Self::KillServer | Self::StopServer => {
                report.bounces += 1;
                proxy.set(Weather::Refusing);
                block_in_place(|| {
                    if self == Self::KillServer {
                        server.kill()?
                    } else {
                        server.stop()?
                    }
                    server.start_again()
                })?;
                server.remember_the_password().await?;
                proxy.set(Weather::Clear);
                return Ok(());
            }
        }
        report.cuts += 1;
        Ok(())
    }
}

/// Waits until more has come into the pipeline.
async fn goes_on(rig: &mut Rig) -> anyhow::Result<()> {
    let deadline = Instant::now() + HEALING;
    let mut first = None;
    loop {
        rig.check()?;
        if let Ok(status) = admin::status(&rig.ground.socket()).await {
            let now = status.counters().records_in;
            if now > *first.get_or_insert(now) {
                return Ok(());
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "the pipeline does not go on");
        sleep(GLANCE).await;
    }
}

/// Takes a copy, lets more come, and puts the copy in the database's place.
async fn put_back_older(rig: &mut Rig, server: &Server, report: &mut Report) -> anyhow::Result<()> {
    goes_on(rig).await?;
    rig.stop_core().await?;
    let mut session = server.session().await?;
    ledger::keep(&mut session).await?;
    rig.restart_core()?;
    goes_on(rig).await?;
    goes_on(rig).await?;
    rig.stop_core().await?;
    let mut session = server.session().await?;
    ledger::restore(server.db, &mut session).await?;
    report.restores += 1;
    rig.restart_core()
}

impl Report {
    fn read_log(&mut self, folder: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(folder.join("core.log"))?;
        let count = |kind: &str| text.matches(&format!("kind=\"{kind}\"")).count();
        self.contention = count("contention");
        self.unsettled = text.matches("cannot tell whether a batch was committed").count();
        self.fenced = count("fenced");
        Ok(())
    }

    fn conclude(&mut self, db: Db, found: ledger::Found) {
        let errors = found.errors();
        self.rows = found.rows;
        self.quarantined = found.quarantined;
        self.poison = found.poison;
        self.lost = found.lost;
        self.duplicated = found.duplicated;
        self.altered = found.altered;
        self.misjudged = found.misjudged;
        self.miscounted = found.miscounted;
        self.why.extend(found.examples);
        let mut demand = |met: bool, complaint: &str| {
            if !met {
                self.why.push(complaint.to_owned());
            }
        };
        demand(errors == 0, "errors by id");
        demand(found.rows > 0, "nothing was delivered");
        demand(found.poison > 0, "the table refused nothing");
        demand(self.restores > 0, "nothing was restored");
        if db.is_server() {
            demand(self.lost_replies > 0, "no reply to a COMMIT was lost");
            demand(self.takeovers > 0, "nobody took over");
        }
        self.ok = self.why.is_empty();
    }
}

impl Verdict for Report {
    fn ok(&self) -> bool {
        self.ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(f, "{}  {}  seed {}  {verdict}", self.scenario, self.db, self.seed)?;
        let rows = [
            ("generated", self.generated),
            ("rows", self.rows),
            ("quarantined", self.quarantined),
            ("poison", self.poison),
            ("core kills", self.core_kills),
            ("cuts", self.cuts),
            ("lost replies", self.lost_replies as u64),
            ("bounces", self.bounces),
            ("restores", self.restores),
            ("takeovers", self.takeovers),
            ("contention", self.contention as u64),
            ("unsettled", self.unsettled as u64),
            ("fenced", self.fenced as u64),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("altered", self.altered),
            ("misjudged", self.misjudged),
            ("miscounted", self.miscounted),
        ];
        findings::table(f, &rows, &self.why)
    }
}
