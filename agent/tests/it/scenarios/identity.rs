//! Which file is it: the inode, the birth, the head and the bytes before the frontier decide together.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Trial, inode};
use crate::core::eventually;

/// Ships one file, stops, puts a new one in its inode, starts. Other tests may take the inode: then it begins anew.
fn reuse(header: &str, lines: usize) {
    for lose in [false, true] {
        eventually("the file system gives an inode again", || reused(header, lines, lose));
    }
}

fn reused(header: &str, lines: usize, lose: bool) -> bool {
    let mut trial = Trial::new("*.log", "");
    let path = trial.host.log("a.log");
    fs::write(&path, header).unwrap();
    trial.oracle.written.extend(header.lines().map(str::to_owned));
    trial.append("a.log", 200);
    let first = inode(&path);
    trial.host.start();
    trial.settle();
    assert_eq!(trial.host.terminate(), Some(0));
    fs::remove_file(&path).unwrap();
    let Some(new) = file_in_inode(first, trial.host.folder.path()) else { return false };
    fs::rename(new, &path).unwrap();
    fs::write(&path, header).unwrap();
    trial.oracle.written.extend(header.lines().map(str::to_owned));
    assert_eq!(inode(&path), first, "the new file lies in the old inode");
    trial.append("a.log", lines);
    if lose {
        trial.host.lose_state();
    }
    trial.host.start();
    trial.settle();
    true
}

/// Makes files until one gets the inode.
fn file_in_inode(wanted: u64, folder: &Path) -> Option<PathBuf> {
    let all = (0..64).map(|number| folder.join(format!("probe-{number}")));
    all.inspect(|path| fs::write(path, "").unwrap()).find(|path| inode(path) == wanted)
}

#[test]
fn h1_a_longer_file_in_a_reused_inode() {
    reuse("", 300);
}

#[test]
fn h2_a_shorter_file_in_a_reused_inode() {
    reuse("", 50);
}

#[test]
fn h4_a_file_with_an_equal_head_in_a_reused_inode() {
    reuse(&format!("#Fields: {}\n", "h".repeat(3000)), 300);
}

#[test]
fn h4_files_with_equal_heads_side_by_side() {
    let mut trial = Trial::new("*.log", "");
    trial.host.start();
    let header = format!("#{}\n", "h".repeat(5000));
    for name in ["a.log", "b.log", "c.log"] {
        fs::write(trial.host.log(name), &header).unwrap();
        trial.oracle.written.push(header.trim_end().into());
        trial.append(name, 20);
    }
    trial.settle();
}

#[test]
fn h6_a_file_truncated_and_grown_again_while_the_agent_was_down() {
    for (lines, lose) in [(300, false), (300, true), (50, false), (50, true)] {
        let mut trial = Trial::new("*.log", "");
        trial.append("a.log", 200);
        trial.host.start();
        trial.settle();
        trial.host.terminate();
        let file = fs::OpenOptions::new().write(true).open(trial.host.log("a.log")).unwrap();
        file.set_len(0).unwrap();
        trial.append("a.log", lines);
        if lose {
            trial.host.lose_state();
        }
        trial.host.start();
        trial.settle();
    }
}

#[test]
fn h6_a_file_rewritten_with_the_same_tail_while_the_agent_was_down() {
    let mut trial = Trial::new("*.log", "");
    let path = trial.host.log("a.log");
    let footer = "=".repeat(4000);
    let write = |trial: &mut Trial, lines: usize| {
        fs::write(&path, "").unwrap();
        trial.append("a.log", lines);
        let text = fs::read_to_string(&path).unwrap() + &footer + "\n";
        fs::write(&path, text).unwrap();
        trial.oracle.written.push(footer.clone());
    };
    write(&mut trial, 200);
    trial.host.start();
    trial.settle();
    trial.host.terminate();
    write(&mut trial, 300);
    trial.host.start();
    trial.settle();
}

#[test]
fn h34_links_and_overlapping_globs_make_one_reader() {
    let mut trial = Trial::new("*.log", "");
    let all = trial.host.log("**");
    let second = format!("\n[[file]]\nname = \"b\"\ninclude = [{all:?}]\nstream = \"raw\"\n");
    trial.host.configure(&trial.core, "*.log", &second, "");
    trial.append("a.log", 10);
    fs::hard_link(trial.host.log("a.log"), trial.host.log("hard.log")).unwrap();
    std::os::unix::fs::symlink(trial.host.log("a.log"), trial.host.log("soft.log")).unwrap();
    trial.host.start();
    trial.settle();
    trial.append("hard.log", 10);
    trial.append("soft.log", 10);
    trial.settle();
    fs::remove_file(trial.host.log("a.log")).unwrap();
    trial.append("hard.log", 10);
    trial.settle();
    assert_eq!(trial.core.state().origins.len(), 1);
}
