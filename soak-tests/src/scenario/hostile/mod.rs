//! Every bad peer against both doors, one after the other, while an honest agent ships under the oracle.
//!
//! In: a seed. Out: one line per attack, and what became of the honest records. Promise: an attack counts as held off only when each
//! try got nothing, no byte of it is in the log where the door can know, the audit log names the attacker, and nothing of it was
//! delivered; the honest agent's records are exact by id, delivery is not held up, and the core's memory stays bounded.
//! In [`strangers`] peers without a certificate, in [`identities`] with tokens and certificates that should open nothing, in
//! [`insiders`] with good ones; [`peer`] are their hands, [`arena`] gives them what they need, [`watch`] sees what they did.

mod arena;
mod identities;
mod insiders;
mod peer;
mod report;
mod strangers;
mod watch;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::findings::Errors;
use super::home::{Place, play_at};
use super::judge;
use crate::cli::say;
use crate::database;
use crate::generate::Generator;
use crate::ground::{Ground, Pipe, Programs, free_port};
use crate::rig::Rig;
use arena::{Arena, POLICY, STREAM};
use report::{Part, Report};
use watch::{Audit, Lag, Suspect};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Decides what is written and what noise is made.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Records a second of the honest agent, over all writers.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    #[command(flatten)]
    home: Place,
}

/// How long the honest agent is alone at first.
const QUIET: Duration = Duration::from_secs(5);
/// How long everything may take to arrive at the end.
const HEALING: Duration = Duration::from_secs(60);
/// Delivery may be this much further behind than when nobody attacks: what a busy machine makes of it.
const NOISE_MS: u64 = 2_000;
/// What the core's memory may grow by.
const GROWTH_MIB: f64 = 64.0;

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    Plain,
    Http,
    Lengths,
    Slowloris,
    Flood,
    Foreign,
    Replayed,
    Frames,
    SlowFrame,
    SpoofedSizes,
    Bombs,
    ForgedAgent,
    ForgedStream,
    ForgedOrigin,
    LongRecord,
    RepeatedBlocks,
    UsedToken,
    GreedyRequest,
    BadKeys,
    EnrolStorm,
    Revoked,
    OldGeneration,
    Expired,
}

/// In the order in which they come: strangers and insiders take turns, since of one kind of refusal only so many are noted a second.
/// The one that mostly waits comes beside them.
const ATTACKS: [Attack; 22] = [
    Attack::Plain,
    Attack::Frames,
    Attack::Http,
    Attack::SpoofedSizes,
    Attack::Lengths,
    Attack::Bombs,
    Attack::Foreign,
    Attack::ForgedAgent,
    Attack::ForgedStream,
    Attack::Replayed,
    Attack::ForgedOrigin,
    Attack::LongRecord,
    Attack::RepeatedBlocks,
    Attack::UsedToken,
    Attack::GreedyRequest,
    Attack::BadKeys,
    Attack::Revoked,
    Attack::OldGeneration,
    Attack::SlowFrame,
    Attack::Flood,
    Attack::EnrolStorm,
    Attack::Slowloris,
];

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain_tcp",
            Self::Http => "http_on_the_port",
            Self::Lengths => "huge_lengths",
            Self::Slowloris => "slowloris_handshake",
            Self::Flood => "connection_flood",
            Self::Foreign => "foreign_authority",
            Self::Replayed => "replayed_capture",
            Self::Frames => "huge_frames",
            Self::SlowFrame => "slowloris_frame",
            Self::SpoofedSizes => "spoofed_sizes",
            Self::Bombs => "bombs",
            Self::ForgedAgent => "forged_agent",
            Self::ForgedStream => "forged_stream",
            Self::ForgedOrigin => "forged_origin",
            Self::LongRecord => "long_record",
            Self::RepeatedBlocks => "repeated_blocks",
            Self::UsedToken => "used_token",
            Self::GreedyRequest => "greedy_request",
            Self::BadKeys => "bad_keys",
            Self::EnrolStorm => "enrol_storm",
            Self::Revoked => "revoked_and_resumed",
            Self::OldGeneration => "old_generation",
            Self::Expired => "expired",
        }
    }

    /// What the audit log must say of it. A repeated block is what an honest agent sends after a lost answer: nobody is refused.
    fn noted_as(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Http | Self::Lengths | Self::Slowloris => &["handshake"],
            Self::Foreign | Self::Replayed | Self::GreedyRequest => &["handshake"],
            Self::Flood => &["connection", "handshake"],
            Self::Frames | Self::SpoofedSizes | Self::ForgedOrigin => &["protocol"],
            Self::SlowFrame => &["slow"],
            Self::Bombs => &["block"],
            Self::ForgedAgent => &["origin"],
            Self::ForgedStream => &["stream", "protocol"],
            Self::LongRecord => &["record"],
            Self::RepeatedBlocks => &[],
            Self::UsedToken | Self::BadKeys => &["enrol"],
            Self::EnrolStorm => &["connection"],
            Self::Revoked | Self::OldGeneration => &["session"],
            Self::Expired => &["session", "handshake"],
        }
    }

    /// How many payload bytes of it the door cannot know to be bad.
    fn may_leave_bytes(self) -> bool {
        matches!(self, Self::Bombs | Self::RepeatedBlocks)
    }

    async fn play(self, arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
        match self {
            Self::Plain => strangers::plain(arena, who).await,
            Self::Http => strangers::http(arena, who).await,
            Self::Lengths => strangers::lengths(arena, who).await,
            Self::Slowloris => strangers::slowloris(arena, who).await,
            Self::Flood => strangers::flood(arena, who).await,
            Self::Foreign => strangers::foreign(arena, who).await,
            Self::Replayed => strangers::replayed(arena, who).await,
            Self::Frames => insiders::frames(arena, who).await,
            Self::SlowFrame => insiders::slow_frame(arena, who).await,
            Self::SpoofedSizes => insiders::spoofed_sizes(arena, who).await,
            Self::Bombs => insiders::bombs(arena, who).await,
            Self::ForgedAgent => insiders::forged_agent(arena, who).await,
            Self::ForgedStream => insiders::forged_stream(arena, who).await,
            Self::ForgedOrigin => insiders::forged_origin(arena, who).await,
            Self::LongRecord => insiders::long_record(arena, who).await,
            Self::RepeatedBlocks => insiders::repeated_blocks(arena, who).await,
            Self::UsedToken => identities::used_token(arena, who).await,
            Self::GreedyRequest => identities::greedy_request(arena, who).await,
            Self::BadKeys => identities::bad_keys(arena, who).await,
            Self::EnrolStorm => identities::enrol_storm(arena, who).await,
            Self::Revoked => identities::revoked(arena, who).await,
            Self::OldGeneration => identities::old_generation(arena, who).await,
            Self::Expired => identities::expired(arena, who).await,
        }
    }
}

