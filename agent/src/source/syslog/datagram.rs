//! Datagrams: each is one message.
//!
//! In: a bound socket. Out: batches, offered to the spool. Promise: never waits for room: a full spool drops and counts, so
//! that a program that logs through a Unix socket does not hang because a core is away. What the kernel drops because its
//! buffer is full is read from its own count, of UDP; senders to a Unix socket are told by the kernel themselves.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::watch;

use super::{SyslogPlan, message, stopped};
use crate::source::spool::{Batch, Inlet};

/// No datagram of IP is longer.
const LARGEST: usize = 64 * 1024;
/// How often the kernel is asked what it dropped, while anything arrives.
const ASK: Duration = Duration::from_secs(1);

trait Datagrams {
    async fn readable(&self) -> io::Result<()>;
    fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Datagrams for UdpSocket {
    async fn readable(&self) -> io::Result<()> {
        UdpSocket::readable(self).await
    }

    fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        UdpSocket::try_recv(self, buffer)
    }
}

impl Datagrams for UnixDatagram {
    async fn readable(&self) -> io::Result<()> {
        UnixDatagram::readable(self).await
    }

    fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        UnixDatagram::try_recv(self, buffer)
    }
}

pub(super) async fn udp(
    socket: UdpSocket,
    plan: &SyslogPlan,
    inlet: &Inlet,
    stop: watch::Receiver<bool>,
) {
    let mut drops = Drops::of(&socket);
    receive(&socket, plan, inlet, stop, &mut drops).await;
}

pub(super) async fn unix(
    socket: UnixDatagram,
    plan: &SyslogPlan,
    inlet: &Inlet,
    stop: watch::Receiver<bool>,
) {
    receive(&socket, plan, inlet, stop, &mut Drops::default()).await;
}

async fn receive(
    socket: &impl Datagrams,
    plan: &SyslogPlan,
    inlet: &Inlet,
    mut stop: watch::Receiver<bool>,
    drops: &mut Drops,
) {
    // One byte more than is kept tells that there was more.
    let mut buffer = vec![0; LARGEST.max(plan.max_message + 1)];
    let mut busy = false;
    loop {
        let stopping = tokio::select! {
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::warn!(source = %plan.spool.name, %error, "cannot receive, trying again");
                    tokio::time::sleep(ASK).await;
                }
                false
            }
            () = tokio::time::sleep(ASK), if busy => {
                busy = false;
                drops.count(inlet);
                continue;
            }
            () = stopped(&mut stop) => true,
        };
        busy = true;
        while let Some(batch) = take(socket, &mut buffer, plan, inlet) {
            inlet.offer(batch).await;
        }
        if stopping {
            drops.count(inlet);
            return;
        }
    }
}

/// What has arrived; `None` when nothing has.
fn take(
    socket: &impl Datagrams,
    buffer: &mut [u8],
    plan: &SyslogPlan,
    inlet: &Inlet,
) -> Option<Batch> {
    let mut batch = Batch::default();
    let mut any = false;
    while batch.bytes.len() < Batch::ENOUGH {
        let Ok(length) = socket.try_recv(buffer) else { break };
        any = true;
        let kept = length.min(plan.max_message);
        if kept < length {
            inlet.spool.counts.cut(1);
        }
        message::add(buffer.get(..kept).unwrap_or_default(), &mut batch);
    }
    any.then_some(batch)
}

/// What the kernel dropped of a UDP socket because nobody read it in time.
#[derive(Default)]
struct Drops {
    table: Option<(&'static str, String)>,
    counted: u64,
}

impl Drops {
    fn of(socket: &UdpSocket) -> Self {
        let v6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        let path = if v6 { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        let inode = link.ok().and_then(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        });
        Self { table: inode.map(|inode| (path, inode)), counted: 0 }
    }

    fn count(&mut self, inlet: &Inlet) {
        let Some((path, inode)) = &self.table else { return };
        let Ok(table) = std::fs::read_to_string(path) else { return };
        let Some(dropped) = dropped(&table, inode) else { return };
        inlet.spool.counts.kernel_dropped(dropped.saturating_sub(self.counted));
        self.counted = dropped;
    }
}

/// The last column of the row whose tenth column is the inode.
fn dropped(table: &str, inode: &str) -> Option<u64> {
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(9) == Some(&inode))?;
    row.last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_count_is_read_from_its_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  481: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17\n  482: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n";
        assert_eq!(dropped(table, "4711"), Some(17));
        assert_eq!(dropped(table, "4712"), Some(0));
        assert_eq!(dropped(table, "1"), None);
    }
}
