//! `bench refine`: from a block of the log to refined rows, beside plain DataFusion over the same rows.
//!
//! Our side ([`own`]) checks and decompresses blocks, splits them, parses by contract (not null, a range, a set), and refines by
//! SQL with a join on 10 000 users; its rows carry their provenance. The peer ([`plain`]) is arrow-json and DataFusion with the
//! same SQL, from bytes that are decompressed already, without checks and provenance: planned once for a stream of batches, and anew for each.
//! Beside them arrow-json alone and our contract alone (with decompression).
//!
//! All on one thread; a figure is rows in per second of that thread's processor time. Sides take turns, slice by slice, and change who
//! goes first. Before the clock runs, both sides' rows of a slice are compared by value. `batch_us` is what a batch costs,
//! `overhead_us` what it costs beyond its rows at the price of a row in the cheapest size, `one_record_us` a batch of one record.

mod own;
mod plain;
mod records;

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use arrow_array::RecordBatch;
use datafusion::arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::round;
use crate::cli::say;
use own::Own;
use plain::{Anew, Json, Once, Plain};
use records::Shipped;

/// Of one block.
const RECORDS: u32 = 1_000;
/// Batches of one record that are measured.
const SINGLES: usize = 2_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Records per batch size.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(64_000..=20_000_000))]
    rows: u64,
    /// Thousands of records in a batch.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64], value_parser = clap::value_parser!(u32).range(1..=64))]
    batch_thousands: Vec<u32>,
    /// Slices in which the sides take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    slices: u32,
    /// Measure our side alone, for a profile.
    #[arg(long)]
    alone: bool,
    /// Seed of the records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Of all records, uncompressed.
    bytes: u64,
    payload_bytes: u64,
    bytes_per_row: f64,
    compared_rows: u64,
    one_record_us: f64,
    cases: Vec<Case>,
}

/// Rates are rows a second of one core. The peer's are absent with `--alone`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Case {
    batch_rows: u64,
    rows: u64,
    rows_per_s_per_core: f64,
    datafusion_rows_per_s_per_core: Option<f64>,
    ratio: Option<f64>,
    datafusion_anew_rows_per_s_per_core: Option<f64>,
    arrow_json_rows_per_s_per_core: Option<f64>,
    contract_rows_per_s_per_core: f64,
    batch_us: f64,
    overhead_us: f64,
}

/// A pass over a slice that is ready to run: gives the rows that came out.
type Pass<'a> = Box<dyn FnOnce() -> anyhow::Result<usize> + 'a>;

trait Side {
    /// What is done once for all batches is done here, before the clock runs.
    fn pass<'a>(&'a self, blocks: &'a [Shipped], per_batch: usize) -> anyhow::Result<Pass<'a>>;
}

/// Runs on a thread of its own, whose processor time is the measure.
pub(super) async fn run(args: Args) -> anyhow::Result<Figures> {
    tokio::task::spawn_blocking(move || measure(&args)).await?
}

fn measure(args: &Args) -> anyhow::Result<Figures> {
    let per_slice = usize::try_from(args.rows / u64::from(RECORDS) / u64::from(args.slices))?;
    let mut rng = Rng::with_seed(args.seed);
    say(&format!("making {} records", args.rows));
    let slices = (0..args.slices)
        .map(|_| records::ship(per_slice, RECORDS, &mut rng))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let largest = args.batch_thousands.iter().max().copied().unwrap_or(1) as usize;
    ensure!(
        per_slice >= largest,
        "a slice of {per_slice} 000 records holds no batch: ask for fewer slices"
    );

    let (whole, contract) = (Own::whole()?, Own::contract()?);
    let peers: Vec<Box<dyn Side>> = if args.alone {
        Vec::new()
    } else {
        let (once, anew) = (Once(Plain::new()?), Anew(Plain::new()?));
        vec![Box::new(once), Box::new(anew), Box::new(Json::new()?)]
    };
    let mut compared = 0;
    let mut cases = Vec::new();
    for &thousands in &args.batch_thousands {
        let per_batch = thousands as usize;
        if !args.alone {
            compared += compare(&whole, &slices[0], per_batch)?;
        }
        say(&format!("batches of {thousands} 000 records"));
        let sides: Vec<&dyn Side> = [&whole as &dyn Side, &contract]
            .into_iter()
            .chain(peers.iter().map(|side| side.as_ref()))
            .collect();
        cases.push(case(&sides, &slices, per_batch)?);
    }
    let cheapest = cases.iter().map(Case::row_us).fold(f64::INFINITY, f64::min);
    for case in &mut cases {
        case.overhead_us = round(case.batch_us - cheapest * case.batch_rows as f64);
    }
    let all = || slices.iter().flatten();
    let bytes: u64 = all().map(|block| u64::from(block.header.raw_len)).sum();
    let payload_bytes = all().map(|block| u64::from(block.header.payload_len)).sum();
    let rows = all().count() as f64 * f64::from(RECORDS);
    let one_record_us = round(single(&whole, &mut rng)?);
    let bytes_per_row = round(bytes as f64 / rows);
    Ok(Figures {
        bytes,
        payload_bytes,
        bytes_per_row,
        compared_rows: compared,
        one_record_us,
        cases,
    })
}

