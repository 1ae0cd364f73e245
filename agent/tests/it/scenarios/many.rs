//! What is no file, and far more files than descriptors.

use std::fs;
use std::os::unix::net::UnixListener;

use super::Trial;

#[test]
fn h35_what_is_no_file_is_passed_over_and_never_blocks_the_others() {
    let mut trial = Trial::new("*.log", "");
    fs::create_dir(trial.host.log("folder.log")).unwrap();
    let fifo =
        std::process::Command::new("mkfifo").arg(trial.host.log("fifo.log")).status().unwrap();
    assert!(fifo.success());
    let _socket = UnixListener::bind(trial.host.log("socket.log")).unwrap();
    for (name, target) in [("device", "/dev/zero"), ("dangling", "/nowhere/at/all")] {
        std::os::unix::fs::symlink(target, trial.host.log(&format!("{name}.log"))).unwrap();
    }
    trial.append("a.log", 10);
    trial.host.start();
    trial.settle();
    trial.append("b.log", 10);
    trial.settle();
    assert_eq!(trial.core.state().origins.len(), 2);
}

#[test]
fn h36_idle_files_beyond_the_descriptors_leave_the_hot_ones_their_rate() {
    const FILES: usize = 1500;
    const DESCRIPTORS: u32 = 128;
    let mut trial = Trial::new("*.log", "");
    for number in 0..FILES {
        trial.append(&format!("{number}.log"), 1);
    }
    trial.host.start_with_descriptors(DESCRIPTORS);
    trial.settle();
    for _ in 0..5 {
        for hot in 0..5 {
            trial.append(&format!("{hot}.log"), 1000);
        }
        trial.settle();
        assert!(trial.host.descriptors() <= DESCRIPTORS as usize);
    }
    assert!(!trial.host.stderr().contains("Too many open files"));
}