/// What an attack tried, and how often it got nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    tries: u64,
    refused: u64,
}

impl Tally {
    fn note(&mut self, refused: bool) {
        self.tries += 1;
        self.refused += u64::from(refused);
    }

    async fn of(mut tries: JoinSet<bool>) -> anyhow::Result<Self> {
        let mut tally = Self::default();
        while let Some(refused) = tries.join_next().await {
            tally.note(refused.context("an attacker panicked")?);
        }
        Ok(tally)
    }
}

pub(crate) async fn run(args: &Args, programs: Programs) -> anyhow::Result<Report> {
    play_at(&args.home, programs, async |rig| play(args, rig).await).await
}

async fn play(args: &Args, rig: &mut Rig) -> anyhow::Result<Report> {
    let bad = Pipe {
        name: STREAM.into(),
        from: STREAM.into(),
        database: rig.ground.dir.join("hostile.sqlite"),
        ..rig.ground.pipe()
    };
    let enrol = prepare(&rig.ground, &bad).await?;
    rig.start_core()?;
    rig.core_ready().await?;
    let arena = Arena::prepare(&rig.ground, enrol, args.seed).await?;
    rig.start_agent()?;
    let generator = Generator::start(&rig.ground.logs, args.seed, args.rate, 60);
    let lag = |rig: &Rig| {
        let tally = generator.shared_tally();
        let written = move || tally.records.load(Ordering::Relaxed);
        Lag::watch(&rig.ground, "soak", args.rate, written)
    };
    let pause = rig.progress(u64::from(args.rate), HEALING).await?;
    anyhow::ensure!(pause > u64::from(args.rate), "nothing arrives before anybody attacks");
    let quiet = lag(rig);
    sleep(QUIET).await;
    let behind_quiet_p99_ms = quiet.p99().await?;
    let before = rig.core()?.usage()?.resident_mib;

    let attacked = lag(rig);
    let attacks = attack(&arena).await?;
    let behind_p99_ms = attacked.p99().await?;
    let core_growth_mib = (rig.core()?.usage()?.peak_mib - before).max(0.0);
    generator.check()?;
    rig.check()?;

    let book = generator.finish().await?;
    let healed = settled(rig, book.len()).await?;
    let mut why = rig.stop().await;
    if !healed {
        why.push("it does not heal".into());
    }
    let found = judge::judge(&rig.ground, "soak", &rig.ground.database, &book).await?;
    why.extend(found.examples.iter().cloned());
    let mut errors = Errors::default();
    errors.add(&found);
    let counters = database::read_counters(&bad.database).await?;
    let report = Report {
        scenario: "hostile",
        seed: args.seed,
        tries: attacks.iter().map(|part| part.tries).sum(),
        refused: attacks.iter().map(|part| part.refused).sum(),
        audited: attacks.iter().map(|part| part.audited).sum(),
        attacks,
        generated: book.len(),
        delivered: found.delivered,
        quarantined: found.quarantined,
        errors,
        foreign_delivered: counters.delivered,
        foreign_quarantined: counters.quarantined,
        behind_quiet_p99_ms,
        behind_p99_ms,
        core_growth_mib: (core_growth_mib * 10.0).round() / 10.0,
        ok: false,
        why,
    };
    Ok(judged(report))
}

