//! A dimension as a child: says when its source is looked at, and answers who wants that now.
//!
//! A reading that fails ends nothing: the last good rows stay, and the next try comes in the pause that a failing source gets.
//! Reading, sorting and writing happen on a blocking thread, which ends its reading when the task does.

use std::sync::Arc;
use std::time::Duration;

use garam_dimension::{Refreshed, Shelf};
use garam_stage::{DimensionSource, Failure, Wanted};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::supervise::{Context, Factory, Fault, factory};

/// Questions waiting for one reading.
const WAITING: usize = 64;
/// The first pause after a failure; each further one doubles it, up to the dimension's own.
const FLOOR: Duration = Duration::from_secs(1);

/// What an operator is told who wants it read now.
pub type Answer = Result<Refreshed, String>;

/// The way to a dimension's task. Clones are the same.
#[derive(Clone)]
pub struct DimensionRoom {
    shelf: Arc<Shelf>,
    ask: mpsc::Sender<oneshot::Sender<Answer>>,
    /// Whoever lives now takes the questions.
    asked: Arc<Mutex<mpsc::Receiver<oneshot::Sender<Answer>>>>,
}

impl DimensionRoom {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        let (ask, asked) = mpsc::channel(WAITING);
        Self { shelf, ask, asked: Arc::new(Mutex::new(asked)) }
    }

    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Has the source read, whether it says that it changed or not. The reading begins after this is called.
    pub async fn refresh(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        let busy = |_| format!("{WAITING} others wait for the same: ask again later");
        self.ask.try_send(answer).map_err(busy)?;
        answered.await.unwrap_or_else(|_| Err("the reading was cut off: ask again".into()))
    }
}

pub fn dimension(room: DimensionRoom) -> Factory {
    factory(move |context| run(room.clone(), context))
}

async fn run(room: DimensionRoom, context: Context) -> Result<(), Fault> {
    let mut asked = room.asked.lock().await;
    let mut source = room.shelf.plan().source();
    let mut waiting: Vec<oneshot::Sender<Answer>> = Vec::new();
    let mut failures = 0;
    let mut told = None;
    loop {
        while let Ok(another) = asked.try_recv() {
            waiting.push(another);
        }
        let wanted = if waiting.is_empty() { Wanted::IfChanged } else { Wanted::Anyway };
        let Some((again, refreshed)) = read(&room.shelf, source, wanted, &context).await? else {
            return Ok(());
        };
        source = again;
        let pause = match &refreshed {
            Ok(Refreshed::Unsettled(rest)) => *rest,
            Ok(refreshed) => {
                failures = 0;
                tell(&room.shelf, refreshed, &mut told);
                pause(&room.shelf, failures)
            }
            Err(failure) => {
                failures += 1;
                tell_failure(&room.shelf, &mut told);
                let answer = failure.to_string();
                waiting.drain(..).for_each(|asker| answer_to(asker, Err(answer.clone())));
                pause(&room.shelf, failures)
            }
        };
        if let Ok(refreshed) = &refreshed
            && !matches!(refreshed, Refreshed::Unsettled(_))
        {
            waiting.drain(..).for_each(|asker| answer_to(asker, Ok(refreshed.clone())));
        }
        let _guard = context.progress.waiting("the next refresh");
        tokio::select! {
            () = context.stopping() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
            another = asked.recv() => waiting.extend(another),
        }
    }
}

type Read = (Box<dyn DimensionSource>, Result<Refreshed, Failure>);

/// One reading, and the source back; `None` when the task is asked to stop meanwhile.
async fn read(
    shelf: &Arc<Shelf>,
    mut source: Box<dyn DimensionSource>,
    wanted: Wanted,
    context: &Context,
) -> Result<Option<Read>, Fault> {
    let _guard = context.progress.waiting("its source");
    let shelf = Arc::clone(shelf);
    // Dropped with this future, whatever ends it; then the reading ends at its next step.
    let (alive, mut gone) = watch::channel(());
    let runtime = tokio::runtime::Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                refreshed = shelf.refresh(&mut *source, wanted) => Some((source, refreshed)),
                _ = gone.changed() => None,
            }
        })
    });
    let read = tokio::select! {
        read = reading => read,
        () = context.stopping() => return Ok(None),
    };
    drop(alive);
    read.map_err(|error| Fault::internal(format!("a reading broke: {error}")))
}

/// When the source is looked at next.
fn pause(shelf: &Shelf, failures: u32) -> Duration {
    let plan = shelf.plan();
    if failures > 0 {
        let grown = FLOOR.saturating_mul(1 << failures.saturating_sub(1).min(16));
        return grown.min(plan.refresh).mul_f64(0.75 + fastrand::f64() * 0.5);
    }
    if plan.source.is_query() {
        // Cores that started together do not ask together.
        return plan.refresh.mul_f64(0.9 + fastrand::f64() * 0.2);
    }
    plan.refresh
}

fn tell(shelf: &Shelf, refreshed: &Refreshed, told: &mut Option<String>) {
    let dimension = shelf.name();
    if told.take().is_some() {
        tracing::info!(dimension, "dimension is read again");
    }
    if let Refreshed::Swapped { id, rows } = refreshed {
        tracing::info!(dimension, rows, snapshot = %id, "dimension is swapped");
    }
}

/// Each cause once, however often it is met.
fn tell_failure(shelf: &Shelf, told: &mut Option<String>) {
    let figures = shelf.figures();
    let what = figures.trouble.map(|trouble| trouble.what).unwrap_or_default();
    if told.as_ref() == Some(&what) {
        return;
    }
    let dimension = shelf.name();
    match figures.age {
        Some(age) => tracing::warn!(
            dimension,
            error = what,
            age_s = age.as_secs(),
            "cannot refresh dimension: its last good rows are used"
        ),
        None => tracing::error!(
            dimension,
            error = what,
            action = "remove the cause: pipelines that join it wait until it was read once",
            "cannot read dimension, and no rows of it are kept"
        ),
    }
    *told = Some(what);
}

/// Whoever asked may have gone.
fn answer_to(asker: oneshot::Sender<Answer>, answer: Answer) {
    let _told_or_gone = asker.send(answer).is_ok();
}
