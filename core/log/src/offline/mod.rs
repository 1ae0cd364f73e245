//! What is done to a log's folder while no core writes to it: beginning a new life of a partition.
//!
//! In: the folder of a stopped log. Out: the same folder, changed by whole files that get their names by a rename after they
//! are synced. Promise: a crash at any step leaves the old partition or the new one; entries that are sound are never
//! changed. Not here: looking into a folder (`inspect`), opening one to serve (`embedded`).

mod branch;
pub(crate) mod commit;
mod gather;
mod glance;
mod mend;
mod pace;
mod repair;
mod scan;
mod verify;
pub(crate) mod versions;

pub use branch::begin_new_life;
pub use gather::{Gathered, GatheredFile, gather};
pub use glance::{Glance, glance};
pub use pace::pace;
pub use repair::{RepairPlan, Repaired, plan_repair, repair};
pub use verify::{Damage, Lost, Verified, verify, verify_with};
pub use versions::check_versions;
