//! The admin port as a child.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use garam_stage::FailureKind;
use tokio::net::TcpListener;

use crate::admin::{self, Observe};
use crate::supervise::{Context, Factory, Fault, factory};

#[derive(Clone)]
pub struct AdminRoom {
    pub listen: SocketAddr,
    pub observe: Arc<dyn Observe>,
    /// The port as bound at the start of the process, for the first generation.
    pub bound: Arc<Mutex<Option<TcpListener>>>,
}

pub fn admin(room: AdminRoom) -> Factory {
    factory(move |context| run(room.clone(), context))
}

async fn run(room: AdminRoom, context: Context) -> Result<(), Fault> {
    let bound = room.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
    let fault = |error: std::io::Error| {
        Fault::new(
            Some(FailureKind::Unreachable),
            format!("cannot serve admin on {}: {error}", room.listen),
        )
    };
    let socket = match bound {
        Some(socket) => socket,
        None => admin::bind(room.listen).await.map_err(fault)?,
    };
    let _guard = context.progress.waiting("questions");
    admin::serve(socket, room.observe, context.stop.clone()).await.map_err(fault)
}
