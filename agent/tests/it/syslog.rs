//! Syslog through the real agent: every message that was spooled arrives once, whatever happens to agent, core and sender.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use garam_agent::source::spool::SpoolStatus;
use garam_proto::StreamName;
use garam_proto::message::Hold;

use crate::agent::{self, Host};
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

/// An agent that listens on everything there is.
struct Loghost {
    core: Core,
    host: Host,
    tcp: SocketAddr,
    udp: SocketAddr,
}

impl Loghost {
    fn new(extra: &str) -> Self {
        let core = Core::start();
        let host = Host::new(&core, "*.log", "");
        let (tcp, udp) = (free_tcp(), free_udp());
        let loghost = Self { core, host, tcp, udp };
        loghost.configure(extra);
        loghost
    }

    fn configure(&self, extra: &str) {
        let table = format!(
            "[[syslog]]\nname = \"net\"\nstream = \"raw\"\nsync = \"10ms\"\nlisten = [\"tcp://{}\", \"udp://{}\", \"unix://{}\", \"unix-stream://{}\"]\n{extra}\n",
            self.tcp,
            self.udp,
            self.unix().display(),
            self.unix_stream().display(),
        );
        self.host.configure(&self.core, "*.log", &table, "");
    }

    fn unix(&self) -> PathBuf {
        self.host.folder.path().join("log")
    }

    fn unix_stream(&self) -> PathBuf {
        self.host.folder.path().join("log-stream")
    }

    fn start(&mut self) {
        self.host.start();
        eventually("the agent listens", || {
            let connection = UnixStream::connect(self.unix_stream()).is_ok();
            let datagrams = UnixDatagram::unbound().unwrap().connect(self.unix()).is_ok();
            let bound = UdpSocket::bind(self.udp).is_err();
            connection && datagrams && bound && TcpStream::connect(self.tcp).is_ok()
        });
    }

    fn spool(&self) -> Option<SpoolStatus> {
        self.host.status()?.spools.into_iter().find(|spool| spool.source == "net")
    }

    fn until(&self, what: &str, is_so: impl Fn(&SpoolStatus) -> bool) -> SpoolStatus {
        let mut found = None;
        eventually(what, || {
            found = self.spool();
            found.as_ref().is_some_and(&is_so)
        });
        found.unwrap()
    }

    /// Has the core hold the stream, or release it.
    fn hold(&self, held: bool) {
        let stream = StreamName::new("raw").unwrap();
        let hold = Hold { stream, partition: None, held, why: "test".into() };
        self.core.state().held = Some(hold);
        self.core.nudge();
    }

