//! The core's supervision tree, as one literal. Everything that runs in the core is named here and nowhere else.
//!
//! In: [`Rooms`], the factories that the wiring makes. Out: the root [`Branch`].
//!
//! ```text
//! root            one_for_one    too often: the process ends, the service manager starts a new one
//! ├─ admin        one_for_one    and enrolment: never takes the data path down, parked instead
//! └─ data         rest_for_one   in this order: who stands on the failed one is restarted with it
//!    ├─ log                      stops last; stuck ends the process, since its thread still holds the files
//!    ├─ gateway                  stops first; one session dies alone, inside it
//!    ├─ pipelines one_for_one
//!    │  └─ …      one_for_all    one branch a pipeline, a task a partition; parked when it keeps failing
//!    ├─ dimensions one_for_one   a task a dimension, where there are any: pipelines go on with what was read last
//!    └─ meta                     stops last; behind the others, so that its failure restarts nobody
//! ```
//!
//! A partition that stops inside the log (an fsync error, a full stream) is the log's own state and no exit: it restarts
//! nobody. The log task ends only if the log as a whole cannot go on.

use std::time::Duration;

use super::spec::{
    Branch, Child, Factory, Intensity, OnExceeded, Restart, Spec, Strategy, WhenStuck,
};

/// What the wiring puts into the tree.
#[derive(Clone)]
pub struct Rooms {
    /// Servers beside the data path, by name: the admin port, enrolment.
    pub admin: Vec<(String, Factory)>,
    pub meta: Factory,
    pub log: Factory,
    pub gateway: Factory,
    pub pipelines: Vec<PipelineRoom>,
    /// A task for each dimension, by name.
    pub dimensions: Vec<(String, Factory)>,
    pub patience: Patience,
}

/// The tasks of one pipeline.
#[derive(Clone)]
pub struct PipelineRoom {
    pub name: String,
    /// A task for each partition, by name.
    pub parts: Vec<(String, Factory)>,
}

/// How long the tree waits for whom.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For each task in a graceful stop.
    pub shutdown: Duration,
    /// For a sign of life from each task of the data path. Longer than any rest of a task that does not say it waits.
    pub progress: Duration,
}

/// The whole tree.
pub fn tree(rooms: Rooms) -> Branch {
    let Rooms { admin, meta, log, gateway, pipelines, dimensions, patience } = rooms;
    let watched = |name: &str, factory| watched(name, factory, patience);
    Branch {
        name: "root".to_owned(),
        strategy: Strategy::OneForOne,
        intensity: Intensity { max: 5, within: Duration::from_secs(60) },
        on_exceeded: OnExceeded::Escalate,
        stops_last: false,
        children: vec![
            Spec::Branch(Branch {
                name: "admin".to_owned(),
                strategy: Strategy::OneForOne,
                intensity: Intensity { max: 5, within: Duration::from_secs(60) },
                on_exceeded: OnExceeded::Park,
                // Health and metrics are of use for as long as anything runs.
                stops_last: true,
                children: admin
                    .into_iter()
                    .map(|(name, factory)| Spec::Task(Child::new(name, factory)))
                    .collect(),
            }),
            Spec::Branch(Branch {
                name: "data".to_owned(),
                strategy: Strategy::RestForOne,
                intensity: Intensity { max: 5, within: Duration::from_secs(60) },
                on_exceeded: OnExceeded::Escalate,
                stops_last: false,
                children: [
                    Spec::Task(Child {
                        stops_last: true,
                        when_stuck: WhenStuck::EndProcess,
                        ..watched("log", log)
                    }),
                    Spec::Task(watched("gateway", gateway)),
                    Spec::Branch(Branch {
                        name: "pipelines".to_owned(),
                        strategy: Strategy::OneForOne,
                        intensity: Intensity { max: 5, within: Duration::from_secs(60) },
                        on_exceeded: OnExceeded::Park,
                        stops_last: false,
                        children: pipelines
                            .into_iter()
                            .map(|room| pipeline(room, patience))
                            .collect(),
                    }),
                ]
                .into_iter()
                .chain(self::dimensions(dimensions, patience))
                .chain([Spec::Task(Child { stops_last: true, ..watched("meta", meta) })])
                .collect(),
            }),
        ],
    }
}

/// The branch of all dimensions, where there are any.
fn dimensions(dimensions: Vec<(String, Factory)>, patience: Patience) -> Option<Spec> {
    let task = |(name, factory): (String, Factory)| Spec::Task(watched(&name, factory, patience));
    let children: Vec<Spec> = dimensions.into_iter().map(task).collect();
    (!children.is_empty()).then(|| {
        Spec::Branch(Branch {
            name: "dimensions".to_owned(),
            strategy: Strategy::OneForOne,
            intensity: Intensity { max: 5, within: Duration::from_secs(60) },
            on_exceeded: OnExceeded::Park,
            stops_last: false,
            children,
        })
    })
}

/// The branch of one pipeline; also for one that is added while the core runs.
pub fn pipeline(room: PipelineRoom, patience: Patience) -> Spec {
    let part = |(name, factory): (String, Factory)| {
        // A pipeline over a bounded range is done when it is done.
        Spec::Task(Child { restart: Restart::Transient, ..watched(&name, factory, patience) })
    };
    Spec::Branch(Branch {
        name: room.name,
        strategy: Strategy::OneForAll,
        // A record that makes its batch panic is isolated by halving, one restart a step: room for that, and no more.
        intensity: Intensity { max: 24, within: Duration::from_secs(3600) },
        on_exceeded: OnExceeded::Park,
        stops_last: false,
        children: room.parts.into_iter().map(part).collect(),
    })
}

fn watched(name: &str, factory: Factory, patience: Patience) -> Child {
    Child {
        shutdown: patience.shutdown,
        progress_deadline: Some(patience.progress),
        ..Child::new(name, factory)
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self { shutdown: Duration::from_secs(10), progress: Duration::from_secs(30) }
    }
}
