//! `garam check`: what the configuration would do, and what it would change in the core that runs by another one, without doing it.

use std::time::Duration;

use garam_sink::sqlite::Readiness;
use garam_stage::system;
use serde_json::{Value, json};

use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table};
use crate::config::{PipelinePlan, Plan};
use crate::pki::Pki;

/// Stored bytes a second of a stream that nothing is known of.
const ASSUMED_PACE: f64 = 1024.0 * 1024.0;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam check\n  garam -c ./garam.toml check --connect -o json\n\n\
It is compared with the running core, or with what the last one noted in its data folder. A password that changed inside an \
address is not seen here; a reload sees it.\n\
Exit codes: 0 can be used, though perhaps by a restart only; 4 a destination cannot be reached; 6 a change is refused; 78 configuration error."
)]
pub(crate) struct Args {
    /// Also reach the destinations and read the certificates.
    #[arg(long)]
    connect: bool,
}

pub(crate) fn check(plan: &Plan, args: &Args, format: Format) -> anyhow::Result<Exit> {
    crate::app::check_versions(plan).map_err(super::run::with_code)?;
    if args.connect {
        connect(plan)?;
    }
    let outages = outages(plan)?;
    let compared = super::changes::compared(plan)?;
    let value = json!({
        "data_dir": plan.data_dir,
        "pki_dir": plan.pki_dir,
        "gateway": plan.gateway.listen.to_string(),
        "enrol": plan.gateway.enrol_listen.map(|listen| listen.to_string()),
        "policies": plan.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>(),
        "admin": plan.admin.listen.to_string(),
        "admin_socket": plan.admin.socket,
        "admin_remote": plan.admin.remote_listen.map(|listen| listen.to_string()),
        "connected": args.connect,
        "streams": plan.streams.iter().zip(&outages).map(|(stream, outage)| json!({
            "name": stream.name.as_str(),
            "partitions": stream.partitions,
            "retain_s": stream.retain.as_secs(),
            "quota_bytes": stream.quota,
            "outage": {
                "seconds": outage.lasts.as_secs(),
                "bytes_per_s": outage.pace as u64,
                "measured": outage.measured,
            },
            "columns": stream.contract.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "dimensions": plan.dimensions.iter().map(|dimension| json!({
            "name": dimension.name(),
            "source": dimension.source.label(),
            "refresh_s": dimension.refresh.as_secs(),
            "key": dimension.shape.dimension().key,
        })).collect::<Vec<_>>(),
        "pipelines": plan.pipelines.iter().map(pipeline_as_json).collect::<Vec<_>>(),
        "changes": compared,
    });
    let mut table = Table::new(&["WHAT", "NAME", "PLAN"]);
    table.row(["core".into(), "data".into(), plan.data_dir.display().to_string()]);
    table.row(["core".into(), "gateway".into(), plan.gateway.listen.to_string()]);
    table.row(["core".into(), "admin".into(), plan.admin.socket.display().to_string()]);
    if let Some(listen) = plan.admin.remote_listen {
        let text = format!("{listen}, with certificates of `garam admin issue`");
        table.row(["core".into(), "admin, remote".into(), text]);
    }
    table.row(["core".into(), "metrics".into(), plan.admin.listen.to_string()]);
    if let Some(listen) = plan.gateway.enrol_listen {
        let life = humantime::format_duration(plan.pki.agent_life);
        table.row(["core".into(), "enrol".into(), format!("{listen}, certificates for {life}")]);
    }
    for policy in &plan.policies {
        let streams: Vec<_> = plan
            .streams
            .iter()
            .map(|s| s.name.as_str())
            .filter(|s| policy.streams.is_match(s))
            .collect();
        let rate = policy.rate.map(|rate| format!(", {} a second", output::bytes(rate)));
        let text = format!("writes to {}{}", streams.join(", "), rate.unwrap_or_default());
        table.row(["policy".into(), policy.name.clone(), text]);
    }
    for (stream, outage) in plan.streams.iter().zip(&outages) {
        let quota = output::bytes(stream.quota);
        let columns: Vec<_> = stream.contract.columns.iter().map(|c| c.name.as_str()).collect();
        let text = format!(
            "{} partition(s), keeps {} beyond the slowest cursor within {quota}; {} with {}",
            stream.partitions,
            humantime::format_duration(stream.retain),
            stream.contract.format,
            columns.join(", "),
        );
        table.row(["stream".into(), stream.name.to_string(), text]);
        table.row(["stream".into(), stream.name.to_string(), outage.text()]);
    }
    for dimension in &plan.dimensions {
        let (name, refresh) = (dimension.name().to_owned(), dimension.refresh);
        let text = format!(
            "{} every {}, key {}, at most {}",
            dimension.source.label(),
            humantime::format_duration(refresh),
            dimension.shape.dimension().key.join(", "),
            output::bytes(dimension.max_bytes),
        );
        table.row(["dimension".into(), name, text]);
    }
    for pipeline in &plan.pipelines {
        let text = format!("{} → {}", pipeline.from, pipeline.to.label());
        table.row(["pipeline".into(), pipeline.name.clone(), text]);
        if pipeline.refining.sql().is_some() {
            let text = format!("its SQL gives {}", own_columns(pipeline).join(", "));
            table.row(["pipeline".into(), pipeline.name.clone(), text]);
        }
    }
    output::print(format, &value, &table)?;
    let Some(compared) = compared else { return Ok(Exit::Ok) };
    if matches!(format, Format::Table) {
        output::emit(&compared.text())?;
    }
    Ok(compared.exit())
}

/// Pipelines with SQL also say it, and what it gives.
fn pipeline_as_json(pipeline: &PipelinePlan) -> Value {
    let mut value = json!({
        "name": pipeline.name,
        "from": pipeline.from.as_str(),
        "to": pipeline.to.label(),
    });
    if let (Some(sql), Some(members)) = (pipeline.refining.sql(), value.as_object_mut()) {
        members.insert("sql".into(), sql.into());
        members.insert("columns".into(), own_columns(pipeline).into());
    }
    value
}

/// What the destination's rows have besides the system's columns.
fn own_columns(pipeline: &PipelinePlan) -> Vec<String> {
    let schema = pipeline.refining.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.filter(|name| !system::has(name)).collect()
}

/// How long a stream's quota takes everything in while a destination is away.
struct Outage {
    lasts: Duration,
    /// Stored bytes a second.
    pace: f64,
    measured: bool,
}

fn outages(plan: &Plan) -> anyhow::Result<Vec<Outage>> {
    let outages = plan.streams.iter().map(|stream| {
        let measured = garam_log::offline::pace(&plan.log_dir(), &stream.name)?;
        let pace = measured.unwrap_or(ASSUMED_PACE).max(1.0);
        let lasts = Duration::from_secs((stream.quota as f64 / pace) as u64);
        Ok(Outage { lasts, pace, measured: measured.is_some() })
    });
    outages.collect()
}

impl Outage {
    fn text(&self) -> String {
        let pace = output::bytes(self.pace as u64);
        let how =
            if self.measured { "as its log has grown" } else { "assumed, nothing is known yet" };
        format!(
            "its quota covers {:.1} hours without a destination, at {pace} a second as stored ({how})",
            self.lasts.as_secs_f64() / 3600.0
        )
    }
}

fn connect(plan: &Plan) -> anyhow::Result<()> {
    let pki = Pki::at(&plan.pki_dir);
    if !pki.is_initialised()? {
        return Err(coded(Exit::Config, crate::pki::PkiError::Missing(plan.pki_dir.clone())));
    }
    for dimension in &plan.dimensions {
        let read = super::block_on(async { Ok(dimension.try_once().await?) });
        let (rows, size) = read.map_err(|error| {
            coded(Exit::Failed, error.context(format!("dimension {}", dimension.name())))
        })?;
        let text = format!("{rows} rows, {}, every key is there once", output::bytes(size));
        eprintln_quietly(&format!("dimension {}: {text}", dimension.name()));
    }
    for pipeline in &plan.pipelines {
        let schema = pipeline.refining.schema();
        let reached = super::block_on(async { Ok(pipeline.to.connect(&schema).await?) });
        let found = reached.map_err(|error| {
            coded(Exit::Unreachable, error.context(format!("pipeline {}", pipeline.name)))
        })?;
        let found = match found {
            Readiness::Ready => "the table is there and fits",
            Readiness::TableWillBeCreated => "the table will be created",
            Readiness::ColumnsWillBeAdded => "the table will get the columns that it lacks",
            Readiness::DatabaseWillBeCreated => "the database will be created",
        };
        eprintln_quietly(&format!("pipeline {}: {found}", pipeline.name));
    }
    Ok(())
}
