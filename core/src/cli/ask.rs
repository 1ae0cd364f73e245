//! Verbs that ask a running core: `tree`, `status`, `lag`, `tap`.

use std::io::Write as _;

use garam_proto::shown::json;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::admin_client::Core;
use super::exit::{Exit, eprintln_quietly};
use super::output::{self, Format, Table, bytes, escape, seconds};
use crate::admin::answers::{LagAnswer, StatusAnswer, Verdict};
use crate::supervise::{Snapshot, render};

pub(crate) fn tree(core: &Core, format: Format) -> anyhow::Result<Exit> {
    let snapshot: Snapshot = super::block_on(core.get("/v1/tree"))?;
    output::print_text(format, &snapshot, &escape_lines(&render(&snapshot)))?;
    Ok(Exit::Ok)
}

pub(crate) fn status(core: &Core, format: Format) -> anyhow::Result<Exit> {
    let status: StatusAnswer = super::block_on(core.get("/v1/status"))?;
    let mut text =
        format!("{}\n", if status.verdict == Verdict::Healthy { "healthy" } else { "degraded" });
    for why in &status.why {
        text.push_str(&format!("  {}\n", escape(why)));
    }
    text.push_str(&format!(
        "garam {}, up {}, cluster {}\nagents    {} connected\n",
        status.version,
        seconds(status.uptime_s as f64),
        status.cluster,
        status.agents.len(),
    ));
    for stream in &status.streams {
        text.push_str(&format!(
            "stream    {}  {} entries, {} on disk\n",
            stream.name,
            stream.end - stream.start,
            bytes(stream.bytes)
        ));
    }
    for pipeline in &status.pipelines {
        text.push_str(&format!(
            "pipeline  {}  {} delivered, {} quarantined, {} dropped, {} behind\n",
            pipeline.name,
            pipeline.delivered,
            pipeline.quarantined,
            pipeline.dropped,
            pipeline.lag_entries
        ));
        if let Some(reason) = &pipeline.paused {
            text.push_str(&format!("          paused: {}\n", escape(reason)));
        }
    }
    for dimension in &status.dimensions {
        text.push_str(&format!(
            "dimension {}  {}, {} rows, {} old\n",
            dimension.name,
            dimension.state,
            dimension.rows.unwrap_or(0),
            dimension.age_s.map_or("-".into(), seconds),
        ));
    }
    output::print_text(format, &status, &text)?;
    Ok(match status.verdict {
        Verdict::Healthy => Exit::Ok,
        Verdict::Degraded => Exit::Degraded,
    })
}

pub(crate) fn lag(core: &Core, format: Format) -> anyhow::Result<Exit> {
    let answer: LagAnswer = super::block_on(core.get("/v1/lag"))?;
    let mut table = Table::new(&[
        "PIPELINE",
        "STREAM",
        "PARTITION",
        "NEXT",
        "END",
        "ENTRIES BEHIND",
        "SECONDS BEHIND",
        "STATE",
    ]);
    for lag in &answer.pipelines {
        table.row([
            lag.pipeline.clone(),
            lag.stream.clone(),
            lag.partition.to_string(),
            lag.next.to_string(),
            lag.end.to_string(),
            lag.lag_entries.to_string(),
            lag.lag_s.map_or("-".into(), |s| format!("{s:.1}")),
            lag.state.clone(),
        ]);
    }
    output::print(format, &answer.pipelines, &table)?;
    Ok(Exit::Ok)
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam tap quickstart --limit 5\n  garam tap orders-to-db --before --from earliest\n  garam tap orders-to-db --quarantined\n\n\
Prints one JSON object a line. Nothing is taken from the pipeline: it reads the log beside it."
)]
pub(crate) struct TapArgs {
    /// Which pipeline.
    pipeline: String,
    /// Stop after this many records; 0 means never.
    #[arg(long, default_value_t = 10)]
    limit: u64,
    /// Show the raw records before the contract.
    #[arg(long, group = "stage")]
    before: bool,
    /// Show the rows after contract and SQL. This is the default.
    #[arg(long, group = "stage")]
    after: bool,
    /// Show what is put aside, with its reason.
    #[arg(long, group = "stage")]
    quarantined: bool,
    /// Begin at the end (what comes from now on) or at the earliest record still held.
    #[arg(long, value_enum, default_value_t = TapFrom::End)]
    from: TapFrom,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TapFrom {
    End,
    Earliest,
}

pub(crate) fn tap(core: &Core, args: &TapArgs) -> anyhow::Result<Exit> {
    let from = match args.from {
        TapFrom::End => "end",
        TapFrom::Earliest => "earliest",
    };
    let stage = match (args.before, args.quarantined) {
        (true, _) => "before",
        (_, true) => "quarantined",
        _ => "after",
    };
    let path = format!("/v1/tap/{}?limit={}&from={from}&stage={stage}", args.pipeline, args.limit);
    super::block_on(async {
        let mut body = core.open(&path).await?.into_body();
        let mut line = Vec::new();
        let mut stdout = std::io::stdout();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
            };
            let Some(frame) = frame else { return Ok(Exit::Ok) };
            let Ok(data) = frame?.into_data() else { continue };
            for &byte in &data {
                line.push(byte);
                if byte == b'\n' {
                    match serde_json::from_slice::<Value>(&line) {
                        Ok(value) => writeln!(stdout, "{}", json(&value.to_string()))?,
                        Err(error) => {
                            eprintln_quietly(&format!("garam: unreadable record: {error}"))
                        }
                    }
                    line.clear();
                }
            }
            stdout.flush()?;
        }
    })
}

fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}
