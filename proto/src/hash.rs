//! The hashes that identify source bytes. All are XXH3-64 with seed 0 (xxHash 0.8), so any tool can recompute them.
//!
//! They tell accidents apart, not attackers: the certificate says who sends, the hash only which bytes came before.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::ids::{AgentId, LineageId, SourceName};

/// How many bytes before a mark `tail_hash` covers, at most.
pub const TAIL_BYTES: usize = 4096;
/// How many bytes of a file's head its descriptor covers, at most.
pub const HEAD_BYTES: usize = 4096;
/// A head shorter than this does not identify a file on its own.
pub const HEAD_MIN_BYTES: usize = 1024;

/// Hash of the source bytes just before a position: pass up to [`TAIL_BYTES`] of them. Empty (position 0) hashes to 0,
/// so that "nothing before" never depends on a hash function.
pub fn tail_hash(bytes_before: &[u8]) -> u64 {
    if bytes_before.is_empty() {
        return 0;
    }
    let start = bytes_before.len().saturating_sub(TAIL_BYTES);
    bytes_before.get(start..).map_or(0, xxh3_64)
}

/// Hash of the first bytes of a file, at most [`HEAD_BYTES`].
pub fn head_hash(head: &[u8]) -> u64 {
    xxh3_64(head.get(..HEAD_BYTES).unwrap_or(head))
}

/// The lineage of a file: agent, source and the path it had when it was first met, so that a successor created under
/// the same path after a rotation follows its predecessor into the same partition.
pub fn file_lineage(agent: AgentId, source: &SourceName, path: &[u8]) -> LineageId {
    let mut hash = Xxh3::new();
    hash.update(b"garam.lineage.file.1\0");
    hash.update(&agent.0);
    hash.update(source.as_str().as_bytes());
    hash.update(b"\0");
    hash.update(path);
    LineageId(hash.digest())
}

/// The partition a new lineage is given. Asked once per lineage; the answer is recorded in the log and stays.
pub fn partition_of(lineage: LineageId, partitions: u32) -> u32 {
    let mixed = xxh3_64(&lineage.0.to_le_bytes());
    u32::try_from(mixed % u64::from(partitions.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_hash_covers_the_last_4_kib_only() {
        let long: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(tail_hash(&long), tail_hash(long.get(10_000 - TAIL_BYTES..).unwrap()));
        assert_ne!(tail_hash(&long), tail_hash(&long[..9_999]));
        assert_eq!(tail_hash(b""), 0);
    }

    #[test]
    fn hashes_are_what_any_xxh3_gives() {
        // Golden: XXH3_64bits("garam"), so that another implementation can check itself.
        assert_eq!(head_hash(b"garam"), xxh3_64(b"garam"));
        expect_test::expect!["d3a573608330fc58"]
            .assert_eq(&format!("{:016x}", tail_hash(b"garam")));
    }
}
