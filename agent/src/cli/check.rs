//! `garam-agent check`: everything that can be known without starting, printed as a plan.

use std::io::Write;
use std::path::Path;

use garam_proto::shown::escape;

use crate::config::Plan;
use crate::error::AgentError;
use crate::source::file::Step;
use crate::source::intake::IntakePlan;
use crate::source::spool::{self, SpoolPlan};
use crate::tls;

/// Prints the plan; fails on what would keep the agent from running.
pub(super) fn check(path: &Path, plan: &Plan, out: &mut dyn Write) -> anyhow::Result<()> {
    tls::check(&plan.identity_dir).map_err(AgentError::from)?;
    writeln!(out, "configuration  {} is valid", path.display())?;
    writeln!(out, "state          {}", plan.state_dir.display())?;
    writeln!(out, "identity       {} is complete and valid now", plan.identity_dir.display())?;
    for core in &plan.cores {
        writeln!(out, "core           {} as {}", core.address, core.server_name)?;
    }
    let ship = &plan.ship;
    writeln!(
        out,
        "ship           {} level {}, blocks of {} KiB or {:?}, window {} KiB, poll {:?}, discover {:?}",
        ship.codec.name(),
        ship.level,
        ship.block_size / 1024,
        ship.linger,
        ship.window / 1024,
        ship.poll,
        ship.discover
    )?;
    for set in &plan.files {
        let mut files = 0u64;
        let mut troubles = Vec::new();
        set.walk(&mut |step| match step {
            Step::Folder(_) => {}
            Step::Found { .. } => files += 1,
            Step::Trouble { path, error } => troubles.push((path, error)),
        });
        writeln!(
            out,
            "file           {} to stream {}, {files} files now, start at {:?}, lines to {} KiB",
            set.name,
            set.stream,
            set.start_at,
            set.max_record / 1024
        )?;
        for (glob, root) in set.roots() {
            writeln!(out, "  include      {glob} (searched below {})", root.display())?;
        }
        for (path, error) in troubles {
            writeln!(out, "  unreadable   {}: {error}", path.display())?;
        }
    }
    for intake in &plan.intake {
        self::intake(intake, plan, out)?;
    }
    let named: Vec<_> = plan.intake.iter().map(|intake| &intake.spool().name).collect();
    for (folder, bytes) in spool::orphans(&plan.state_dir, &named) {
        writeln!(
            out,
            "  orphan       {} holds {bytes} bytes and no table names it: they are not shipped",
            folder.display()
        )?;
    }
    Ok(())
}

fn intake(intake: &IntakePlan, plan: &Plan, out: &mut dyn Write) -> anyhow::Result<()> {
    let SpoolPlan { name, stream, limit, .. } = intake.spool();
    let kind = intake.kind();
    writeln!(
        out,
        "{kind:<14} {name} to stream {stream}, spool to {} MiB in {}",
        limit / (1024 * 1024),
        spool::folder(&plan.state_dir, name).display()
    )?;
    match intake {
        IntakePlan::Syslog(syslog) => {
            for listen in &syslog.listen {
                writeln!(
                    out,
                    "  listen       {listen}, messages to {} KiB",
                    syslog.max_message / 1024
                )?;
            }
        }
        IntakePlan::Journal(journal) => {
            let said = std::process::Command::new(&journal.journalctl).arg("--version").output();
            let program = journal.journalctl.display();
            match said {
                Ok(said) => {
                    let version = String::from_utf8_lossy(&said.stdout).into_owned();
                    let version = version.lines().next().unwrap_or("of an unknown version");
                    writeln!(out, "  program      {program}, {}", escape(version))?;
                }
                Err(error) => writeln!(
                    out,
                    "  missing      {program}: {error}; install systemd, or set `journalctl`"
                )?,
            }
        }
    }
    Ok(())
}
