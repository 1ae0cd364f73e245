//! `garam-soak trace`: runs a program and strikes at exactly one of the calls with which it changes its state.
//!
//! In: a program, the files and folders that are its state, which calls are spared, a fault. Out: a report, one line per call.
//! Promise: a call is known by its *site*: its name, what kind of file it is about, and how many of this sort came before it
//! in **all threads** together. What differs from run to run in a file's name is left out ([`site`]), so a site names the same
//! call in every run. The first call whose site is not spared is struck, and no other. (`strace -e inject` counts per thread:
//! which thread comes first to its N-th write is chance.) A kill strikes when the kernel is entered: the call is not carried
//! out, all before it are. The traced program ends with the tracer. Not here: which runs are made, and what must hold
//! afterwards (`scenario::crash_points`).
//!
//! ```text
//! pid 4711
//! mkdir core/log 1
//! fsync core 1
//! pwrite64 core/log/soak/*/*.seg 1 hit
//! ```

mod calls;
mod site;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use calls::Call;
use site::Sites;

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// The process is killed instead.
    Kill,
    /// Half of what should be written is, then the process is killed; what is no write is done before the kill.
    Tear,
    /// The call fails: input/output error.
    Eio,
    /// The call fails: no space left.
    Enospc,
}

impl Fault {
    /// As the command line takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Tear => "tear",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file or folder whose changes count; a name with -suffix belongs to it (SQLite).
    #[arg(long, required = true)]
    state: Vec<PathBuf>,
    /// Where the calls are listed.
    #[arg(long)]
    report: PathBuf,
    /// Strike at the first call whose site is not in this file, one a line; without it, only list them.
    #[arg(long)]
    spare: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "kill")]
    fault: Fault,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

const ENTRY: u8 = libc::PTRACE_SYSCALL_INFO_ENTRY;

/// Runs the program to its end. Gives its exit code; 128 + signal when one ended it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = start(&args.command)?;
    let mut report = File::create(&args.report)
        .with_context(|| format!("cannot create {}", args.report.display()))?;
    writeln!(report, "pid {root}")?;
    let spared = args.spare.as_deref().map(read_lines).transpose()?;
    let sites = Sites::of(&args.state);
    let mut tracer =
        Tracer { fault: args.fault, root, report, sites, spared, failing: HashMap::new() };
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).context("cannot wait")?;
        match status {
            WaitStatus::Exited(pid, code) if pid == root => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == root => {
                return Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1)));
            }
            WaitStatus::PtraceSyscall(pid) => {
                // A thread that was killed meanwhile has no registers any more.
                if let Err(error) = tracer.stopped_at_a_call(pid) {
                    gone_is_fine(error)?;
                }
                go_on(pid, None)?;
            }
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal))?,
            // A new thread, a new program, or the stop that the shell gave itself.
            WaitStatus::PtraceEvent(pid, ..) => go_on(pid, None)?,
            _ => {}
        }
    }
}

/// Starts the program stopped, takes hold of it, and lets it go. A shell that stops itself needs no unsafe code.
fn start(command: &[String]) -> anyhow::Result<Pid> {
    let (program, _) = command.split_first().context("no program")?;
    let child = Command::new("/bin/sh")
        .arg0("garam-soak-traced")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .args(command)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    anyhow::ensure!(matches!(stopped, WaitStatus::Stopped(..)), "{program} did not wait");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options)
        .context("cannot trace: the kernel or a container forbids ptrace")?;
    kill(pid, Signal::SIGCONT)?;
    Ok(pid)
}

fn go_on(pid: Pid, signal: Option<Signal>) -> anyhow::Result<()> {
    match ptrace::syscall(pid, signal) {
        Err(nix::Error::ESRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error).context("cannot go on"),
    }
}

fn gone_is_fine(error: anyhow::Error) -> anyhow::Result<()> {
    match error.downcast_ref::<nix::Error>() {
        Some(nix::Error::ESRCH) => Ok(()),
        _ => Err(error),
    }
}

fn read_lines(path: &Path) -> anyhow::Result<HashSet<String>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

struct Tracer<'a> {
    fault: Fault,
    root: Pid,
    report: File,
    sites: Sites<'a>,
    /// None: nothing is struck any more.
    spared: Option<HashSet<String>>,
    /// Threads inside the call that was struck, and what their call shall answer; none: it dies after it.
    failing: HashMap<Pid, Option<i32>>,
}

impl Tracer<'_> {
    fn stopped_at_a_call(&mut self, pid: Pid) -> anyhow::Result<()> {
        if ptrace::syscall_info(pid)?.op == ENTRY { self.entered(pid) } else { self.left(pid) }
    }

    fn entered(&mut self, pid: Pid) -> anyhow::Result<()> {
        let mut registers = ptrace::getregs(pid)?;
        let Some(call) = Call::of(pid, &registers) else { return Ok(()) };
        let Some(site) = self.sites.next(&call) else { return Ok(()) };
        let struck = self.spared.as_ref().is_some_and(|spared| !spared.contains(&site));
        let mark = if struck { " hit" } else { "" };
        writeln!(self.report, "{site}{mark}")?;
        if !struck {
            return Ok(());
        }
        self.spared = None;
        let errno = match self.fault {
            Fault::Kill => return Ok(kill(self.root, Signal::SIGKILL)?),
            Fault::Tear => {
                if call.is_write {
                    registers.rdx /= 2;
                    ptrace::setregs(pid, registers)?;
                }
                self.failing.insert(pid, None);
                return Ok(());
            }
            Fault::Eio => libc::EIO,
            Fault::Enospc => libc::ENOSPC,
        };
        // No call has this number: the kernel does nothing, and the answer is written over when it leaves.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(pid, registers)?;
        self.failing.insert(pid, Some(errno));
        Ok(())
    }

    fn left(&mut self, pid: Pid) -> anyhow::Result<()> {
        match self.failing.remove(&pid) {
            None => Ok(()),
            Some(None) => Ok(kill(self.root, Signal::SIGKILL)?),
            Some(Some(errno)) => {
                let mut registers = ptrace::getregs(pid)?;
                registers.rax = i64::from(-errno).cast_unsigned();
                Ok(ptrace::setregs(pid, registers)?)
            }
        }
    }
}
