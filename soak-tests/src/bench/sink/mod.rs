//! What a destination takes: records that lie in the log already, parsed and written by a real core into a real database.
//!
//! In: which database, how many records (8 columns, about 110 bytes as JSON; each key twice). Out: rows a second into an empty
//! table and over rows that are there, processor time of core and server; in the same run the bare loop, one connection with the
//! same statement and nothing around it, and what the same server takes of the same rows when they are loaded in bulk. The clock runs from the start of the core until its cursor is at the end. The core reads its log
//! and parses meanwhile; the agent has ended.

mod arrays;
mod bare;
mod records;

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use self::bare::bare;
use self::records::{COLUMNS, Record};
use super::{round, with_rig};
use crate::admin;
use crate::cli::say;
use crate::ground::{Programs, write};
use crate::processes::family_cpu_seconds;
use crate::rig::Rig;
use crate::server::{Db, Server};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The destination.
    #[arg(long, value_enum)]
    db: Db,
    /// Records of each of the two runs.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    records: u64,
    /// Upsert with a version column; not for sqlite.
    #[arg(long)]
    guard: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    db: &'static str,
    records: u64,
    guard: bool,
    /// Records a second, half of them into an empty table, half over those.
    new_rows_per_s: f64,
    /// Records a second over rows that are all there.
    upd_rows_per_s: f64,
    /// Of the core, over both runs: reading the log, parsing, writing.
    sink_cpu_s: f64,
    server_cpu_s: f64,
    sink_peak_mib: f64,
    /// Records a second of a bare loop with the same statement, into an empty table.
    bare_rows_per_s: f64,
    bare_upd_rows_per_s: f64,
    /// What the destination reaches of the bare loop: new, then updates.
    share_of_bare: [f64; 2],
    /// Rows a second of the same table loaded in bulk by the server itself, once.
    floor_rows_per_s: f64,
}

const PATIENCE: Duration = Duration::from_secs(1_800);
const GLANCE: Duration = Duration::from_millis(10);

pub(super) async fn run(args: Args, programs: Programs) -> anyhow::Result<Figures> {
    anyhow::ensure!(!args.guard || args.db.is_server(), "sqlite has no guard");
    with_rig(programs, async |rig| measure(&args, rig).await).await
}

async fn measure(args: &Args, rig: &mut Rig) -> anyhow::Result<Figures> {
    let folder = tempfile::Builder::new().prefix("garam-bench-db-").tempdir()?;
    crate::server::open_to_all(folder.path())?;
    let server = block_in_place(|| Server::start(args.db, folder.path()))?;
    server.remember_the_password().await?;
    rig.ground.write_agent(rig.ground.gateway, "")?;
    configure(args, rig, &server, false)?;
    rig.ground.make_certificates().await?;
    let mut runs = Vec::new();
    for round in 0..2 {
        ship(args, rig, &server, round).await?;
        runs.push(deliver(args, rig, &server, round + 1).await?);
    }
    say("the bare loop");
    let bare = bare(&server, args.records, args.guard).await?;
    let floor_rows_per_s = floor(&server, folder.path()).await?;
    let [new, update] = runs.as_slice() else { anyhow::bail!("there are two runs") };
    let per_second = |run: &Run| round(args.records as f64 / run.seconds);
    // The harness ends what it measures with a running core.
    rig.start_core()?;
    rig.core_ready().await?;
    Ok(Figures {
        db: args.db.name(),
        records: args.records,
        guard: args.guard,
        new_rows_per_s: per_second(new),
        upd_rows_per_s: per_second(update),
        sink_cpu_s: round(new.core_s + update.core_s),
        server_cpu_s: round(new.server_s + update.server_s),
        sink_peak_mib: round(new.peak_mib.max(update.peak_mib)),
        bare_rows_per_s: round(bare[0]),
        bare_upd_rows_per_s: round(bare[1]),
        share_of_bare: [round(per_second(new) / bare[0]), round(per_second(update) / bare[1])],
        floor_rows_per_s: round(floor_rows_per_s),
    })
}

struct Run {
    seconds: f64,
    core_s: f64,
    server_s: f64,
    peak_mib: f64,
}

fn configure(args: &Args, rig: &Rig, server: &Server, deliver: bool) -> anyhow::Result<()> {
    let ground = &rig.ground;
    let mut text = format!(
        "{}[stream.soak]\npartitions = 1\nquota = \"20GiB\"\n\n\
         [stream.soak.contract]\nformat = \"json\"\ntime = \"at\"\n\n[stream.soak.contract.columns]\n{COLUMNS}\n",
        ground.core_head()
    );
    if deliver {
        let place = match args.db {
            Db::Sqlite => format!("path = {:?}", server.file()),
            _ => format!("url = {:?}", server.url_through(server.port())),
        };
        let guard = if args.guard { "version = \"ver\"\n" } else { "" };
        text += &format!(
            "[pipeline.soak]\nfrom = \"soak\"\nstart = \"earliest\"\n\n[pipeline.soak.to.{}]\n{place}\n\
             table = \"bench\"\nmode = \"upsert\"\nkey = [\"id\"]\n{guard}",
            args.db.kind()
        );
    }
    write(&ground.core_config, &text)
}

