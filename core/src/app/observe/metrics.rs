//! The core's figures as Prometheus families. `docs/operating.md` lists every name.

use garam_flow::FlowStats;
use garam_log::{PartitionStats, State as LogState};
use garam_sink::SinkFigures;
use garam_stage::Counters;

use super::Observed;
use crate::admin::answers::PartitionLag;
use crate::admin::metrics::{Exposition, Kind};
use crate::supervise::Snapshot;

impl Observed {
    pub(super) fn door_metrics(&self, out: &mut Exposition) {
        let Some(door) = self.door.peek() else { return };
        let sessions = door.sessions.count() as u64;
        out.family("garam_sessions", Kind::Gauge, "Connected agents.").count(&[], sessions);
        for (name, help, value) in door.stats.read() {
            out.family(&format!("garam_gateway_{name}_total"), Kind::Counter, help)
                .count(&[], value);
        }
        for (name, help, value) in door.registrar.stats.read() {
            out.family(&format!("garam_{name}_total"), Kind::Counter, help).count(&[], value);
        }
    }

    pub(super) fn log_metrics(&self, out: &mut Exposition) {
        type Figure = fn(&PartitionStats) -> u64;
        let families: [(&str, Kind, &str, Figure); 8] = [
            ("garam_log_start_offset", Kind::Gauge, "First entry still held.", |s| s.start.0),
            ("garam_log_end_offset", Kind::Gauge, "One past the last durable entry.", |s| s.end.0),
            ("garam_log_bytes", Kind::Gauge, "Bytes on disk.", |s| s.bytes),
            ("garam_log_segments", Kind::Gauge, "Segment files.", |s| s.segments as u64),
            ("garam_log_origins", Kind::Gauge, "Known origins.", |s| s.origins as u64),
            (
                "garam_log_appended_records_total",
                Kind::Counter,
                "Records made durable since the start.",
                |s| s.appended_records,
            ),
            (
                "garam_log_appended_bytes_total",
                Kind::Counter,
                "Payload bytes made durable since the start.",
                |s| s.appended_bytes,
            ),
            ("garam_log_accepting", Kind::Gauge, "1, or 0 when full or stopped.", |s| {
                u64::from(s.state == LogState::Ok)
            }),
        ];
        let stats = self.log_stats();
        for (name, kind, help, figure) in families {
            let mut family = out.family(name, kind, help);
            for partition in &stats {
                let index = partition.partition.index.to_string();
                let labels = [
                    ("stream", partition.partition.stream.as_str()),
                    ("partition", index.as_str()),
                ];
                family.count(&labels, figure(partition));
            }
        }
    }

