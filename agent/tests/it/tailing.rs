//! Plain tailing: lines, partial lines, long lines, what is not a file.

use std::io::Write;
use std::os::unix::net::UnixListener;

use crate::agent::Host;
use crate::core::{Core, eventually};
use crate::oracle::Oracle;

#[test]
fn lines_arrive_once_and_in_order() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 500);
    host.start();
    oracle.settle(&core);
    oracle.append(&host.log("a.log"), 500);
    oracle.settle(&core);
    assert_eq!(core.lines("raw"), oracle.written);
    assert_eq!(host.terminate(), Some(0));
    assert_eq!(core.state().byes, [garam_proto::message::ByeReason::Shutdown]);
}

#[test]
fn a_partial_line_is_shipped_as_a_piece_after_a_quiet_time_if_that_is_wanted() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "flush_partial = \"100ms\"");
    let path = host.log("a.log");
    std::fs::write(&path, "whole\npart").unwrap();
    host.start();
    eventually("the piece arrives", || core.lines("raw") == ["whole", "part"]);
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"ing\nlast\n")
        .unwrap();
    eventually("its end arrives", || core.lines("raw") == ["whole", "part", "ing", "last"]);
    let partial: Vec<bool> = core.pieces("raw").iter().map(|piece| piece.partial).collect();
    assert_eq!(partial, [false, true, true, false]);
    core.verify();
}

#[test]
fn a_long_line_travels_whole_in_parts_and_a_longer_one_is_cut_with_flags() {
    let core = Core::start();
    core.state().max_part = 64 * 1024;
    let mut host = Host::with_ship(&core, "*.log", "max_record = \"4MiB\"", "codec = \"none\"");
    let long = |len: usize, seed: u64| -> String {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..len).map(|_| random.alphanumeric()).collect()
    };
    let (fits, too_long) = (long(4 << 20, 1), long((9 << 20) + 5, 2));
    std::fs::write(host.log("a.log"), format!("first\n{fits}\nmiddle\n{too_long}\nlast\n"))
        .unwrap();
    host.start();
    eventually("the last line arrives", || core.lines("raw").last().is_some_and(|l| l == "last"));
    core.verify();
    let pieces = core.pieces("raw");
    let whole: Vec<_> = pieces.iter().filter(|p| !p.partial).map(|p| p.bytes.clone()).collect();
    assert_eq!(whole, ["first", &fits, "middle", "last"]);
    let cut: Vec<u8> = pieces.iter().filter(|p| p.partial).flat_map(|p| p.bytes.to_vec()).collect();
    assert!(cut == too_long.as_bytes(), "the pieces of a cut line are the line");
}

#[test]
fn what_is_not_a_readable_file_is_passed_over_and_others_flow() {
    let core = Core::start();
    let mut host = Host::new(&core, "**/*.log", "exclude = [\"skip*\"]");
    let mut oracle = Oracle::default();
    std::fs::create_dir(host.log("folder.log")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(host.log("fifo.log")).status().unwrap();
    assert!(fifo.success());
    let _socket = UnixListener::bind(host.log("socket.log")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", host.log("dangling.log")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", host.log("device.log")).unwrap();
    std::fs::write(host.log("skip.log"), "never\n").unwrap();
    std::fs::create_dir(host.log("deep")).unwrap();
    oracle.append(&host.log("deep/a.log"), 10);
    std::fs::hard_link(host.log("deep/a.log"), host.log("second.log")).unwrap();
    std::os::unix::fs::symlink(host.log("deep/a.log"), host.log("third.log")).unwrap();
    host.start();
    oracle.settle(&core);
    oracle.append(&host.log("later.log"), 10);
    oracle.settle(&core);
    assert_eq!(core.state().origins.len(), 2);
}

#[test]
fn start_at_end_skips_what_was_there_at_the_first_start_only() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "start_at = \"end\"");
    let mut oracle = Oracle::default();
    let path = host.log("a.log");
    std::fs::write(&path, "old\nolder\nbegun ").unwrap();
    host.start();
    eventually("the end is claimed", || core.state().claims == 1);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"before, ended after\n").unwrap();
    oracle.written.push("begun before, ended after".into());
    oracle.append(&host.log("new.log"), 5);
    oracle.settle(&core);
    host.kill();
    oracle.append(&path, 5);
    oracle.append(&host.log("newer.log"), 5);
    host.start();
    oracle.settle(&core);
}

#[test]
fn the_ledger_balances() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "");
    let mut oracle = Oracle::default();
    oracle.append(&host.log("a.log"), 1000);
    host.start();
    oracle.settle(&core);
    let size = std::fs::metadata(host.log("a.log")).unwrap().len();
    eventually("everything is acknowledged", || {
        host.status().is_some_and(|s| s.files.len() == 1 && s.files[0].acked == size)
    });
    let status = host.status().unwrap();
    let file = &status.files[0];
    assert_eq!(file.read + file.gap + file.unread, file.size);
    assert_eq!((file.size, file.records_acked), (size, 1000));
    assert_eq!((status.totals.records_acked, status.totals.bytes_acked), (1000, size));
    assert_eq!(status.agent.as_deref(), Some("00000000-0000-4000-8000-000000000001"));
    assert!(status.connected);
}

#[test]
fn metrics_say_what_became_of_every_byte_by_reason() {
    let core = Core::start();
    let mut host = Host::new(&core, "*.log", "start_at = \"end\"\nskip_nul = true");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), format!("metrics = \"{port}\"\n{config}")).unwrap();
    let path = host.log("a.log");
    std::fs::write(&path, "old\n").unwrap();
    host.start();
    eventually("the end is claimed", || core.state().claims == 1);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\0\0\0new\n").unwrap();
    eventually("it arrives", || core.lines("raw") == ["new"]);
    let scrape = |request: &str| {
        let mut stream = std::net::TcpStream::connect(port).unwrap();
        stream.write_all(format!("GET {request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    let part = |part: &str, bytes: u64| {
        format!(
            "garam_agent_ledger_bytes{{source=\"app\",stream=\"raw\",part=\"{part}\"}} {bytes}\n"
        )
    };
    eventually("it is acknowledged", || scrape("/metrics").contains(&part("acked", 7)));
    let text = scrape("/metrics");
    for (name, bytes) in
        [("size", 11), ("read", 4), ("skipped_before_start", 4), ("skipped_nul", 3), ("unread", 0)]
    {
        assert!(text.contains(&part(name, bytes)), "{name}: {text}");
    }
    assert!(text.contains("garam_agent_skipped_bytes_total{reason=\"nul\"} 3\n"), "{text}");
    assert!(scrape("/healthz").starts_with("HTTP/1.1 200 "));
    assert!(scrape("/").starts_with("HTTP/1.1 404 "));
    let output = crate::agent::run(&[
        "status",
        "--config",
        host.config().to_str().unwrap(),
        "-o",
        "metrics",
    ]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&part("size", 11)));
}
