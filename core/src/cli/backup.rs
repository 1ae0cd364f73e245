//! `garam backup`, `garam verify`, `garam restore`: a copy of everything the core keeps, its proof, and the way back.
//!
//! In: folders. Out: a backup, what is wrong with one, a data folder that is ready for `garam run`. Promise: nothing that
//! exists is overwritten; a restore shows its plan and asks. Not here: what is copied and checked (`backup`).

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use garam_log::embedded::Env;
use garam_meta::MetaError;
use serde_json::json;

use super::confirm::{Answer, Consent, confirm};
use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format, Table, bytes};
use crate::backup::manifest::Manifest;
use crate::backup::restore::{self, Targets};
use crate::backup::{BackupError, verify, write};
use crate::config::Plan;
use crate::gateway::wall_clock_us;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam backup /backup/garam-monday\n  garam backup /backup/garam-monday -o json\n\n\
The core may run. Holds metadata, certificates with their keys, and the log from the slowest cursor on; not the destinations.\n\
Exit codes: 0 whole and synced, 1 failed or the log is damaged, 6 the folder exists, 78 files of a newer version."
)]
pub(crate) struct Backup {
    /// A folder that does not exist yet.
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: garam verify /backup/garam-monday\n\nReads every byte and every entry; nothing is written.\n\
Exit codes: 0 sound, 1 damaged, 78 of a newer version."
)]
pub(crate) struct Verify {
    /// The folder of a backup.
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  garam restore /backup/garam-monday --dry-run\n  garam restore /backup/garam-monday --yes\n\n\
Into the data_dir of the configuration, which must be empty; the core must be stopped. The backup is verified first.\n\
Exit codes: 0 restored, 1 the backup is damaged, 2 consent missing, 6 the data_dir is not empty, 78 of a newer version."
)]
pub(crate) struct Restore {
    /// The folder of a backup.
    dir: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn backup(plan: &Plan, args: &Backup, format: Format) -> anyhow::Result<Exit> {
    if !plan.meta_path().try_exists()? {
        let text = format!("nothing to back up: there is no {}", plan.meta_path().display());
        return Err(coded(Exit::NotFound, anyhow!("{text}; has the core run here?")));
    }
    if args.dir.try_exists()? {
        return Err(with_code(BackupError::Exists(args.dir.clone())));
    }
    private();
    let dir = absolute(&args.dir)?;
    let env = Env::default();
    let parent = dir.parent().unwrap_or(Path::new("/"));
    env.fs.create_dir(parent)?;
    let copied = CopyOfMeta::take(plan, &dir).map_err(with_code)?;
    let sources = write::Sources {
        summary: super::block_on(async { Ok(garam_meta::inspect_copy(&copied.0).await?) })?,
        meta: copied.0.clone(),
        pki: plan.pki_dir.clone(),
        log: plan.log_dir(),
        taken_us: wall_clock_us(),
    };
    let mut shown = Shown::new("copied");
    let manifest = write::write(&env, &sources, &dir, &mut |done, of| shown.at(done, of))
        .map_err(with_code)?;
    shown.finish();
    drop(copied);
    let value = json!({"backup": dir, "manifest": summary(&manifest)});
    output::print(format, &value, &table(&manifest, "copied"))?;
    Ok(Exit::Ok)
}

pub(crate) fn verify(args: &Verify, format: Format) -> anyhow::Result<Exit> {
    let mut shown = Shown::new("read");
    let checked = verify::verify(&Env::default(), &args.dir, &mut |done, of| shown.at(done, of));
    shown.finish();
    let (manifest, mut faults) = checked.map_err(with_code)?;
    faults.extend(fault_of_meta(&args.dir, &manifest)?);
    let mut shown = table(&manifest, if faults.is_empty() { "sound" } else { "see below" });
    for fault in &faults {
        let blank = String::new;
        shown.row([fault.file.clone(), blank(), blank(), blank(), fault.why.clone()]);
    }
    let value = json!({"ok": faults.is_empty(), "faults": faults, "manifest": summary(&manifest)});
    output::print(format, &value, &shown)?;
    Ok(if faults.is_empty() { Exit::Ok } else { Exit::Failed })
}

pub(crate) fn restore(plan: &Plan, args: &Restore, format: Format) -> anyhow::Result<Exit> {
    private();
    let env = Env::default();
    let targets = Targets { data_dir: plan.data_dir.clone(), pki_dir: plan.pki_dir.clone() };
    let mut shown = Shown::new("read");
    let planned = restore::plan(&env, &args.dir, &targets, &mut |done, of| shown.at(done, of));
    shown.finish();
    let manifest = planned.map_err(with_code)?;
    if fault_of_meta(&args.dir, &manifest)?.is_some() {
        return Err(with_code(BackupError::Damaged { path: args.dir.clone(), faults: 1 }));
    }
    eprintln_quietly(&format!(
        "{} files, {} go to {}; each of {} partitions begins a new life; agents send again what came after the backup, \
         destinations that are ahead of it stop with choices (`garam resume`)",
        manifest.files.len(),
        bytes(manifest.bytes()),
        targets.data_dir.display(),
        manifest.partitions.len(),
    ));
    let mut lives = Vec::new();
    let name = targets.data_dir.display().to_string();
    let restored = confirm(&name, args.consent)? == Answer::Go;
    if restored {
        let mut shown = Shown::new("copied");
        let done = &mut |done, of| shown.at(done, of);
        lives = restore::restore(&env, &args.dir, &manifest, &targets, done).map_err(with_code)?;
        shown.finish();
    }
    let state = if restored { "restored" } else { "not restored: this is the plan" };
    let value = json!({
        "restored": restored, "data_dir": targets.data_dir, "partitions": lives,
        "manifest": summary(&manifest),
    });
    output::print(format, &value, &table(&manifest, state))?;
    Ok(Exit::Ok)
}

/// A copy of the metadata beside the backup to come, gone when this value is.
struct CopyOfMeta(PathBuf);

impl CopyOfMeta {
    fn take(plan: &Plan, dir: &Path) -> Result<Self, BackupError> {
        let mut name = write::partial_name(dir).into_os_string();
        name.push(".meta");
        let copy = Self(name.into());
        copy.remove();
        let copied = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let copied = copied.map_err(|source| BackupError::Io {
            action: "start a runtime for",
            path: copy.0.clone(),
            source,
        })?;
        copied.block_on(garam_meta::copy_file(&plan.meta_path(), &copy.0))?;
        Ok(copy)
    }

