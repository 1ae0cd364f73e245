//! The real binary under test: its folders, its configuration, its life and death.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use garam_agent::status::Status;

use crate::core::{Core, eventually};

/// A host: a folder for logs, one for state, and at most one agent.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Host {
    /// Makes the folders and a configuration; `extra` goes into the first `[[file]]` table or behind it.
    pub(crate) fn new(core: &Core, include: &str, extra: &str) -> Self {
        Self::with_ship(core, include, extra, "")
    }

    pub(crate) fn with_ship(core: &Core, include: &str, extra: &str, ship: &str) -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap(), child: None };
        std::fs::create_dir_all(host.logs()).unwrap();
        core.pki.issue_agent(&host.state().join("identity"), true);
        host.configure(core, include, extra, ship);
        host
    }

    pub(crate) fn configure(&self, core: &Core, include: &str, extra: &str, ship: &str) {
        let text = format!(
            "state_dir = {:?}\ncore = [\"{}\"]\nserver_name = \"localhost\"\n\n[ship]\npoll = \"10ms\"\nlinger = \"5ms\"\ndiscover = \"100ms\"\n{ship}\n\n[[file]]\nname = \"app\"\ninclude = [\"{}/{include}\"]\nstream = \"raw\"\n{extra}\n",
            self.state(),
            core.address,
            self.logs().display(),
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    pub(crate) fn start(&mut self) {
        self.start_as(Command::new(binary()));
    }

    /// Starts it with at most so many descriptors.
    pub(crate) fn start_with_descriptors(&mut self, most: u32) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\"")]).arg(binary());
        self.start_as(shell);
    }

    fn start_as(&mut self, mut command: Command) {
        assert!(self.child.is_none());
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("stderr"))
            .unwrap();
        let child = command
            .args(["run", "--config"])
            .arg(self.config())
            .env("GARAM_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().unwrap();
        let mut code = None;
        eventually("the agent stops", || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// How many descriptors the running agent holds.
    pub(crate) fn descriptors(&self) -> usize {
        let pid = self.child.as_ref().unwrap().id();
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    pub(crate) fn reload(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        let child = self.child.as_mut().unwrap();
        eventually("the agent ends by itself", || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        self.child = None;
        code.and_then(|status| status.code())
    }

    pub(crate) fn lose_state(&self) {
        for name in ["checkpoint", "checkpoint.prev", "checkpoint.tmp"] {
            drop(std::fs::remove_file(self.state().join(name)));
        }
    }

    pub(crate) fn status(&self) -> Option<Status> {
        garam_agent::status::fetch(&self.state()).ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- agent ---\n{}", self.stderr());
        }
    }
}

/// Runs the binary once.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_garam-agent"))
}
