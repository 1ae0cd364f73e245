//! The enrolment port as a child: the port bound, hosts answered until it is asked to stop.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use garam_stage::FailureKind;
use tokio::net::TcpListener;

use crate::enrol::Registrar;
use crate::enrol::listener::{acceptor, serve};
use crate::pki::ServerCertificate;
use crate::supervise::{Context, Factory, Fault, factory};

/// What an enrolment port is made of.
#[derive(Clone)]
pub struct EnrolRoom {
    pub listen: SocketAddr,
    pub certificate: Arc<ServerCertificate>,
    pub registrar: Arc<Registrar>,
    /// The port as bound at the start of the process, for the first generation.
    pub bound: Arc<Mutex<Option<TcpListener>>>,
}

pub fn enrol(room: EnrolRoom) -> Factory {
    factory(move |context| run(room.clone(), context))
}

async fn run(room: EnrolRoom, context: Context) -> Result<(), Fault> {
    let config = |error: String| {
        Fault::new(Some(FailureKind::Config), format!("cannot enrol agents: {error}"))
    };
    let tls = acceptor(&room.certificate).map_err(|error| config(error.to_string()))?;
    let bound = room.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
    let socket = match bound {
        Some(socket) => socket,
        None => TcpListener::bind(room.listen).await.map_err(|error| {
            let text = format!("cannot listen on {} for enrolment: {error}", room.listen);
            Fault::new(Some(FailureKind::Unreachable), text)
        })?,
    };
    let progress = context.progress.clone();
    let beat = move || progress.resting("hosts");
    serve(socket, tls, room.registrar, context.stop.clone(), beat).await;
    Ok(())
}
