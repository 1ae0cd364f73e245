//! A process of the product: started, looked at, killed or stopped by its handle.
//!
//! In: a program and its configuration. Out: what it used and how it ended. Promise: every process has a group of its own, is
//! ended by its own id and never by name, and does not outlive its handle. What it says goes to a file that is shown when a
//! run fails.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::tracer::Fault;

/// How long a process may take to stop when asked.
const STOPPING: Duration = Duration::from_secs(60);
/// Linux counts processor time for user space in hundredths of a second, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    /// Under a tracer: where it says which process it runs.
    report: Option<PathBuf>,
}

/// How a process is run under the tracer of this program.
#[derive(Debug, Clone)]
pub(crate) struct Tracing {
    /// What counts as state.
    pub(crate) state: Vec<PathBuf>,
    pub(crate) report: PathBuf,
    /// A file of the sites that are spared, and what happens at the first other one.
    pub(crate) strike: Option<(PathBuf, Fault)>,
}

/// What a traced program did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// The sites in the order of the calls, up to the struck one: what comes behind it is its consequence.
    pub(crate) made: Vec<String>,
    pub(crate) struck: Option<String>,
}

impl Tracing {
    /// The program as it is called, without arguments of its own.
    pub(crate) fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("trace").arg("--report").arg(&self.report);
        for state in &self.state {
            command.arg("--state").arg(state);
        }
        if let Some((spare, fault)) = &self.strike {
            command.arg("--spare").arg(spare).arg("--fault").arg(fault.name());
        }
        command.arg("--").arg(program);
        Ok(command)
    }

    /// The calls it has listed so far.
    pub(crate) fn calls(&self) -> anyhow::Result<Calls> {
        let report = std::fs::read_to_string(&self.report).context("there is no trace")?;
        Ok(parse_calls(&report))
    }
}

fn parse_calls(report: &str) -> Calls {
    let mut calls = Calls::default();
    // A line without an end is still being written.
    let whole = report.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines().skip(1) {
        let struck = line.strip_suffix(" hit");
        calls.made.push(struck.unwrap_or(line).to_owned());
        if let Some(site) = struck {
            calls.struck = Some(site.to_owned());
            break;
        }
    }
    calls
}

/// Processor time and memory of a process so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    /// The most memory it ever held.
    pub(crate) peak_mib: f64,
    /// What it holds now.
    pub(crate) resident_mib: f64,
}

impl Process {
    /// Runs `program run --config config`, perhaps under a tracer; stderr is appended to `log`.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        config: &Path,
        tracing: Option<&Tracing>,
        environment: &[(&str, OsString)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let stderr = File::options().create(true).append(true).open(log)?;
        let mut command = match tracing {
            None => Command::new(program),
            Some(tracing) => tracing.command(program)?,
        };
        let child = command
            .arg("run")
            .arg("--config")
            .arg(config)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name, child, report: tracing.map(|tracing| tracing.report.clone()) })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error when the process has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the {} ended by itself ({status})", self.name),
        }
    }

    /// `kill -9`, and waits until it is gone. A process that had ended before is an error: nobody asked it to.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.check()?;
        Ok(self.child.kill().await?)
    }

    /// Asks it to stop. Anything but a clean end in time is an error.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        kill_process(self.target()?, Signal::TERM)?;
        let name = self.name;
        let Ok(status) = tokio::time::timeout(STOPPING, self.child.wait()).await else {
            self.child.kill().await?;
            anyhow::bail!("the {name} did not stop within {STOPPING:?} and was killed");
        };
        let status: ExitStatus = status?;
        anyhow::ensure!(status.success(), "the {name} was asked to stop and ended with {status}");
        Ok(())
    }

    /// Stops it where it stands.
    pub(crate) fn freeze(&mut self) -> anyhow::Result<()> {
        self.check()?;
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Lets it go on where it stood.
    pub(crate) fn thaw(&mut self) -> anyhow::Result<()> {
        self.check()?;
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Whether none of its threads does anything of its own: each is stopped, or in a call that it will not come back from.
    pub(crate) fn is_frozen(&self) -> anyhow::Result<bool> {
        let pid = self.pid()?.as_raw_nonzero();
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if !matches!(state, Some('T' | 'D')) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.pid()?.as_raw_nonzero();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let what = || format!("/proc/{pid} is not as it should be");
        Ok(Usage {
            cpu_s: cpu_seconds(&stat).with_context(what)?,
            peak_mib: mib(&status, "VmHWM:").with_context(what)?,
            resident_mib: mib(&status, "VmRSS:").with_context(what)?,
        })
    }

    /// Asks it to read its configuration again.
    pub(crate) fn hang_up(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.target()?, Signal::HUP)?)
    }

    /// How many descriptors it holds.
    pub(crate) fn descriptors(&self) -> anyhow::Result<u64> {
        let pid = self.pid()?.as_raw_nonzero();
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
    }

    /// Whom to ask: under a tracer the program it runs.
    fn target(&self) -> anyhow::Result<Pid> {
        let Some(report) = &self.report else { return self.pid() };
        let report = std::fs::read_to_string(report).context("the tracer has not begun")?;
        let pid = report.lines().next().and_then(|line| line.strip_prefix("pid "));
        let pid = pid.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        pid.context("the tracer does not say whom it traces")
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let raw = self.child.id().and_then(|id| i32::try_from(id).ok());
        raw.and_then(Pid::from_raw).with_context(|| format!("the {} has ended", self.name))
    }
}

/// The end of a log, for a failed run.
pub(crate) fn last_lines(log: &Path, count: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(count)).map(|line| format!("  {line}\n")).collect()
}

/// User and system time.
fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

/// Processor time of a process and of its children, those that have ended included.
pub(crate) fn family_cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(each) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between two looks.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{each}/stat")) else { continue };
        let is_child = field(&stat, 4) == Some(f64::from(pid));
        if each == pid {
            let ended = field(&stat, 16).zip(field(&stat, 17)).context("no times in /proc")?;
            sum += (ended.0 + ended.1) / TICKS_PER_SECOND;
        }
        if is_child || each == pid {
            sum += cpu_seconds(&stat).context("no times in /proc")?;
        }
    }
    Ok(sum)
}

/// A field of `/proc/PID/stat`, counted behind the name, which may hold anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn mib(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_behind_a_hostile_name() {
        let stat = "17 (a ) b) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 9";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(mib("Name:\tx\nVmHWM:\t    2048 kB\n", "VmHWM:"), Some(2.0));
        assert_eq!(cpu_seconds("nothing"), None);
    }

    #[test]
    fn what_comes_behind_the_struck_call_is_its_consequence() {
        let calls = parse_calls("pid 7\nmkdir core 1\nfsync core 1 hit\nunlink core/x 1\n");
        assert_eq!(calls.made, ["mkdir core 1", "fsync core 1"]);
        assert_eq!(calls.struck.as_deref(), Some("fsync core 1"));
        let begun = parse_calls("pid 7\nmkdir core 1\nfsync co");
        assert_eq!(begun, Calls { made: vec!["mkdir core 1".into()], struck: None });
    }

    #[tokio::test]
    async fn a_process_that_ends_by_itself_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        let program = Path::new("/bin/sh");
        let mut process =
            Process::start("shell", program, Path::new("x"), None, &[], &log).unwrap();
        process.child.wait().await.unwrap();
        assert!(process.check().unwrap_err().to_string().contains("ended by itself"));
        assert!(!last_lines(&log, 3).is_empty(), "its words are kept");
    }
}
