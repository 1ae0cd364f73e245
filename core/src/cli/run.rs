//! `garam run`: the daemon. Opens everything eagerly, so that what cannot work is said before anything runs; then waits for
//! a signal, drains, and ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use garam_log::LogError;
use garam_proto::shown::Harmless;
use garam_stage::FailureKind;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Exit, coded};
use crate::app::{App, StartError};
use crate::config::Plan;
use crate::supervise::RootExit;

/// How long a graceful stop may take before it is cut.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn run(plan: &Plan, source: &Path) -> anyhow::Result<Exit> {
    init_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("garam-data")
        .build()
        .context("cannot start the data runtime")?;
    let exit = runtime.block_on(serve(plan, source));
    // Blocking work that is still running holds nothing that is not replayed.
    runtime.shutdown_timeout(Duration::from_secs(2));
    exit
}

async fn serve(plan: &Plan, source: &Path) -> anyhow::Result<Exit> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let app = Arc::new(App::start(plan.clone()).await.map_err(with_code)?);
    app.reads(source);
    tracing::info!(
        gateway = %app.gateway_addr(),
        admin = %plan.admin.socket.display(),
        metrics = %app.admin_addr(),
        data_dir = %plan.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "core is running"
    );
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("running")]);
    let mut watchdog = watchdog();
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Exit::Ok,
            _ = interrupt.recv() => break Exit::Ok,
            _ = hangup.recv() => drop(tokio::spawn(reload(Arc::clone(&app)))),
            exit = app.root_ended() => break gave_up(&exit),
            _ = watchdog.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping: gateway, pipelines, log");
    tokio::select! {
        late = app.stop(STOP_DEADLINE) => {
            if let Err(why) = late {
                tracing::warn!(why, "not everything stopped in time; it continues from durable state at the next start");
            }
        }
        _ = terminate.recv() => return Ok(Exit::Interrupted),
        _ = interrupt.recv() => return Ok(Exit::Interrupted),
    }
    tracing::info!("stopped");
    Ok(ended)
}

/// As `Type=notify-reload` has it: the service manager waits until it is ready again, whatever became of the change.
async fn reload(app: Arc<App>) {
    let now = sd_notify::NotifyState::monotonic_usec_now();
    match now {
        Ok(now) => notify(&[sd_notify::NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager was not told"),
    }
    let status = match app.reload().await {
        Ok(_) => "running",
        Err(_) => "running; the changed configuration is not in force, see garam status",
    };
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
}

/// The tree ended by itself: the service manager is to start the core again from durable state.
fn gave_up(exit: &RootExit) -> Exit {
    match exit {
        RootExit::Stopped { .. } => Exit::Ok,
        RootExit::Failed(fault) => {
            tracing::error!(error = %fault, advice = fault.advice, "the supervision tree gave up; ending");
            if fault.kind == Some(FailureKind::Config) { Exit::Config } else { Exit::Failed }
        }
        RootExit::Broken(fault) => {
            // Something hangs that no deadline of this process can end: waiting for it would hang with it.
            tracing::error!(error = %fault, advice = fault.advice, "the core can be neither used nor stopped; ending at once");
            std::process::exit(Exit::Failed as i32);
        }
    }
}

/// Logs to stderr, `GARAM_LOG` as filter (default `info`). A closed or full stderr never stops the core.
pub(crate) fn init_logging() {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("GARAM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .log_internal_errors(false)
        .with_writer(move || Harmless::event(std::io::stderr(), colour));
    // Only a second call in one process fails, and the first one's settings then stay.
    let _already_set = builder.try_init().is_err();
}

pub(super) fn with_code(error: StartError) -> anyhow::Error {
    let exit = match &error {
        StartError::Log(LogError::Locked { .. })
        | StartError::Bind { .. }
        | StartError::Admin(_)
        | StartError::Restoring(_) => Exit::Conflict,
        StartError::Meta(error) if error.kind() == FailureKind::Config => Exit::Config,
        StartError::Log(LogError::NewerFormat { .. }) | StartError::Pki(_) | StartError::Tls(_) => {
            Exit::Config
        }
        _ => Exit::Failed,
    };
    coded(exit, error)
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Half the time the service manager allows between signs of life; a day when it does not ask for any.
fn watchdog() -> tokio::time::Interval {
    let period =
        sd_notify::watchdog_enabled().map_or(Duration::from_secs(86_400), |limit| limit / 2);
    tokio::time::interval(period.max(Duration::from_millis(100)))
}
