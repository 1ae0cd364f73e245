//! The admin doors as a child.

use std::sync::{Arc, Mutex, PoisonError};

use garam_stage::FailureKind;

use crate::admin::{self, Doors, House};
use crate::config::AdminPlan;
use crate::supervise::{Context, Factory, Fault, factory};

#[derive(Clone)]
pub struct AdminRoom {
    pub plan: AdminPlan,
    pub house: House,
    /// The doors as bound at the start of the process, for the first generation.
    pub bound: Arc<Mutex<Option<Doors>>>,
}

pub fn admin(room: AdminRoom) -> Factory {
    factory(move |context| run(room.clone(), context))
}

async fn run(room: AdminRoom, context: Context) -> Result<(), Fault> {
    let bound = room.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
    let doors = match bound {
        Some(doors) => doors,
        None => Doors::open(&room.plan).await.map_err(|shut| {
            Fault::new(Some(FailureKind::Unreachable), format!("cannot serve admin on {shut}"))
        })?,
    };
    let _guard = context.progress.waiting("questions");
    admin::serve(doors, room.house, context.stop.clone()).await;
    Ok(())
}