    fn remove(&self) {
        // Absent is as good as removed, and a leftover is replaced the next time.
        let _gone = std::fs::remove_file(&self.0).is_ok();
    }
}

impl Drop for CopyOfMeta {
    fn drop(&mut self) {
        self.remove();
    }
}

/// What SQLite finds wrong with the metadata, or that it is of another installation than the list says.
fn fault_of_meta(dir: &Path, manifest: &Manifest) -> anyhow::Result<Option<verify::Fault>> {
    let fault = |why: String| Some(verify::Fault { file: "meta.db".into(), why });
    let path = dir.join("meta.db");
    if !path.try_exists()? {
        return Ok(fault("it is missing".into()));
    }
    match super::block_on(async { Ok(garam_meta::inspect_copy(&path).await) })? {
        Ok(summary) if summary.cluster == manifest.cluster => Ok(None),
        Ok(_) => Ok(fault("it is of another cluster than the MANIFEST".into())),
        Err(error @ MetaError::NewerFormat { .. }) => Err(with_code(error.into())),
        Err(error) => Ok(fault(error.to_string())),
    }
}

/// Copies hold keys: nobody else may read what is made from here on.
fn private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

fn with_code(error: BackupError) -> anyhow::Error {
    let exit = match &error {
        BackupError::Exists(_) | BackupError::NotEmpty(_) => Exit::Conflict,
        BackupError::NoBackup(_) => Exit::NotFound,
        error if error.is_newer_format() => Exit::Config,
        _ => Exit::Failed,
    };
    coded(exit, error)
}

fn table(manifest: &Manifest, state: &str) -> Table {
    let mut table = Table::new(&["PARTITION", "START", "END", "INCARNATION", "STATE"]);
    for entry in &manifest.partitions {
        table.row([
            format!("{}/{}", entry.stream, entry.partition),
            entry.start.to_string(),
            entry.end.to_string(),
            entry.incarnation.clone(),
            state.to_owned(),
        ]);
    }
    table.row([
        "all files".into(),
        String::new(),
        String::new(),
        String::new(),
        format!("{} in {} files, {state}", bytes(manifest.bytes()), manifest.files.len()),
    ]);
    table
}

fn summary(manifest: &Manifest) -> serde_json::Value {
    json!({
        "format": manifest.format,
        "garam": manifest.garam,
        "taken_us": manifest.taken_us,
        "cluster": manifest.cluster,
        "files": manifest.files.len(),
        "bytes": manifest.bytes(),
        "partitions": manifest.partitions,
    })
}

/// How far it is, on a terminal only.
struct Shown {
    what: &'static str,
    is_terminal: bool,
}

impl Shown {
    fn new(what: &'static str) -> Self {
        Self { what, is_terminal: std::io::stderr().is_terminal() }
    }

    fn at(&mut self, done: u64, of: u64) {
        if self.is_terminal {
            let line = format!("\r{} of {} {}   ", bytes(done), bytes(of), self.what);
            let _closed_stderr_is_fine = write!(std::io::stderr(), "{line}");
        }
    }

    fn finish(&self) {
        if self.is_terminal {
            let _closed_stderr_is_fine = write!(std::io::stderr(), "\r{:60}\r", "");
        }
    }
}