/// Writes the records into a file and has the agent bring them into the log, which nothing reads.
async fn ship(args: &Args, rig: &mut Rig, server: &Server, round: u64) -> anyhow::Result<()> {
    say(&format!("{} records into the log", args.records));
    configure(args, rig, server, false)?;
    let path = rig.ground.logs.join(format!("b{round}.log"));
    block_in_place(|| write_records(&path, args.records, round))?;
    rig.start_core()?;
    rig.core_ready().await?;
    rig.start_agent()?;
    // One that starts does not answer yet; its forerunner's socket is still there.
    while crate::agent::acknowledged(&rig.ground.state).await.is_err() {
        rig.check()?;
        sleep(GLANCE).await;
    }
    let folders = [rig.ground.logs.clone()];
    anyhow::ensure!(rig.all_shipped(&folders, PATIENCE).await?, "not everything was shipped");
    rig.stop_agent().await?;
    rig.stop_core().await
}

/// Each key twice, the second time half a file later, in an order that jumps.
fn write_records(path: &Path, records: u64, round: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for number in 0..records {
        Record::new(number, records, round).write_line(&mut file)?;
    }
    Ok(file.flush()?)
}

/// Starts the core with its pipeline and waits until everything is in.
async fn deliver(args: &Args, rig: &mut Rig, server: &Server, rounds: u64) -> anyhow::Result<Run> {
    say(&format!("{} records into {}", args.records, args.db.name()));
    configure(args, rig, server, true)?;
    let server_before = server_seconds(server)?;
    let began = Instant::now();
    rig.start_core()?;
    let expect = args.records * rounds;
    while admin::status(&rig.ground.socket()).await.map_or(0, |s| s.counters().settled()) < expect {
        rig.check()?;
        anyhow::ensure!(began.elapsed() < PATIENCE, "not everything was delivered");
        sleep(GLANCE).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let usage = rig.core()?.usage()?;
    // While the core is connected: a server's process for a session is gone with it.
    let server_s = server_seconds(server)? - server_before;
    rig.stop_core().await?;
    Ok(Run { seconds, core_s: usage.cpu_s, server_s, peak_mib: usage.peak_mib })
}

fn server_seconds(server: &Server) -> anyhow::Result<f64> {
    if server.db.is_server() { family_cpu_seconds(server.pid()) } else { Ok(0.0) }
}

/// The same rows into a table of the same shape, by the fastest way that the server has for it.
async fn floor(server: &Server, folder: &Path) -> anyhow::Result<f64> {
    let mut session = server.session().await?;
    let file = folder.join("data/floor").display().to_string();
    let (make, unload, load) = match server.db {
        Db::Postgres => (
            "create table floor (like bench including all)",
            format!("copy bench to '{file}'"),
            format!("copy floor from '{file}'"),
        ),
        Db::Mariadb | Db::Mysql => (
            "create table floor like bench",
            format!("select * from bench into outfile '{file}' character set binary"),
            format!("load data infile '{file}' into table floor character set binary"),
        ),
        Db::Sqlite => (
            "create table floor as select * from bench where 0",
            "create unique index floor_id on floor (id)".to_owned(),
            "insert into floor select * from bench".to_owned(),
        ),
    };
    session.run(make).await?;
    session.run(&unload).await?;
    let began = Instant::now();
    session.run(&load).await?;
    let seconds = began.elapsed().as_secs_f64();
    let rows = session.rows("select count(*) from floor").await?;
    let rows = rows.first().and_then(|row| row.first()).context("the floor has no rows")?;
    Ok(rows.parse::<f64>()? / seconds)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} records, twice{}",
            self.db,
            self.records,
            if self.guard { ", guarded" } else { "" }
        )?;
        writeln!(f, "  new               {:>10.0} records/s", self.new_rows_per_s)?;
        writeln!(f, "  updates           {:>10.0} records/s", self.upd_rows_per_s)?;
        writeln!(f, "  core              {:>10.2} CPU-s", self.sink_cpu_s)?;
        writeln!(f, "  server            {:>10.2} CPU-s", self.server_cpu_s)?;
        writeln!(f, "  core, peak        {:>10.1} MiB", self.sink_peak_mib)?;
        writeln!(f, "  bare loop, new    {:>10.0} records/s", self.bare_rows_per_s)?;
        writeln!(f, "  bare loop, updates{:>10.0} records/s", self.bare_upd_rows_per_s)?;
        writeln!(f, "  floor (bulk load) {:>10.0} rows/s", self.floor_rows_per_s)
    }
}
