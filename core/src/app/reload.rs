//! Takes another configuration while the core runs: SIGHUP, `garam reload`.
//!
//! In: the configuration's files, read anew. Out: the branches of pipelines that changed, ended at a batch boundary and begun by the
//! new plan; streams, limits and policies in place. Promise: everything that can be refused is refused before anything is
//! changed (`config::change`, the destinations of what changes); a pipeline that is not changed is not touched; plans are
//! durable before they are used; one reload at a time, and whoever asked for it may leave.
//! Not here: what may change (`config::change`), how a flow ends at a batch boundary (`flow`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use garam_log::{EmbeddedLog, Log as _, LogError, StreamConfig};
use garam_meta::{Meta, MetaError};
use garam_stage::{Failure, FailureKind};
use tokio::time::Instant;

use super::build::{self, Ground, Pipeline};
use super::observe::Shown;
use crate::actors::log::{LogNeeds, pin};
use crate::admin::Unapplied;
use crate::admin::answers::ReloadAnswer;
use crate::config::change::{Change, Changes, Definition, Verdict, compare};
use crate::config::{self, Config, ConfigError, PipelinePlan, Plan, Target};
use crate::gateway::wall_clock_us;
use crate::supervise::{ControlError, SupervisionHandle, pipeline as pipeline_branch};

/// How long a destination may take to say whether a changed pipeline fits; one that does not answer is found later.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a branch may take to be gone: its tasks have deadlines of their own.
const GONE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
const PIPELINES: &str = "data/pipelines";

