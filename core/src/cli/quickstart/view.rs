//! What a person sees while a quickstart runs: one screen on a terminal, a line every five seconds elsewhere.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde::Deserialize;
use tokio::process::Command;

use super::children::agent_program;
use super::setup::{Ground, TABLE};
use crate::admin::answers::{PipelineAnswer, StatusAnswer};
use crate::cli::exit::eprintln_quietly;
use crate::cli::output::{bytes, emit_as_it_is, escape, seconds};

/// The part of `garam-agent status -o json` that is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AgentStatus {
    connected: bool,
    totals: AgentTotals,
    files: Vec<AgentFile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AgentTotals {
    records_acked: u64,
    bytes_acked: u64,
    unread_bytes: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AgentFile {
    path: String,
    records_acked: u64,
    unread: u64,
}

pub(super) struct View<'a> {
    ground: &'a Ground,
    on_terminal: bool,
    last: Option<(Instant, u64, u64)>,
    last_line: Option<Instant>,
}

impl<'a> View<'a> {
    pub(super) fn new(ground: &'a Ground, on_terminal: bool) -> Self {
        Self { ground, on_terminal, last: None, last_line: None }
    }

    /// Draws what is known now. A question that is not answered shows as such and is asked again.
    pub(super) async fn draw(&mut self, elapsed: Duration) {
        let status = self.ground.admin.get::<StatusAnswer>("/v1/status").await.ok();
        let agent = self.agent_status().await.unwrap_or_default();
        let pipeline = status.and_then(|status| status.pipelines.into_iter().next());
        if self.on_terminal {
            let screen = self.screen(elapsed, &agent, pipeline.as_ref());
            if emit_as_it_is(&format!("\x1b[H\x1b[2J{screen}")).is_err() {
                self.on_terminal = false;
            }
        } else if self.last_line.is_none_or(|at| at.elapsed() >= Duration::from_secs(5)) {
            self.last_line = Some(Instant::now());
            if let Some(pipeline) = &pipeline {
                eprintln_quietly(&format!(
                    "{:>5.0}s  {} acknowledged from {} files, {} delivered, {} quarantined",
                    elapsed.as_secs_f64(),
                    agent.totals.records_acked,
                    agent.files.len(),
                    pipeline.delivered,
                    pipeline.quarantined,
                ));
            }
        }
    }

    /// Waits until the pipeline has delivered everything in the log.
    pub(super) async fn drained(&self, deadline: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let status: StatusAnswer = self.ground.admin.get("/v1/status").await?;
            if status.pipelines.iter().all(|pipeline| pipeline.lag_entries == 0) {
                return Ok(());
            }
            if begun.elapsed() > deadline {
                return Err(anyhow!(
                    "the pipeline has not delivered everything after {deadline:?}: {}",
                    status.why.join("; ")
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn agent_status(&self) -> anyhow::Result<AgentStatus> {
        let output = Command::new(agent_program()?)
            .args(["status", "-o", "json", "--config"])
            .arg(&self.ground.agent_config)
            .output()
            .await?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn screen(
        &mut self,
        elapsed: Duration,
        agent: &AgentStatus,
        pipeline: Option<&PipelineAnswer>,
    ) -> String {
        let now = Instant::now();
        let delivered = pipeline.map_or(0, |p| p.delivered);
        let (read_rate, byte_rate) = match self.last {
            Some((at, records, acked)) => {
                let s = now.duration_since(at).as_secs_f64().max(0.001);
                (
                    delivered.saturating_sub(records) as f64 / s,
                    agent.totals.bytes_acked.saturating_sub(acked) as f64 / s,
                )
            }
            None => (0.0, 0.0),
        };
        self.last = Some((now, delivered, agent.totals.bytes_acked));
        let mut out = String::new();
        let mut line = |text: String| {
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "{text}");
        };
        line(format!("Garam quickstart   {}   Ctrl-C to stop", seconds(elapsed.as_secs_f64())));
        line(String::new());
        let link = if agent.connected { "connected" } else { "not connected" };
        line(format!(
            "agent      {link}, {} files, {} unread",
            agent.files.len(),
            bytes(agent.totals.unread_bytes)
        ));
        line(format!(
            "shipped    {} records, {}, {}/s",
            agent.totals.records_acked,
            bytes(agent.totals.bytes_acked),
            bytes(byte_rate as u64)
        ));
        match pipeline {
            Some(p) => {
                line(format!(
                    "delivered  {} records, {read_rate:.0}/s, {} entries behind",
                    p.delivered, p.lag_entries
                ));
                line(format!(
                    "set aside  {} quarantined, {} dropped, {} gap",
                    p.quarantined, p.dropped, p.gap
                ));
            }
            None => line("delivered  the core does not answer".into()),
        }
        line(String::new());
        line(format!("{:>12} {:>10}  FILE", "RECORDS", "UNREAD"));
        let mut files: Vec<_> = agent.files.iter().collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.records_acked));
        for file in files.iter().take(12) {
            line(format!(
                "{:>12} {:>10}  {}",
                file.records_acked,
                bytes(file.unread),
                escape(&file.path)
            ));
        }
        line(String::new());
        line(format!("data       {} (table {TABLE})", self.ground.sink.target().0));
        out
    }
}
