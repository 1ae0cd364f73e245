//! H18: rotated files that are compressed, whenever that happens: each line once, in the generation it belongs to.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::Trial;
use crate::core::eventually;
use crate::oracle::Oracle;

const SUFFIXES: [&str; 2] = ["gz", "zst"];

/// The compressed form of some bytes.
fn pack(plain: &[u8], suffix: &str) -> Vec<u8> {
    if suffix == "zst" {
        return zstd::bulk::compress(plain, 3).unwrap();
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

/// Compresses a file as the usual programs do: the copy first, with the original's time, then the original goes.
pub(crate) fn compress(path: &Path, suffix: &str) {
    let copy = path.with_file_name(format!("{}.{suffix}", name(path)));
    let mut file = fs::File::create(&copy).unwrap();
    file.write_all(&pack(&fs::read(path).unwrap(), suffix)).unwrap();
    file.set_modified(fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    fs::remove_file(path).unwrap();
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Trial {
    fn rotate(&self, from: &str, to: &str) {
        fs::rename(self.host.log(from), self.host.log(to)).unwrap();
    }

    fn origins(&self) -> usize {
        self.core.state().origins.len()
    }

    fn gaps(&self) -> u128 {
        let state = self.core.state();
        let gaps = state.origins.values().flat_map(|origin| origin.gaps.clone());
        gaps.map(|(from, to, _)| to - from).sum()
    }

    fn says(&self, what: &str, times: usize) {
        eventually(what, || self.host.stderr().matches(what).count() >= times);
    }

    /// Kill, start and settle: what is remembered must do.
    fn again(&mut self) {
        self.host.kill();
        self.host.start();
        self.settle();
    }
}

#[test]
fn h18_compressed_while_the_agent_runs() {
    for suffix in SUFFIXES {
        let mut trial = Trial::new("a.log*", "");
        trial.append("a.log", 100);
        trial.host.start();
        for number in 1..=3 {
            trial.settle();
            let rotated = format!("a.log.{number}");
            trial.rotate("a.log", &rotated);
            trial.append("a.log", 100);
            compress(&trial.host.log(&rotated), suffix);
            trial.says("a compressed copy of a file that is being read", number);
        }
        trial.settle();
        assert_eq!(trial.origins(), 4, "a copy is no generation of its own");
        trial.append("a.log", 100);
        trial.again();
        trial.again();
        assert_eq!(trial.origins(), 4, "nor after a restart");
        assert_eq!(trial.core.lines("raw"), trial.oracle.written);
        assert_eq!(trial.gaps(), 0);
    }
}

#[test]
fn h18_compressed_unread_while_the_agent_was_down() {
    for suffix in SUFFIXES {
        for (shipped, lose) in [(200, false), (3, false), (200, true)] {
            let mut trial = Trial::new("a.log*", "");
            trial.append("a.log", shipped);
            trial.host.start();
            trial.settle();
            trial.host.terminate();
            trial.append("a.log", 150);
            trial.rotate("a.log", "a.log.2");
            compress(&trial.host.log("a.log.2"), suffix);
            trial.append("a.log", 100);
            trial.rotate("a.log", "a.log.1");
            compress(&trial.host.log("a.log.1"), suffix);
            trial.append("a.log", 50);
            if lose {
                trial.host.lose_state();
            }
            trial.host.start();
            trial.settle();
            assert_eq!(trial.core.lines("raw"), trial.oracle.written, "{suffix} {shipped} {lose}");
            assert_eq!(trial.origins(), 3);
            trial.again();
            assert_eq!(trial.origins(), 3);
            assert_eq!(trial.gaps(), 0);
        }
    }
}

#[test]
fn h18_a_restart_in_the_middle_of_a_compressed_file() {
    for suffix in SUFFIXES {
        let mut trial = Trial::with_ship("a.log*", "", "rate = \"2MiB\"");
        let mut plain = Vec::new();
        for _ in 0..60_000 {
            plain.extend_from_slice(trial.oracle.line().as_bytes());
            plain.push(b'\n');
        }
        fs::write(trial.host.log("a.log.1.copy"), pack(&plain, suffix)).unwrap();
        trial.rotate("a.log.1.copy", &format!("a.log.1.{suffix}"));
        for part in 1..=3 {
            trial.host.start();
            eventually("some of it arrives", || trial.core.lines("raw").len() > part * 5_000);
            trial.host.kill();
        }
        trial.host.start();
        trial.settle();
        assert_eq!(trial.core.lines("raw"), trial.oracle.written);
        assert_eq!(trial.origins(), 1);
        let status = trial.host.status().unwrap();
        assert_eq!(status.files[0].size, plain.len() as u64, "the plain size");
    }
}

#[test]
fn h18_a_copy_that_is_still_being_written() {
    for suffix in SUFFIXES {
        let mut trial = Trial::new("a.log*", "");
        trial.append("a.log", 300);
        let plain = fs::read(trial.host.log("a.log")).unwrap();
        let packed = pack(&plain, suffix);
        fs::remove_file(trial.host.log("a.log")).unwrap();
        let mut copy = fs::File::create(trial.host.log(&format!("a.log.1.{suffix}"))).unwrap();
        trial.host.start();
        for (number, part) in packed.chunks(packed.len() / 3 + 1).enumerate() {
            assert!(trial.core.lines("raw").is_empty());
            copy.write_all(part).unwrap();
            copy.sync_all().unwrap();
            if number < 2 {
                trial.says("a compressed file is not whole, waiting", number + 1);
            }
        }
        trial.settle();
        assert_eq!(trial.core.lines("raw"), trial.oracle.written);
    }
}

#[test]
fn h18_a_damaged_copy_gives_its_whole_lines_and_a_gap() {
    for suffix in SUFFIXES {
        for known in [false, true] {
            let mut trial = Trial::new("a.log*", "compressed_wait = \"1s\"");
            let mut original = Oracle::default();
            let path = trial.host.log("a.log");
            original.append(&path, 8_000);
            let mut size = None;
            if known {
                trial.hold_later(true);
                trial.host.start();
                eventually("it is claimed", || trial.origins() == 1);
                eventually("its size is known", || {
                    trial.host.status().is_some_and(|status| status.totals.unread_bytes > 0)
                });
                trial.host.terminate();
                trial.hold_later(false);
                size = Some(fs::metadata(&path).unwrap().len());
            }
            let packed = pack(&fs::read(&path).unwrap(), suffix);
            fs::write(trial.host.log(&format!("a.log.1.{suffix}")), &packed[..packed.len() / 2])
                .unwrap();
            fs::remove_file(&path).unwrap();
            trial.host.start();
            trial.says("the end of a damaged compressed file is lost", 1);
            trial.balance(0);
            let lines = trial.core.lines("raw");
            assert_eq!(lines[..], original.written[..lines.len()], "whole lines in order");
            let status = trial.host.status().unwrap();
            let file = &status.files[0];
            assert!(file.gap_by.contains_key("damaged"), "{file:?}");
            if let Some(size) = size {
                assert_eq!(file.size, size);
            }
            trial.host.kill();
            trial.host.start();
            trial.balance(0);
            assert_eq!(trial.core.lines("raw"), lines, "not again after a restart");
            trial.core.verify();
        }
    }
}

#[test]
fn h18_equal_heads_are_not_enough() {
    for suffix in SUFFIXES {
        let mut trial = Trial::new("a.log*", "");
        let head = "# the same head\n".repeat(400);
        let heads = |trial: &mut Trial| {
            trial.oracle.written.extend(head.lines().map(str::to_owned));
        };
        fs::write(trial.host.log("a.log"), &head).unwrap();
        heads(&mut trial);
        trial.append("a.log", 100);
        trial.host.start();
        trial.settle();
        // Another file that begins alike and was never seen plain.
        let other = trial.host.folder.path().join("other");
        fs::write(&other, &head).unwrap();
        heads(&mut trial);
        trial.oracle.append(&other, 100);
        let packed = pack(&fs::read(&other).unwrap(), suffix);
        fs::write(trial.host.log(&format!("a.log.1.{suffix}")), packed).unwrap();
        trial.settle();
        assert_eq!(trial.origins(), 2);
        trial.again();
        assert_eq!(trial.origins(), 2);
    }
}

#[test]
fn h18_dated_names_and_compressed_again() {
    let mut trial = Trial::new("a.log*", "");
    trial.append("a.log", 300);
    trial.host.start();
    trial.settle();
    trial.rotate("a.log", "a.log-20261127");
    compress(&trial.host.log("a.log-20261127"), "gz");
    trial.says("a compressed copy of a file that is being read", 1);
    trial.append("a.log", 50);
    trial.again();
    // Recompressed, running and down.
    let plain = trial.host.folder.path().join("plain");
    let mut text = trial.oracle.written[..300].join("\n");
    text.push('\n');
    fs::write(&plain, text).unwrap();
    fs::write(trial.host.log("a.log-20261127.zst"), pack(&fs::read(&plain).unwrap(), "zst"))
        .unwrap();
    trial.says("a compressed copy of a file that is being read", 2);
    fs::remove_file(trial.host.log("a.log-20261127.gz")).unwrap();
    trial.again();
    trial.host.kill();
    fs::write(trial.host.log("a.log-20261127.gz"), pack(&fs::read(&plain).unwrap(), "gz")).unwrap();
    fs::remove_file(trial.host.log("a.log-20261127.zst")).unwrap();
    trial.append("a.log", 50);
    trial.host.start();
    trial.settle();
    assert_eq!(trial.origins(), 2);
    assert_eq!(trial.gaps(), 0);
}

#[test]
fn h18_content_decides_not_the_name() {
    let mut trial = Trial::new("a.log*", "");
    // A name alone makes no compressed file.
    trial.append("a.log.gz", 10);
    let hidden = trial.host.folder.path().join("hidden");
    trial.oracle.append(&hidden, 20);
    // Two members are one content.
    let mut packed = pack(&fs::read(&hidden).unwrap(), "gz");
    trial.oracle.append(&hidden, 0);
    let more = trial.host.folder.path().join("more");
    trial.oracle.append(&more, 20);
    packed.extend(pack(&fs::read(&more).unwrap(), "gz"));
    fs::write(trial.host.log("a.log.7"), packed).unwrap();
    trial.host.start();
    trial.settle();
    assert_eq!(trial.origins(), 2);
}

#[test]
fn h18_a_member_is_appended_to_what_was_read() {
    for suffix in SUFFIXES {
        let mut trial = Trial::new("*.log*", "");
        let plain = trial.host.folder.path().join("plain");
        trial.host.start();
        for _ in 0..3 {
            trial.oracle.append(&plain, 100);
            let member = pack(&fs::read(&plain).unwrap(), suffix);
            let path = trial.host.log(&format!("a.log.{suffix}"));
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(&member).unwrap();
            fs::remove_file(&plain).unwrap();
            trial.settle();
        }
        assert_eq!(trial.origins(), 1);
        trial.again();
        assert_eq!(trial.core.lines("raw"), trial.oracle.written);
    }
}

#[test]
fn h18_many_lineages_share_few_decoders() {
    let mut trial = Trial::with_ship("*.log*", "", "block_size = \"64KiB\"");
    for number in 0..12 {
        let plain = trial.host.folder.path().join("plain");
        trial.oracle.append(&plain, 4_000);
        let packed = pack(&fs::read(&plain).unwrap(), SUFFIXES[number % 2]);
        fs::write(trial.host.log(&format!("{number}.log.gz")), packed).unwrap();
        fs::remove_file(&plain).unwrap();
    }
    trial.host.start();
    trial.settle();
    assert_eq!(trial.origins(), 12);
}

#[test]
fn h18_skipped_by_configuration() {
    let mut trial = Trial::new("a.log*", "compressed = \"skip\"");
    trial.append("a.log", 10);
    fs::write(trial.host.log("a.log.1.gz"), pack(b"not these\n", "gz")).unwrap();
    trial.host.start();
    trial.says("a compressed file is not read", 1);
    trial.settle();
    assert_eq!(trial.origins(), 1);
}