    pub(super) fn pipeline_metrics(&self, out: &mut Exposition, tree: &Snapshot) {
        type Figure = fn(&FlowStats, &Counters, &PartitionLag) -> f64;
        let families: [(&str, Kind, &str, Figure); 9] = [
            (
                "garam_pipeline_in_records_total",
                Kind::Counter,
                "Records read since the first start.",
                |_, c, _| c.records_in as f64,
            ),
            (
                "garam_pipeline_delivered_records_total",
                Kind::Counter,
                "Records delivered since the first start.",
                |_, c, _| c.delivered as f64,
            ),
            (
                "garam_pipeline_quarantined_records_total",
                Kind::Counter,
                "Records put aside since the first start.",
                |_, c, _| c.quarantined as f64,
            ),
            (
                "garam_pipeline_gap_units_total",
                Kind::Counter,
                "Bytes or events known to be lost upstream.",
                |_, c, _| c.gap_units as f64,
            ),
            (
                "garam_pipeline_gaps_total",
                Kind::Counter,
                "Gaps that these losses came in.",
                |_, c, _| c.gaps as f64,
            ),
            (
                "garam_pipeline_lag_entries",
                Kind::Gauge,
                "Durable entries not delivered yet.",
                |_, _, l| l.lag_entries as f64,
            ),
            (
                "garam_pipeline_lag_seconds",
                Kind::Gauge,
                "Age of what is delivered now; 0 when nothing waits.",
                |_, _, l| l.lag_s.unwrap_or(0.0),
            ),
            (
                "garam_pipeline_batches_total",
                Kind::Counter,
                "Batches written since the start.",
                |s, _, _| s.batches() as f64,
            ),
            (
                "garam_pipeline_last_batch_seconds",
                Kind::Gauge,
                "How long the newest batch took.",
                |s, _, _| s.last_batch_ms() as f64 / 1e3,
            ),
        ];
        let exhibits = self.shown.now();
        let rows: Vec<_> = exhibits
            .pipelines
            .iter()
            .flat_map(|watched| watched.flows.iter().zip(self.lag_of(watched, tree)))
            .map(|((_, stats), lag)| {
                (stats, stats.cursor().map(|c| c.counters).unwrap_or_default(), lag)
            })
            .collect();
        for (name, kind, help, figure) in families {
            let mut family = out.family(name, kind, help);
            for (stats, counters, lag) in &rows {
                let index = lag.partition.to_string();
                let labels = [("pipeline", lag.pipeline.as_str()), ("partition", index.as_str())];
                family.sample(&labels, figure(stats, counters, lag));
            }
        }
        let help = "Records left out on purpose since the first start.";
        let mut dropped = out.family("garam_pipeline_dropped_records_total", Kind::Counter, help);
        for (_, counters, lag) in &rows {
            let index = lag.partition.to_string();
            for (reason, &count) in &counters.dropped {
                let labels = [
                    ("pipeline", lag.pipeline.as_str()),
                    ("partition", index.as_str()),
                    ("reason", reason.as_str()),
                ];
                dropped.count(&labels, count);
            }
        }
        let help = "Values that broke the contract and that something else stands in for.";
        let mut replaced = out.family("garam_stream_values_replaced_total", Kind::Counter, help);
        // Pipelines of one stream share its refiner.
        for (i, watched) in exhibits.pipelines.iter().enumerate() {
            if exhibits.pipelines.iter().take(i).all(|other| other.stream != watched.stream) {
                replaced.count(&[("stream", watched.stream.as_str())], watched.refiner.replaced());
            }
        }
    }

    pub(super) fn sink_metrics(&self, out: &mut Exposition) {
        type Figure = fn(&SinkFigures) -> u64;
        let families: [(&str, &str, Figure); 8] = [
            ("rows", "Rows committed since the start.", |s| s.rows),
            ("bytes", "Size of these rows in memory.", |s| s.bytes),
            ("batches", "Writes of rows committed since the start.", |s| s.batches),
            ("refused_rows", "Rows that the destination would not take.", |s| s.refused),
            ("stale_records", "Records dropped because a newer row was there.", |s| s.stale),
            ("retries", "Writes that lost against others or ended in doubt.", |s| s.retries),
            ("failures", "Writes that failed otherwise.", |s| s.failures),
            ("connections", "Connections opened.", |s| s.connections),
        ];
        let exhibits = self.shown.now();
        let tables = exhibits.pipelines.iter().filter_map(|watched| {
            let sink = watched.sink.as_ref()?;
            let labels = [("pipeline", watched.name.as_str()), ("table", sink.table.as_str())];
            Some((labels, sink.stats.read()))
        });
        let tables: Vec<_> = tables.collect();
        for (name, help, figure) in families {
            let mut family = out.family(&format!("garam_sink_{name}_total"), Kind::Counter, help);
            for (labels, figures) in &tables {
                family.count(labels, figure(figures));
            }
        }
        let help = "How long committed writes took.";
        let mut times = out.family("garam_sink_write_seconds", Kind::Histogram, help);
        for (labels, figures) in &tables {
            let SinkFigures { write_time, writes, write_seconds, .. } = figures;
            times.histogram(labels, write_time, *writes, *write_seconds);
        }
    }
}
