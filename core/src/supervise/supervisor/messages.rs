//! What a supervisor is told and asked, and its own last word.

use actix::Message;

use crate::supervise::Stop;
use crate::supervise::handle::ControlError;
use crate::supervise::node::NodeEnd;
use crate::supervise::snapshot::Snapshot;
use crate::supervise::spec::Spec;

/// Asks the branch to stop. Answered at once; the end comes as a [`Report`].
pub(in crate::supervise) struct Halt(pub(in crate::supervise) Stop);

/// Asks for the branch as it is now.
pub(in crate::supervise) struct Look;

/// A change to the tree, on its way down.
pub(in crate::supervise) struct Command {
    /// What is left of the path from here.
    pub(in crate::supervise) path: Vec<String>,
    pub(in crate::supervise) verb: Verb,
}

pub(in crate::supervise) enum Verb {
    /// The path names the branch; the others name the child.
    Add(Box<Spec>),
    Remove,
    Park,
    Resume,
}

/// The last word of a supervisor.
pub(in crate::supervise) struct Report {
    pub(in crate::supervise) end: NodeEnd,
    /// What the branch consisted of, children added while it ran included.
    pub(in crate::supervise) children: Vec<Spec>,
    pub(in crate::supervise) late: Vec<String>,
    pub(in crate::supervise) seen: Snapshot,
}

impl Message for Halt {
    type Result = ();
}

impl Message for Look {
    type Result = Result<Snapshot, ControlError>;
}

impl Message for Command {
    type Result = Result<(), ControlError>;
}