/// Seconds of each side over all slices; only whole batches are taken.
fn case(sides: &[&dyn Side], slices: &[Vec<Shipped>], per_batch: usize) -> anyhow::Result<Case> {
    let mut seconds = vec![0.0; sides.len()];
    let mut blocks_taken = 0;
    let whole = |slice: &Vec<Shipped>| slice.len() / per_batch * per_batch;
    // A first pass warms all of them up and is not counted.
    for side in sides {
        side.pass(&slices[0][..per_batch], per_batch)?()?;
    }
    for (turn, slice) in slices.iter().enumerate() {
        let blocks = &slice[..whole(slice)];
        blocks_taken += blocks.len();
        for place in 0..sides.len() {
            let number = (place + turn) % sides.len();
            let pass = sides[number].pass(blocks, per_batch)?;
            let start = thread_seconds();
            pass()?;
            seconds[number] += thread_seconds() - start;
        }
    }
    let rows = blocks_taken as u64 * u64::from(RECORDS);
    let rate = |number: usize| seconds.get(number).map(|spent| (rows as f64 / spent).round());
    let batch_rows = per_batch as u64 * u64::from(RECORDS);
    Ok(Case {
        batch_rows,
        rows,
        rows_per_s_per_core: rate(0).unwrap_or(f64::NAN),
        datafusion_rows_per_s_per_core: rate(2),
        ratio: seconds.get(2).map(|peer| round(peer / seconds[0])),
        datafusion_anew_rows_per_s_per_core: rate(3),
        arrow_json_rows_per_s_per_core: rate(4),
        contract_rows_per_s_per_core: rate(1).unwrap_or(f64::NAN),
        batch_us: round(seconds[0] * 1e6 * batch_rows as f64 / rows as f64),
        overhead_us: 0.0,
    })
}

impl Case {
    fn row_us(&self) -> f64 {
        self.batch_us / self.batch_rows as f64
    }
}

/// What a batch of one record costs, in microseconds.
fn single(whole: &Own, rng: &mut Rng) -> anyhow::Result<f64> {
    let blocks = records::ship(SINGLES, 1, rng)?;
    let pass = whole.pass(&blocks, 1)?;
    let start = thread_seconds();
    pass()?;
    Ok((thread_seconds() - start) * 1e6 / SINGLES as f64)
}

/// Both sides' rows of a slice, by value; gives how many there are.
fn compare(whole: &Own, slice: &[Shipped], per_batch: usize) -> anyhow::Result<u64> {
    let blocks = &slice[..slice.len() / per_batch * per_batch];
    let own = blocks.chunks(per_batch).map(|blocks| whole.batch(blocks));
    let own = by_id(&own.collect::<anyhow::Result<Vec<_>>>()?)?;
    let plain = by_id(&Plain::new()?.rows(blocks, per_batch)?)?;
    ensure!(
        own.num_rows() == plain.num_rows(),
        "{} rows, the peer has {}",
        own.num_rows(),
        plain.num_rows()
    );
    for (field, peer) in plain.schema().fields().iter().zip(plain.columns()) {
        let ours = own.column_by_name(field.name()).context("a column of the peer's only")?;
        let peer = cast(peer, ours.data_type())?;
        ensure!(ours.as_ref() == peer.as_ref(), "column {} differs", field.name());
    }
    Ok(own.num_rows() as u64)
}

fn by_id(batches: &[RecordBatch]) -> anyhow::Result<RecordBatch> {
    let schema = batches.first().context("no rows at all")?.schema();
    let all = concat_batches(&schema, batches)?;
    let ids = Arc::clone(all.column_by_name("id").context("no column id")?);
    Ok(take_record_batch(&all, &sort_to_indices(&ids, None, None)?)?)
}

fn thread_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "records of {} bytes; a batch of one: {} µs; {} rows compared",
            self.bytes_per_row, self.one_record_us, self.compared_rows
        )?;
        writeln!(
            f,
            "{:>8} {:>11} {:>11} {:>6} {:>11} {:>11} {:>11} {:>10} {:>11}",
            "batch",
            "rows/s",
            "DataFusion",
            "ratio",
            "anew",
            "arrow-json",
            "contract",
            "batch µs",
            "overhead µs"
        )?;
        let shown =
            |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string());
        for case in &self.cases {
            writeln!(
                f,
                "{:>8} {:>11} {:>11} {:>6} {:>11} {:>11} {:>11} {:>10} {:>11}",
                case.batch_rows,
                case.rows_per_s_per_core,
                shown(case.datafusion_rows_per_s_per_core),
                shown(case.ratio),
                shown(case.datafusion_anew_rows_per_s_per_core),
                shown(case.arrow_json_rows_per_s_per_core),
                case.contract_rows_per_s_per_core,
                case.batch_us,
                case.overhead_us
            )?;
        }
        Ok(())
    }
}
