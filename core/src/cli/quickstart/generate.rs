//! A synthetic application log: numbered lines at a steady rate into a real file that rotates by rename.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A file is rotated at this size.
const ROTATE_BYTES: u64 = 16 * 1024 * 1024;
/// Rotated files kept.
const KEEP: u32 = 8;
/// How often a batch of lines is written.
const TICK: Duration = Duration::from_millis(20);

pub(super) struct Generator {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Generator {
    pub(super) fn start(folder: &Path, rate: u32) -> std::io::Result<Self> {
        let mut log = RotatingLog::open(folder)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("generate".into()).spawn(move || {
            let begun = Instant::now();
            let mut written = 0u64;
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                while written < due {
                    log.line(written)?;
                    written += 1;
                }
                log.flush()?;
            }
            log.flush()
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops and waits; everything written is in the file.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => anyhow::bail!("it panicked"),
        }
    }
}

struct RotatingLog {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
}

impl RotatingLog {
    fn open(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("app.log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file: BufWriter::new(file), size })
    }

    fn line(&mut self, number: u64) -> std::io::Result<()> {
        let user = fastrand::u32(1..100_000);
        let took = fastrand::u32(1..2_000);
        let status = if fastrand::u32(0..50) == 0 { 500 } else { 200 };
        let now = jiff::Timestamp::now();
        let line = format!(
            "{now:.3} INFO shop.checkout request={number} user={user} status={status} took_ms={took} path=/cart/{}\n",
            user % 977
        );
        self.size += line.len() as u64;
        self.file.write_all(line.as_bytes())?;
        if self.size >= ROTATE_BYTES {
            self.rotate()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        self.flush()?;
        let numbered = |n: u32| self.path.with_extension(format!("log.{n}"));
        for n in (1..KEEP).rev() {
            match std::fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.file = BufWriter::new(OpenOptions::new().create(true).append(true).open(&self.path)?);
        self.size = 0;
        Ok(())
    }
}
