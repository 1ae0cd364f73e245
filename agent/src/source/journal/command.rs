//! What journalctl is called with.
//!
//! In: a plan, a cursor. Out: a command that prints the export format. The cursor is given as `--cursor`, whose entry comes first
//! when it is still there: `--after-cursor` passes over one entry too many when it is not.

use tokio::process::Command;

use super::JournalPlan;

/// All entries from the cursor on, filtered, and those that come.
pub(super) fn follow(plan: &JournalPlan, cursor: Option<&str>) -> Command {
    let mut command = base(plan, cursor);
    command.args(["--follow", "--no-tail"]);
    command.args(plan.units.iter().map(|unit| format!("--unit={unit}")));
    command.args(plan.priority.iter().map(|priority| format!("--priority={priority}")));
    command.args(&plan.matches);
    command
}

/// One entry, whatever it says: the newest, or the one at the cursor.
pub(super) fn one(plan: &JournalPlan, cursor: Option<&str>) -> Command {
    let mut command = base(plan, cursor);
    command.args(["--lines=1", "--output-fields=PRIORITY"]);
    command
}

fn base(plan: &JournalPlan, cursor: Option<&str>) -> Command {
    let mut command = Command::new(&plan.journalctl);
    command.args(["--output=export", "--no-pager", "--quiet"]);
    command.args(plan.directory.iter().map(|path| format!("--directory={}", path.display())));
    command.args(plan.files.iter().map(|path| format!("--file={}", path.display())));
    command.args(cursor.iter().map(|cursor| format!("--cursor={cursor}")));
    command
}
