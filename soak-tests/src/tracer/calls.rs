//! Which system calls change files, and which files: read from a stopped thread's registers and memory.
//!
//! In: a thread at the entry of a call. Out: the call's name and the paths it is about; none when it changes nothing.
//! `openat` counts when it may create or empty a file. Memory that is mapped is no call: SQLite's `-shm` is rebuilt from its
//! log after every crash, and nothing else of ours is mapped for writing.

use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{self, user_regs_struct};
use nix::unistd::Pid;

/// A call that changes files.
pub(super) struct Call {
    pub(super) name: &'static str,
    /// Renames and links have two.
    pub(super) paths: Vec<PathBuf>,
    /// Its third argument is how many bytes are written.
    pub(super) is_write: bool,
}

/// Where a call names its file.
#[derive(Clone, Copy)]
enum Naming {
    /// The first argument is an open file.
    Open,
    /// So it is, and the third is a number of bytes.
    Write,
    /// The first argument is a path.
    Path,
    /// The first two arguments are paths.
    Paths,
    /// The first argument is a folder, the second a path.
    At,
    /// Twice so: arguments 1 and 2, 3 and 4.
    Ats,
    /// As `Path`; the second argument says what may happen.
    OpenFlags,
    /// As `At`; the third argument says what may happen.
    OpenAtFlags,
}

const CALLS: &[(i64, &str, Naming)] = &[
    (libc::SYS_write, "write", Naming::Write),
    (libc::SYS_pwrite64, "pwrite64", Naming::Write),
    (libc::SYS_writev, "writev", Naming::Open),
    (libc::SYS_pwritev, "pwritev", Naming::Open),
    (libc::SYS_pwritev2, "pwritev2", Naming::Open),
    (libc::SYS_fsync, "fsync", Naming::Open),
    (libc::SYS_fdatasync, "fdatasync", Naming::Open),
    (libc::SYS_sync_file_range, "sync_file_range", Naming::Open),
    (libc::SYS_ftruncate, "ftruncate", Naming::Open),
    (libc::SYS_fallocate, "fallocate", Naming::Open),
    (libc::SYS_fchmod, "fchmod", Naming::Open),
    (libc::SYS_truncate, "truncate", Naming::Path),
    (libc::SYS_unlink, "unlink", Naming::Path),
    (libc::SYS_rmdir, "rmdir", Naming::Path),
    (libc::SYS_mkdir, "mkdir", Naming::Path),
    (libc::SYS_creat, "creat", Naming::Path),
    (libc::SYS_chmod, "chmod", Naming::Path),
    (libc::SYS_rename, "rename", Naming::Paths),
    (libc::SYS_link, "link", Naming::Paths),
    (libc::SYS_unlinkat, "unlinkat", Naming::At),
    (libc::SYS_mkdirat, "mkdirat", Naming::At),
    (libc::SYS_renameat, "renameat", Naming::Ats),
    (libc::SYS_renameat2, "renameat2", Naming::Ats),
    (libc::SYS_linkat, "linkat", Naming::Ats),
    (libc::SYS_open, "open", Naming::OpenFlags),
    (libc::SYS_openat, "openat", Naming::OpenAtFlags),
];

/// A path is never longer.
const LONGEST: usize = 4096;

impl Call {
    pub(super) fn of(pid: Pid, registers: &user_regs_struct) -> Option<Self> {
        let number = registers.orig_rax.cast_signed();
        let (_, name, naming) = CALLS.iter().copied().find(|(call, ..)| *call == number)?;
        let [a, b, c, d] = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let here = |at| path_at(pid, None, at);
        let below = |folder, at| path_at(pid, Some(folder), at);
        let paths = match naming {
            Naming::Open | Naming::Write => vec![open_file(pid, a)],
            Naming::Path => vec![here(a)],
            Naming::Paths => vec![here(a), here(b)],
            Naming::At => vec![below(a, b)],
            Naming::Ats => vec![below(a, b), below(c, d)],
            Naming::OpenFlags => vec![changing(b).then(|| here(a)).flatten()],
            Naming::OpenAtFlags => vec![changing(c).then(|| below(a, b)).flatten()],
        };
        let paths: Vec<PathBuf> = paths.into_iter().flatten().collect();
        let is_write = matches!(naming, Naming::Write);
        (!paths.is_empty()).then_some(Self { name, paths, is_write })
    }
}

fn changing(flags: u64) -> bool {
    let flags = flags as i32;
    flags & (libc::O_CREAT | libc::O_TRUNC) != 0 && flags & libc::O_TMPFILE != libc::O_TMPFILE
}

/// What an open file is called, also when its name is gone.
fn open_file(pid: Pid, descriptor: u64) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{pid}/fd/{}", descriptor as i32)).ok()?;
    let path = path.into_os_string().into_string().ok()?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).into())
}

/// The path at an address, seen from an open folder or from where the process is.
fn path_at(pid: Pid, folder: Option<u64>, address: u64) -> Option<PathBuf> {
    let path = text(pid, address)?;
    if path.is_absolute() {
        return Some(path);
    }
    let base = match folder {
        Some(folder) if folder as i32 != libc::AT_FDCWD => open_file(pid, folder)?,
        _ => std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?,
    };
    Some(if path == Path::new("") { base } else { base.join(path) })
}

/// The bytes up to the first zero. A page behind them may not be readable, so they are read in small pieces.
fn text(pid: Pid, address: u64) -> Option<PathBuf> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut found = Vec::new();
    let mut piece = [0; 64];
    while found.len() < LONGEST {
        let at = address.checked_add(found.len() as u64)?;
        let read = memory.read_at(&mut piece, at).ok().filter(|read| *read > 0)?;
        let piece = piece.get(..read)?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            found.extend_from_slice(piece.get(..end)?);
            return Some(PathBuf::from(std::ffi::OsString::from_vec(found)));
        }
        found.extend_from_slice(piece);
    }
    None
}
