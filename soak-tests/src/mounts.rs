//! File systems that may be lost, filled and thrown away: ext4 and XFS in an image, tmpfs with limits.
//!
//! In: a folder. Out: something mounted there. Promise: mounts are made in a name space that only this program and what it
//! starts can see. They end with their value, and with the last of these processes whatever happens, and the kernel gives the
//! loop devices back with them. What is missing (rights, tools) is an error with its remedy, never a reason to skip.
//! Not here: when a disk is taken away, and what must be there afterwards (`scenario`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// Room for everything that a hundred rounds keep; the image has holes.
const IMAGE: u64 = 8 * 1024 * 1024 * 1024;
/// How long a process that was killed may keep a mount busy.
const BUSY: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(10);
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/filesystems");

/// Takes this process into a mount name space of its own. Call it while there is but one thread.
pub(crate) fn keep_private() -> anyhow::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .context("cannot make mounts: this scenario needs root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("cannot make mounts private")
}

/// A file system in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// The programs that make and break file systems.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tools {
    path: String,
    libraries: String,
}

impl Tools {
    /// Finds them, or fetches them from the machine's mirror.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        let found = run(Command::new(TOOLS).arg("install")).await?;
        serde_json::from_slice(&found).context("testbed/filesystems prints something else")
    }

    fn command(&self, program: &str) -> Command {
        let before = |variable: &str, first: &str| {
            let rest = std::env::var(variable).unwrap_or_default();
            [first, &rest].join(":").trim_matches(':').to_owned()
        };
        let mut command = Command::new(program);
        // The folders of a system administrator's programs are not in everybody's path.
        command.env("PATH", before("PATH", &self.path) + ":/usr/sbin:/sbin");
        if !self.libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", before("LD_LIBRARY_PATH", &self.libraries));
        }
        command
    }
}

/// A disk of its own, in an image.
#[derive(Debug)]
pub(crate) struct Disk {
    kind: Kind,
    image: PathBuf,
    tools: Tools,
    mount: Mount,
}

impl Disk {
    /// Makes and mounts one: the image at `folder`.img, the files below `folder`.
    pub(crate) async fn make(kind: Kind, folder: &Path, tools: &Tools) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let image = folder.with_extension("img");
        File::create(&image)?.set_len(IMAGE).context("cannot make the image of a disk")?;
        let quiet = if kind == Kind::Ext4 { "-qF" } else { "-qf" };
        run(tools.command(&format!("mkfs.{}", kind.name())).arg(quiet).arg(&image)).await?;
        let tools = tools.clone();
        let mount = mount(kind, &image, folder, &tools).await?;
        Ok(Self { kind, image, tools, mount })
    }

    /// From this moment on nothing reaches the disk, also what is on its way: every call ends with an error.
    pub(crate) async fn cut(&self) -> anyhow::Result<()> {
        let folder = &self.mount.folder;
        run(self.tools.command("xfs_io").args(["-x", "-c", "shutdown"]).arg(folder)).await?;
        Ok(())
    }

    /// What a machine finds that is switched on again. Nobody may have a file open.
    pub(crate) async fn mount_again(&mut self) -> anyhow::Result<()> {
        self.mount.end().await?;
        self.mount = mount(self.kind, &self.image, &self.mount.folder, &self.tools).await?;
        Ok(())
    }
}

async fn mount(kind: Kind, image: &Path, folder: &Path, tools: &Tools) -> anyhow::Result<Mount> {
    let mut command = tools.command("mount");
    run(command.args(["-t", kind.name(), "-o", "loop"]).arg(image).arg(folder)).await?;
    Ok(Mount { folder: folder.to_owned(), is_mounted: true })
}

/// A folder in memory with limits.
#[derive(Debug)]
pub(crate) struct Tmpfs {
    mount: Mount,
}

impl Tmpfs {
    pub(crate) fn make(folder: &Path, mib: u32, inodes: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let limits = format!("size={mib}m,nr_inodes={inodes},mode=0755");
        nix::mount::mount(
            Some("tmpfs"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(limits.as_str()),
        )
        .with_context(|| format!("cannot mount a tmpfs at {}", folder.display()))?;
        Ok(Self { mount: Mount { folder: folder.to_owned(), is_mounted: true } })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.mount.folder
    }
}

/// Something that is mounted, until the end of this value.
#[derive(Debug)]
struct Mount {
    folder: PathBuf,
    is_mounted: bool,
}

impl Mount {
    async fn end(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + BUSY;
        loop {
            match nix::mount::umount2(&self.folder, MntFlags::empty()) {
                Ok(()) => break self.is_mounted = false,
                Err(nix::errno::Errno::EBUSY) if Instant::now() < deadline => sleep(GLANCE).await,
                Err(error) => {
                    let folder = self.folder.display();
                    return Err(io::Error::from(error))
                        .with_context(|| format!("cannot unmount {folder}"));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted {
            // Processes that are just being killed may be in it: they keep it until they are gone, and nobody else sees it.
            let _ends_with_the_name_space =
                nix::mount::umount2(&self.folder, MntFlags::MNT_DETACH).is_ok();
        }
    }
}

async fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output().await;
    let output = output.with_context(|| format!("cannot start {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
