//! Hashes that outlive this program: values computed once with the reference C library (xxHash 0.8, XXH3_64bits).

use garam_proto::hash::{HEAD_BYTES, TAIL_BYTES, file_lineage, head_hash, partition_of, tail_hash};
use garam_proto::{AgentId, SourceName};

fn bytes() -> Vec<u8> {
    (0..10_000u32).map(|i| (i % 251) as u8).collect()
}

#[test]
fn hashes_agree_with_the_reference_library() {
    assert_eq!(tail_hash(b"garam"), 0xd3a5_7360_8330_fc58);
    assert_eq!(head_hash(b"garam"), 0xd3a5_7360_8330_fc58);
    assert_eq!(head_hash(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(tail_hash(&bytes()), 0x30f8_9942_5d8f_a8fc);
    assert_eq!(head_hash(&bytes()), 0x7135_ffa5_04f1_bc71);
}

#[test]
fn a_lineage_and_its_partition_never_change() {
    let agent = AgentId(std::array::from_fn(|i| i as u8));
    let source = SourceName::new("app").unwrap();
    let lineage = file_lineage(agent, &source, b"/var/log/app.log");
    assert_eq!(lineage.0, 0x1650_8185_936d_f02f);
    assert_eq!([1, 2, 7, 64].map(|n| partition_of(lineage, n)), [0, 0, 2, 48]);
    assert_eq!(
        partition_of(lineage, 0),
        0,
        "no partitions is one partition, not a division by zero"
    );
}

#[test]
fn every_byte_a_hash_covers_counts_and_no_other() {
    let bytes = bytes();
    let (tail, head) = (tail_hash(&bytes), head_hash(&bytes));
    for at in [0, 1, HEAD_BYTES - 1, HEAD_BYTES, bytes.len() - TAIL_BYTES - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_eq!(head_hash(&changed) != head, at < HEAD_BYTES, "head, byte {at}");
        assert_eq!(tail_hash(&changed), tail, "tail, byte {at}");
    }
    for at in [bytes.len() - TAIL_BYTES, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_ne!(tail_hash(&changed), tail, "tail, byte {at}");
    }
}
