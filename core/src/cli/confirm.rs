//! Asks before something is changed that cannot be changed back: the name typed, or `--yes`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::anyhow;

use super::exit::{Exit, coded};

/// What every destructive verb takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Consent {
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
    /// Show the plan and change nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Go,
    /// Only the plan was asked for.
    DryRun,
}

/// Waits for the name to be typed. Anything else, and a stdin that nobody types at, is a refusal.
pub(crate) fn confirm(name: &str, consent: Consent) -> anyhow::Result<Answer> {
    if consent.dry_run {
        return Ok(Answer::DryRun);
    }
    if consent.yes {
        return Ok(Answer::Go);
    }
    if !std::io::stdin().is_terminal() {
        let text = "nothing was changed: give --yes to do it, or --dry-run to see the plan only";
        return Err(coded(Exit::Usage, anyhow!(text)));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "type {name} to go on: ")?;
    stderr.flush()?;
    let mut typed = String::new();
    std::io::stdin().lock().read_line(&mut typed)?;
    if typed.trim() == name {
        return Ok(Answer::Go);
    }
    Err(coded(Exit::Failed, anyhow!("nothing was changed: that is not the name")))
}