    fn segments(&self) -> Vec<PathBuf> {
        let folder = self.host.state().join("spool/net");
        let mut all: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sends lines over a connection, framed by line feeds.
fn send(stream: &mut impl Write, oracle: &mut Oracle, lines: usize) {
    let mut text = String::new();
    for _ in 0..lines {
        text.push_str(&oracle.line());
        text.push('\n');
    }
    stream.write_all(text.as_bytes()).unwrap();
}

/// The same with counted octets.
fn send_counted(stream: &mut impl Write, oracle: &mut Oracle, lines: usize) {
    let mut text = String::new();
    for _ in 0..lines {
        let line = oracle.line();
        text.push_str(&format!("{} {line}", line.len()));
    }
    stream.write_all(text.as_bytes()).unwrap();
}

#[test]
fn every_message_arrives_once_from_each_kind_of_socket() {
    let mut loghost = Loghost::new("");
    loghost.start();
    let mut oracle = Oracle::default();
    send(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 300);
    send_counted(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 300);
    send(&mut UnixStream::connect(loghost.unix_stream()).unwrap(), &mut oracle, 300);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixDatagram::unbound().unwrap();
    for _ in 0..100 {
        udp.send_to(oracle.line().as_bytes(), loghost.udp).unwrap();
        unix.send_to(oracle.line().as_bytes(), loghost.unix()).unwrap();
    }
    oracle.settle(&loghost.core);
    let spool = loghost.until("all is shipped", |spool| spool.shipped == 1100);
    assert_eq!((spool.received, spool.spooled), (1100, 1100));
    assert_eq!(spool.dropped_by.values().sum::<u64>(), 0);
    let metrics = agent::run(&[
        "status",
        "-o",
        "metrics",
        "--config",
        loghost.host.config().to_str().unwrap(),
    ]);
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    assert!(metrics.contains("garam_agent_spool_shipped_total{source=\"net\"} 1100"), "{metrics}");
}

#[test]
fn what_was_spooled_survives_kills_with_and_without_a_core() {
    let mut loghost = Loghost::new("spool = \"2MiB\"");
    let mut oracle = Oracle::default();
    for round in 0..6 {
        loghost.start();
        let before = loghost.until("it answers", |_| true).spooled;
        loghost.core.state().withhold = round % 2 == 1;
        let mut stream = TcpStream::connect(loghost.tcp).unwrap();
        send(&mut stream, &mut oracle, 4000);
        loghost.until("all is spooled", |spool| spool.spooled == before + 4000);
        loghost.host.kill();
        loghost.core.state().withhold = false;
    }
    loghost.start();
    oracle.settle(&loghost.core);
    assert_eq!(loghost.host.terminate(), Some(0));
    loghost.start();
    eventually("no segment stays once the core has it", || loghost.segments().is_empty());
    oracle.check(&loghost.core);
    assert!(loghost.core.state().origins.values().all(|held| held.retired));
}

#[test]
fn a_stop_keeps_what_has_arrived() {
    let mut loghost = Loghost::new("");
    let mut oracle = Oracle::default();
    for _ in 0..5 {
        loghost.start();
        let mut stream = TcpStream::connect(loghost.tcp).unwrap();
        send(&mut stream, &mut oracle, 200);
        loghost.until("it is accepted", |spool| spool.received >= 1);
        assert_eq!(loghost.host.terminate(), Some(0));
    }
    loghost.start();
    oracle.settle(&loghost.core);
}

#[test]
fn a_full_spool_makes_connections_wait_and_counts_dropped_datagrams() {
    let mut loghost = Loghost::new("spool = \"1MiB\"");
    loghost.hold(true);
    loghost.start();
    let mut oracle = Oracle::default();
    let mut stream = TcpStream::connect(loghost.tcp).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // A line that is accepted only in part goes on where it broke off, as a sender's would.
    let mut rest: Vec<u8> = Vec::new();
    let mut sent = 0;
    'full: while sent < 64 * 1024 * 1024 {
        rest.extend_from_slice(format!("{}\n", oracle.line()).as_bytes());
        if rest.len() < 8192 {
            continue;
        }
        while !rest.is_empty() {
            match stream.write(&rest) {
                Ok(written) => {
                    sent += written;
                    rest.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 'full,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let spool = loghost.until("the spool is full", |spool| spool.full);
    assert!(spool.bytes <= spool.limit, "{spool:?}");
    assert!(!rest.is_empty(), "the sender was never made to wait");
    // Programs that log through datagrams do not hang; what they say is counted as dropped.
    let unix = UnixDatagram::unbound().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    unix.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    for number in 0..500 {
        unix.send_to(format!("dropped {number}").as_bytes(), loghost.unix()).unwrap();
        udp.send_to(format!("dropped {number}").as_bytes(), loghost.udp).unwrap();
    }
    loghost.until("each is counted", |spool| spool.dropped_by.values().sum::<u64>() == 1000);
    loghost.hold(false);
    stream.set_write_timeout(None).unwrap();
    stream.write_all(&rest).unwrap();
    drop(stream);
    oracle.settle(&loghost.core);
    let spool = loghost.until("there is room again", |spool| !spool.full);
    assert_eq!(spool.received, spool.spooled + spool.dropped_by["spool_full"]);
}

#[test]
fn hostile_input_is_bounded_cut_and_counted() {
    let mut loghost = Loghost::new("max_message = \"1KiB\"\nmax_connections = 16\nidle = \"1s\"");
    loghost.start();
    let send = |bytes: &[u8]| {
        TcpStream::connect(loghost.tcp).unwrap().write_all(bytes).unwrap();
    };
    send(&vec![b'x'; 3_000_000]);
    send(b"9999999 <1>never so long");
    send(b"99999999999999999999999 <1>a number that long is text\n");
    send(b"12 <1>nul\0and\nx");
    send(b"<1>no \xff\xfe utf-8\n");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[b'y'; 60_000], loghost.udp).unwrap();
    let mut expect = vec![
        "x".repeat(1024),
        "<1>never so long".into(),
        "99999999999999999999999 <1>a number that long is text".into(),
        "<1>nul#000and#012x".into(),
        "<1>no \u{fffd}\u{fffd} utf-8".into(),
        "y".repeat(1024),
    ];
    eventually("each arrives as one line", || loghost.core.lines("raw").len() == expect.len());
    let mut lines = loghost.core.lines("raw");
    lines.sort();
    expect.sort();
    assert_eq!(lines, expect);
    let spool = loghost.until("none is open", |spool| spool.connections == 0);
    assert_eq!(spool.cut, 3);
    let crowd: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(loghost.tcp).unwrap()).collect();
    let spool = loghost.until("most are refused", |spool| spool.refused_connections > 0);
    assert!(spool.connections <= 16);
    loghost.until("the idle ones are closed", |spool| spool.connections == 0);
    drop(crowd);
    loghost.core.verify();
}

#[test]
fn a_torn_end_of_a_spool_is_left_out() {
    let mut loghost = Loghost::new("");
    loghost.core.state().withhold = true;
    loghost.start();
    let mut oracle = Oracle::default();
    send(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 100);
    loghost.until("all is spooled", |spool| spool.spooled == 100);
    loghost.host.kill();
    for segment in loghost.segments() {
        let mut file = fs::OpenOptions::new().append(true).open(segment).unwrap();
        file.write_all(b"half a li\0\0\0\0ne\n and").unwrap();
    }
    loghost.core.state().withhold = false;
    loghost.start();
    send(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 100);
    oracle.settle(&loghost.core);
    loghost.host.terminate();
    loghost.start();
    eventually("the torn segment is removed too", || loghost.segments().is_empty());
    oracle.check(&loghost.core);
}

#[test]
fn a_reload_opens_and_closes_listeners_and_ships_what_is_left() {
    let mut loghost = Loghost::new("");
    loghost.start();
    let mut oracle = Oracle::default();
    send(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 50);
    oracle.settle(&loghost.core);
    // Another port, the same spool.
    let old = std::mem::replace(&mut loghost.tcp, free_tcp());
    loghost.configure("max_message = \"2KiB\"");
    loghost.host.reload();
    eventually("it listens on the new port", || TcpStream::connect(loghost.tcp).is_ok());
    assert!(TcpStream::connect(old).is_err());
    send(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 50);
    oracle.settle(&loghost.core);
    // Gone, while the core acknowledges nothing: what was received is shipped all the same.
    loghost.core.state().withhold = true;
    send(&mut TcpStream::connect(loghost.tcp).unwrap(), &mut oracle, 50);
    let received = loghost.until("all is spooled", |spool| spool.spooled == 150);
    assert_eq!(received.received, 150);
    loghost.host.configure(&loghost.core, "*.log", "", "");
    loghost.host.reload();
    eventually("it does not listen", || TcpStream::connect(loghost.tcp).is_err());
    assert!(!loghost.unix().try_exists().unwrap());
    loghost.core.state().withhold = false;
    loghost.core.nudge();
    oracle.settle(&loghost.core);
}

#[test]
fn a_table_that_cannot_be_used_names_its_key_and_check_prints_the_others() {
    let loghost = Loghost::new("");
    let output = agent::run(&["check", "--config", loghost.host.config().to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("syslog         net to stream raw, spool to 64 MiB"), "{text}");
    assert!(text.contains(&format!("listen       tcp://{}", loghost.tcp)), "{text}");
    for (extra, key) in [
        ("listen = []", "listen"),
        ("listen = [\"tcp://host\"]", "listen"),
        ("listen = [\"udp://0.0.0.0:514\"]\nspool = \"1KiB\"", "spool"),
        ("listen = [\"udp://0.0.0.0:514\"]\nmax_message = \"100MiB\"", "max_message"),
        ("listen = [\"udp://0.0.0.0:514\"]\nmode = \"rw\"", "mode"),
        (
            "listen = [\"udp://0.0.0.0:514\"]\n[[file]]\nname = \"a\"\ninclude = [\"/l\"]\nstream = \"raw\"",
            "name",
        ),
    ] {
        let text = format!(
            "core = [\"core-1:7470\"]\n[[syslog]]\nname = \"a\"\nstream = \"raw\"\n{extra}\n"
        );
        let error = garam_agent::config::Config::parse("agent.toml".as_ref(), &text).unwrap_err();
        assert!(error.to_string().contains(&format!("key syslog.a.{key}:")), "{extra}: {error}");
    }
}