/// Why a changed configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum NotReloaded {
    #[error("this core was started without a file that could be read again")]
    NoFile,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("nothing was changed. {}", .0.join("; "))]
    Refused(Vec<String>),
    #[error("nothing was changed. pipeline {pipeline} would not deliver: {failure}")]
    Unfit { pipeline: String, failure: Failure },
    #[error("nothing was changed. {0}")]
    Meta(#[from] MetaError),
    #[error("cannot change the log's streams: {0}; the pipelines run on as they were")]
    Log(#[from] LogError),
    #[error("nothing was changed. The log is being opened: try again")]
    NoLog,
    #[error("pipeline {pipeline} was stopped or is new, and does not run: {why}; restart the core")]
    HalfWay { pipeline: String, why: String },
    #[error("the reload broke: see the log, and restart the core")]
    Broke,
}

impl From<NotReloaded> for Unapplied {
    fn from(error: NotReloaded) -> Self {
        let text = error.to_string();
        match error {
            NotReloaded::Config(_) => Self::Config(text),
            NotReloaded::Refused(_) | NotReloaded::Unfit { .. } | NotReloaded::NoFile => {
                Self::Refused(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

/// What a reload changes, and what it knows of the core as it runs.
pub(super) struct Reloader {
    ground: Ground,
    supervision: SupervisionHandle,
    log_needs: Arc<Mutex<LogNeeds>>,
    shown: Arc<Shown>,
    source: OnceLock<PathBuf>,
    running: tokio::sync::Mutex<Running>,
    definition: RwLock<Definition>,
    last: Mutex<Option<ReloadAnswer>>,
}

/// What the core runs by.
pub(super) struct Running {
    pub(super) plan: Plan,
    pub(super) pipelines: Vec<Pipeline>,
}

impl Reloader {
    pub(super) fn new(
        ground: Ground,
        supervision: SupervisionHandle,
        log_needs: Arc<Mutex<LogNeeds>>,
        shown: Arc<Shown>,
        running: Running,
    ) -> Self {
        let definition = RwLock::new(Definition::of(&running.plan));
        let (source, last) = (OnceLock::new(), Mutex::default());
        let running = tokio::sync::Mutex::new(running);
        Self { ground, supervision, log_needs, shown, source, running, definition, last }
    }

    /// Says which file is read again.
    pub(super) fn reads(&self, source: PathBuf) {
        // Named once, at the start of the process.
        let _first = self.source.set(source).is_ok();
    }

    pub(super) fn definition(&self) -> Definition {
        self.definition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the newest reload went.
    pub(super) fn last(&self) -> Option<ReloadAnswer> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files and carries out what changed. It goes on when whoever asked has left.
    pub(super) async fn reload(self: &Arc<Self>) -> Result<Changes, NotReloaded> {
        let reloader = Arc::clone(self);
        let reload = async move {
            let mut running = reloader.running.lock().await;
            let outcome = reloader.read_and_take(&mut running).await;
            reloader.note(&outcome);
            outcome
        };
        tokio::spawn(reload).await.unwrap_or(Err(NotReloaded::Broke))
    }

    async fn read_and_take(&self, running: &mut Running) -> Result<Changes, NotReloaded> {
        let source = self.source.get().ok_or(NotReloaded::NoFile)?;
        let snapshots = running.plan.snapshots.clone();
        let read = config::load(source);
        let mut plan = read.and_then(|config: Config| config.check_with(snapshots))?;
        let mut changes = compare(&self.definition(), &Definition::of(&plan));
        for name in with_another_secret(&running.plan, &plan) {
            changes.note_secret(&name);
        }
        match changes.verdict {
            Verdict::Unchanged => return Ok(changes),
            Verdict::Applies => {}
            Verdict::Restart | Verdict::Refused => {
                return Err(NotReloaded::Refused(changes.refusals()));
            }
        }
        keep_refiners(&running.plan, &mut plan);
        let new = self.made(&changes, running, &plan).await?;
        let log = self.ground.log.peek().ok_or(NotReloaded::NoLog)?;
        self.prepare_log(&log, &plan, &new).await?;
        self.ground.registrar.policies.set(&plan.policies);
        self.carry_out(&log, &changes, running, plan, new).await?;
        Ok(changes)
    }

    /// The pipelines that are new or changed, known to the metadata and fit for their destinations.
    async fn made(
        &self,
        changes: &Changes,
        running: &Running,
        plan: &Plan,
    ) -> Result<Vec<Pipeline>, NotReloaded> {
        let mut names = changes.pipelines(Change::Changed);
        names.extend(changes.pipelines(Change::Added));
        let wanted: Vec<_> = plan.pipelines.iter().filter(|p| names.contains(&p.name)).collect();
        for configured in &wanted {
            fits(configured).await?;
        }
        let mut made = Vec::new();
        for configured in wanted {
            let Some(stream) = plan.stream(&configured.from) else { continue };
            let mut pipeline = build::pipeline(plan, configured, stream, &self.ground.meta).await?;
            if let Some(before) = running.pipelines.iter().find(|p| p.name == pipeline.name) {
                pipeline.inherit(before);
            }
            made.push(pipeline);
        }
        Ok(made)
    }

    /// Opens what is new and sets limits, before anybody needs them.
    async fn prepare_log(
        &self,
        log: &EmbeddedLog,
        plan: &Plan,
        new: &[Pipeline],
    ) -> Result<(), NotReloaded> {
        let own = new.iter().flat_map(Pipeline::own_streams);
        for stream in plan.streams.iter().map(build::log_stream).chain(own) {
            open_or_change(log, stream).await?;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        log: &EmbeddedLog,
        changes: &Changes,
        running: &mut Running,
        plan: Plan,
        new: Vec<Pipeline>,
    ) -> Result<(), NotReloaded> {
        let (changed, removed) =
            (changes.pipelines(Change::Changed), changes.pipelines(Change::Removed));
        let ended = self.end(&changed | &removed).await;
        for gone in running.pipelines.iter().filter(|p| removed.contains(&p.name)) {
            // What waits in its quarantine stays: nobody but an operator lets that go.
            let of_input = gone.readers().into_iter().filter(|r| r.partition.stream == gone.stream);
            of_input.for_each(|reader| log.unpin(&reader.partition, &reader.name));
        }
        let added = changes.pipelines(Change::Added);
        let mut started = Ok(());
        for pipeline in new.iter().filter(|pipeline| !ended.is_late(&pipeline.name)) {
            if added.contains(&pipeline.name) {
                pin(log, &pipeline.readers());
            }
            let room = build::pipeline_room(&self.ground, pipeline);
            let branch = pipeline_branch(room, self.ground.patience);
            if let Err(error) = self.supervision.add(PIPELINES, branch).await {
                let (pipeline, why) = (pipeline.name.clone(), error.to_string());
                started = Err(NotReloaded::HalfWay { pipeline, why });
            }
        }
        running.pipelines.retain(|p| !changed.contains(&p.name) && !removed.contains(&p.name));
        running.pipelines.extend(new);
        running.pipelines.sort_by(|a, b| a.name.cmp(&b.name));
        running.plan = plan;
        let needs = build::log_needs(&running.plan, &running.pipelines);
        *self.log_needs.lock().unwrap_or_else(PoisonError::into_inner) = needs;
        self.shown.set(&running.plan, &running.pipelines);
        let definition = Definition::of(&running.plan);
        record(&self.ground.meta, &definition).await;
        *self.definition.write().unwrap_or_else(PoisonError::into_inner) = definition;
        ended.outcome().and(started)
    }

    /// Ends branches, each behind the batch in its hands.
    async fn end(&self, names: BTreeSet<String>) -> Ended {
        let mut left: BTreeSet<String> = BTreeSet::new();
        let mut ended = Ended::default();
        for name in names {
            match self.supervision.remove(&format!("{PIPELINES}/{name}")).await {
                Ok(()) => drop(left.insert(name)),
                Err(ControlError::NoSuchChild { .. }) => {}
                Err(error) => ended.late.push((name, error.to_string())),
            }
        }
        let deadline = Instant::now() + GONE;
        while !left.is_empty() && Instant::now() < deadline {
            if let Ok(tree) = self.supervision.snapshot().await {
                left.retain(|name| tree.at(&format!("{PIPELINES}/{name}")).is_some());
            }
            if !left.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
        let late = |name| (name, format!("it did not end within {GONE:?}"));
        ended.late.extend(left.into_iter().map(late));
        ended
    }

    fn note(&self, outcome: &Result<Changes, NotReloaded>) {
        let error = outcome.as_ref().err().map(ToString::to_string);
        if let Some(error) = &error {
            let action = "correct it and look with `garam check`; the core runs on as before";
            tracing::error!(error, action, "the changed configuration is not in force");
        }
        if let Ok(changes) = outcome {
            for item in changes.items.iter().filter(|item| item.change != Change::Unchanged) {
                let (what, name, change) = (item.what.name(), &item.name, item.change.name());
                tracing::info!(what, name, change, effect = item.effect, "reloaded");
            }
            tracing::info!(verdict = ?changes.verdict, "the configuration was read again");
        }
        let answer = ReloadAnswer { at_us: wall_clock_us(), error };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

/// Which branches would not end.
#[derive(Default)]
struct Ended {
    late: Vec<(String, String)>,
}

impl Ended {
    fn is_late(&self, name: &str) -> bool {
        self.late.iter().any(|(late, _)| late == name)
    }

    fn outcome(self) -> Result<(), NotReloaded> {
        match self.late.into_iter().next() {
            Some((pipeline, why)) => Err(NotReloaded::HalfWay { pipeline, why }),
            None => Ok(()),
        }
    }
}

/// Notes what the core runs by, for `garam check` of a core that does not run. It keeps nobody from working.
pub(super) async fn record(meta: &Meta, definition: &Definition) {
    let noted = match definition.to_text() {
        Ok(text) => meta.define(&text).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = noted {
        tracing::warn!(
            error,
            "what the core runs by was not noted: `garam check` compares with older"
        );
    }
}

/// Refuses a pipeline that its destination would refuse. One that is away may come back, and is asked again by the flow.
async fn fits(configured: &PipelinePlan) -> Result<(), NotReloaded> {
    let schema = configured.refining.schema();
    let pipeline = configured.name.clone();
    match tokio::time::timeout(ANSWER, configured.to.connect(&schema)).await {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) if is_final(failure.kind) => {
            return Err(NotReloaded::Unfit { pipeline, failure });
        }
        Ok(Err(failure)) => {
            tracing::warn!(pipeline, error = %failure, "its destination cannot be looked at now");
        }
        Err(_) => tracing::warn!(pipeline, "its destination does not answer now"),
    }
    Ok(())
}

fn is_final(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Schema | FailureKind::Refused | FailureKind::Config)
}

async fn open_or_change(log: &EmbeddedLog, stream: StreamConfig) -> Result<(), LogError> {
    let is_open = log.streams().iter().any(|(name, _)| *name == stream.name);
    if is_open { log.change_stream(stream).await } else { log.add_stream(stream).await }
}

/// A stream whose contract stays keeps its refiner: pipelines that are not touched go on with it.
fn keep_refiners(before: &Plan, after: &mut Plan) {
    for stream in &mut after.streams {
        if let Some(old) = before.stream(&stream.name).filter(|old| old.contract == stream.contract)
        {
            stream.refiner = Arc::clone(&old.refiner);
        }
    }
}

/// Pipelines whose destination differs in what no definition holds.
fn with_another_secret(before: &Plan, after: &Plan) -> Vec<String> {
    let other = |old: &Target, new: &Target| match (old, new) {
        (Target::Sink(old), Target::Sink(new)) => old != new,
        _ => false,
    };
    let differs = |new: &&PipelinePlan| {
        before.pipelines.iter().any(|old| old.name == new.name && other(&old.to, &new.to))
    };
    after.pipelines.iter().filter(differs).map(|pipeline| pipeline.name.clone()).collect()
}