/// Writes the configurations and makes the honest agent's identity. Gives the enrolment port.
async fn prepare(ground: &Ground, bad: &Pipe) -> anyhow::Result<std::net::SocketAddr> {
    let enrol = free_port(&[ground.gateway, ground.admin])?;
    ground.write_core("", &[ground.pipe(), bad.clone()])?;
    let more = ground.dir.join("conf.d");
    std::fs::create_dir_all(&more)?;
    let half = strangers::FLOOD / 2;
    let text = format!(
        "[gateway]\nenrol_listen = \"{enrol}\"\nhandshake_timeout = \"2s\"\nframe_timeout = \"2s\"\n\
         max_half_open_per_address = {half}\n\n[pki]\nagent_life = \"{}s\"\n\n\
         [policy.{POLICY}]\nstreams = [\"{STREAM}\"]\nmax_record = \"64KiB\"\n",
        identities::LIFE.as_secs()
    );
    std::fs::write(more.join("doors.toml"), text)?;
    ground.write_agent(ground.gateway, "")?;
    ground.make_certificates().await?;
    Ok(enrol)
}

/// All attacks, one after the other, and the one that waits beside them.
async fn attack(arena: &Arena) -> anyhow::Result<Vec<Part>> {
    let waiting = one(arena, Attack::Expired);
    let others = async {
        let mut parts = Vec::new();
        for attack in ATTACKS {
            parts.push(one(arena, attack).await?);
        }
        Ok::<_, anyhow::Error>(parts)
    };
    let (waited, parts) = tokio::join!(waiting, others);
    let mut parts = parts?;
    parts.push(waited?);
    // Some of it is noted only now.
    let audit = Audit::of(&arena.ground);
    let recount = |(mut part, who): (Part, Suspect)| {
        part.audited = audit.count(&who)?;
        Ok(part)
    };
    parts.into_iter().map(recount).collect()
}

async fn one(arena: &Arena, attack: Attack) -> anyhow::Result<(Part, Suspect)> {
    let (name, kinds) = (attack.name(), attack.noted_as());
    let who = arena.suspect(name);
    let audit = Audit::of(&arena.ground);
    let before = arena.bytes_in_log().await?;
    let played = attack.play(arena, &who).await;
    let Tally { tries, refused } = played.with_context(|| format!("cannot play {name}"))?;
    let is_noted = audit.has(&who, kinds).await?;
    // The one that waits sends nothing, so what others leave is not laid at its door.
    let bytes_in_log = match attack {
        Attack::Expired => 0,
        _ => arena.bytes_in_log().await? - before,
    };
    let left_nothing = bytes_in_log == 0 || attack.may_leave_bytes();
    let ok = tries > 0 && refused == tries && is_noted && left_nothing;
    say(&format!(
        "{name}: {refused} of {tries} refused, {bytes_in_log} B in the log, noted: {is_noted}"
    ));
    Ok((Part { name, tries, refused, audited: 0, bytes_in_log, ok }, who))
}

/// Waits until the honest agent's records are delivered or put aside.
async fn settled(rig: &mut Rig, records: u64) -> anyhow::Result<bool> {
    let deadline = tokio::time::Instant::now() + HEALING;
    while tokio::time::Instant::now() < deadline {
        rig.check()?;
        let status = crate::admin::status(&rig.ground.socket()).await;
        let settled = status.is_ok_and(|status| {
            let honest = status.pipelines.iter().find(|pipeline| pipeline.name == "soak");
            honest.is_some_and(|pipeline| pipeline.counters().settled() >= records)
                && status.is_drained()
        });
        if settled {
            return Ok(true);
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

fn judged(mut report: Report) -> Report {
    let mut demand = |met: bool, complaint: String| {
        if !met {
            report.why.push(complaint);
        }
    };
    for part in &report.attacks {
        demand(part.ok, format!("{} is not held off", part.name));
    }
    demand(report.generated > 0, "nothing was written".into());
    demand(report.errors.total() == 0, format!("{} errors by id", report.errors.total()));
    demand(report.foreign_delivered == 0, "a record of a bad peer was delivered".into());
    demand(report.foreign_quarantined > 0, "no bomb reached the reader".into());
    let bound = report.behind_quiet_p99_ms * 2 + NOISE_MS;
    demand(
        report.behind_p99_ms <= bound,
        format!("{} ms behind, at most {bound}", report.behind_p99_ms),
    );
    let growth = report.core_growth_mib;
    demand(growth < GROWTH_MIB, format!("the core grew by {growth} MiB, at most {GROWTH_MIB}"));
    report.ok = report.why.is_empty();
    report
}
