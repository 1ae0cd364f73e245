//! How long a batch takes is how often it waits for the server: each trip is counted on the wire, and none waits for a packet
//! that the kernel holds back.

use garam_sink::mysql::Mode::{self, Append, Upsert};
use rustix::net::{getpeername, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::Base;
use super::faults::through;
use crate::fixture::{batch, rows, written};
use crate::proxy::Proxy;

at_every_server!(
    a_batch_takes_as_many_round_trips_as_it_has_statements,
    a_connection_sends_at_once,
);

/// BEGIN, the cursor, COMMIT.
const FRAME: usize = 3;

async fn a_batch_takes_as_many_round_trips_as_it_has_statements<B: Base>(place: B) {
    for mode in [Append, Upsert] {
        let base = place.another().await;
        let proxy = Proxy::before(base.port()).await;
        let (mut destination, start) = through(&base, &proxy, mode).await;
        // Each statement is prepared once.
        let cursor = written(destination.write(&batch(&start, &rows(0..4_103))).await);
        proxy.round_trips();
        let cursor = written(destination.write(&batch(&cursor, &rows(5_000..9_103))).await);
        assert_eq!(proxy.round_trips(), FRAME + B::statements(mode, 4_103), "{mode:?}");
        written(destination.write(&batch(&cursor, &[])).await);
        assert_eq!(proxy.round_trips(), FRAME, "{mode:?}");
        assert_eq!(base.count().await, 8_206);
    }
}

async fn a_connection_sends_at_once(base: impl Base) {
    let proxy = Proxy::before(base.port()).await;
    let (_destination, _) = through(&base, &proxy, Mode::Append).await;
    let set = nodelay_of_sockets_to(proxy.port);
    assert_eq!(set, [true]);
}

/// `TCP_NODELAY` of each socket of this process whose peer has this port.
fn nodelay_of_sockets_to(port: u16) -> Vec<bool> {
    let myself = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|number| pidfd_getfd(&myself, number, PidfdGetfdFlags::empty()).ok())
        .filter(|socket| {
            let peer = getpeername(socket).ok().flatten();
            let peer = peer.and_then(|peer| std::net::SocketAddr::try_from(peer).ok());
            peer.is_some_and(|peer| peer.port() == port)
        })
        .map(|socket| sockopt::tcp_nodelay(socket).unwrap())
        .collect()
}
