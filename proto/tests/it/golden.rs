//! Golden bytes. The format is frozen as protocol version 1: a change here is a new version, never an update of this file.

use expect_test::{Expect, expect};
use garam_proto::block::RecordsBuilder;
use garam_proto::enrol::{
    Answer, Enrol, EnrolError, Issued, KIND, LIMITS, Question, Recover, Refused,
};
use garam_proto::frame::PREFIX_LEN;
use garam_proto::message::*;
use garam_proto::{AgentId, Codec, DecodeLimits, Frame, FrameReader, decompress};

use crate::samples;

fn hex(bytes: &[u8]) -> String {
    let groups = bytes.chunks(8).map(|group| group.iter().map(|b| format!("{b:02x}")).collect());
    let groups: Vec<String> = groups.collect();
    groups.chunks(5).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n  ")
}

fn check(bytes: &[u8], expect: Expect) {
    expect.assert_eq(&hex(bytes));
}

#[test]
fn every_message_has_the_bytes_of_version_1() {
    let mut text = String::new();
    for (message, payload) in samples::all() {
        let bytes = samples::frame_bytes(&message, payload);
        let header = &bytes[PREFIX_LEN..bytes.len() - payload.len()];
        text += &format!("{} kind {}\n  {}\n", message.name(), bytes[8], hex(header));
    }
    GOLDEN_MESSAGES.assert_eq(&text);
}

#[test]
fn an_enrolment_has_the_bytes_of_version_1() {
    let enrol = Enrol {
        token: "01ab".into(),
        secret: "s3".into(),
        host: "web-1".into(),
        csr: vec![0x30, 0],
        build: "b".into(),
    };
    let recover = Recover { csr: vec![0x30], build: "b".into() };
    let issued = Issued {
        agent: AgentId([7; 16]),
        host: "web-1".into(),
        root: "R".into(),
        chain: "C".into(),
        time_us: -1,
    };
    let refused = Refused { why: "no".into(), later: true, time_us: 1_700_000_000_000_000 };
    check(
        &Question::Enrol(enrol).encode().unwrap(),
        expect!["1400000000000000 400100001cc67a89 0004303161620273 33057765622d3102 30000162"],
    );
    check(
        &Question::Recover(recover).encode().unwrap(),
        expect!["0500000000000000 40010000f9046580 0101300162"],
    );
    check(
        &Answer::Issued(issued).encode().unwrap(),
        expect![[r#"
        1c00000000000000 40010000a2fd9ac3 0007070707070707 0707070707070707 07057765622d3101
          52014301"#]],
    );
    check(
        &Answer::Refused(refused).encode().unwrap(),
        expect!["0e00000000000000 4001000089c1353d 01026e6f01fd0080 3c3048140c00"],
    );
}

#[test]
fn an_enrolment_of_another_version_or_beyond_its_limit_is_refused() {
    let question = Question::Recover(Recover { csr: vec![1], build: String::new() });
    let mut buffer = bytes::BytesMut::from(&question.encode().unwrap()[..]);
    let frame = FrameReader::new(LIMITS).next(&mut buffer).unwrap().unwrap();
    assert_eq!(Question::decode(&frame), Ok(question));
    let newer = Frame { kind: KIND + 1, ..frame.clone() };
    assert_eq!(Question::decode(&newer), Err(EnrolError::Version(KIND + 1)));
    let torn = Frame { header: frame.header.slice(1..), ..frame };
    assert!(matches!(Question::decode(&torn), Err(EnrolError::Malformed(_))));
    let large = Question::Recover(Recover { csr: vec![0; 17 * 1024], build: String::new() });
    let mut buffer = bytes::BytesMut::from(&large.encode().unwrap()[..]);
    assert!(FrameReader::new(LIMITS).next(&mut buffer).is_err());
}

static GOLDEN_MESSAGES: Expect = expect![[r#"
    Push kind 7
      0301070707070707 0707070707070707 0707a1a1a1a1a1a1 a1a1a1a1a1a1a1a1 a1a1fd8877665544
      332211fd00000000 00010000fd110000 0000010000020002 001111fca3ef16bc 00fdefcdab896745
      23010103010203
    Part kind 8
      03
    Hello kind 1
      474152414d0d0a1a 0101051167617261 6d2d6167656e7420 302e312e30057765 622d31fd00803c30
      48140c00
    Welcome kind 2
      01010b676172616d 20302e312e30c1c1 c1c1c1c1c1c1c1c1 c1c1c1c1c1c10707 0707070707070707
      070707070707fdff ffffffffffffff01 fc00008000fc0000 1000fc00000001
    Open kind 3
      0104066f72646572 730a6f7264657273 2d6c6f6700152f76 61722f6c6f672f6f 72646572732f612e
      6c6f67fd08070605 040302014d01fd2a 9a0b7bfc392f2ffb 0010fdefbefecace faedfe066f726465
      72730a6f72646572 732d6c6f67010475 7569640133066f72 646572730a6f7264 6572732d6c6f6702
      0b73686f702e6f72 646572730200ff00 066f72646572730a 6f72646572732d6c 6f670303090909
    OpenAck kind 4
      01020001a1a1a1a1 a1a1a1a1a1a1a1a1 a1a1a1a100152f76 61722f6c6f672f6f 72646572732f612e
      6c6f67fd08070605 040302014d01fd2a 9a0b7bfc392f2ffb 0010fdefbefecace faedfe2afeffffff
      ffffffffffffffff ffffffffff0900
    Claim kind 5
      03066f7264657273 0a6f72646572732d 6c6f67a1a1a1a1a1 a1a1a1a1a1a1a1a1 a1a1a100152f7661
      722f6c6f672f6f72 646572732f612e6c 6f67fd0807060504 0302014d01fd2a9a 0b7bfc392f2ffb00
      10fdefbefecacefa edfefdffffffffff fffffffb00100102
    ClaimAck kind 6
      030100fb00100501 0000fc01000100
    ClaimAck kind 6
      0301010e73747265 616d206973206675 6c6c
    ClaimAck kind 6
      0301020e756e6b6e 6f776e2073747265 616d
    Ack kind 9
      0203fa04fbfb00
    Reposition kind 10
      0302fc7011010001 00
    Hold kind 11
      066f726465727300 010571756f7461
    Throttle kind 12
      066f726465727301 01fc0000010014
    Gap kind 13
      030105060103
    Advance kind 14
      030106fb84030800
    Retire kind 15
      0301fb8403
    Ping kind 16
      01
    Pong kind 17
      01
    Bye kind 18
      041b74776f206167 656e747320757365 206f6e6520696465 6e74697479
    RenewDue kind 19
      fd00803c3048140c 00
    Renew kind 20
      023000
    Renewed kind 21
      000350454d
    Renewed kind 21
      01077265766f6b65 64
"#]];

#[test]
fn a_frame_is_prefix_header_payload() {
    check(
        &samples::frame_bytes(&Ping { nonce: 1 }.into(), b""),
        expect!["0100000000000000 10010000e9d5852c 01"],
    );
    check(
        &samples::frame_bytes(&Part { slot: 3 }.into(), b"the rest"),
        expect!["0100000008000000 08010000cb3d883f 0374686520726573 74"],
    );
}

#[test]
fn a_block_header_has_the_bytes_of_version_1() {
    let (header, _) = samples::block();
    check(
        &garam_proto::encode("block", &header).unwrap(),
        expect![[r#"
        0707070707070707 0707070707070707 a1a1a1a1a1a1a1a1 a1a1a1a1a1a1a1a1 fd88776655443322
          11fd000000000001 0000fd1100000000 0100000200020011 11fca3ef16bc00fd efcdab8967452301
          0103010203"#]],
    );
}

#[test]
fn a_records_payload_has_the_bytes_of_version_1() {
    let mut builder = RecordsBuilder::new(1000);
    builder.push(1000, b"");
    builder.push(1000, b"same position");
    builder.push(1127, b"x");
    builder.push(1255, &[b'y'; 130]);
    builder.push(u128::MAX, b"far");
    let (payload, count) = builder.finish();
    assert_eq!(count, 5);
    check(
        &payload,
        expect![[r#"
        0000000d73616d65 20706f736974696f 6e7f017880018201 7979797979797979 7979797979797979
          7979797979797979 7979797979797979 7979797979797979 7979797979797979 7979797979797979
          7979797979797979 7979797979797979 7979797979797979 7979797979797979 7979797979797979
          7979797979797979 7979797979797979 7979797979797979 7979797979797979 797998f6ffffffff
          ffffffffffffffff ffffffff03036661 72"#]],
    );
}

/// What lies in a log today must decode for ever; what a compressor makes of it may change with its version.
#[test]
fn compressed_payloads_of_version_1_decode() {
    let lz4 = [0x1f, 0x61, 0x01, 0x00, 0x4a, 0x60, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61];
    let raw = decompress(Codec::Lz4, &lz4, 100, &DecodeLimits::default());
    assert_eq!(raw.unwrap(), [b'a'; 100]);
    let zstd = [
        0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x1c, 0x01, 0x15, 0x01, 0x00, 0xd8, 0x61, 0x20, 0x6c, 0x69,
        0x6e, 0x65, 0x20, 0x74, 0x68, 0x61, 0x74, 0x20, 0x72, 0x65, 0x70, 0x65, 0x61, 0x74, 0x73,
        0x20, 0x69, 0x74, 0x73, 0x65, 0x6c, 0x66, 0x0a, 0x01, 0x00, 0xfb, 0xbb, 0x3a, 0xc7,
    ];
    let raw = decompress(Codec::Zstd, &zstd, 540, &DecodeLimits::default());
    assert_eq!(raw.unwrap(), b"a line that repeats itself\n".repeat(20));
}

#[test]
fn names_of_enums_in_headers_keep_their_numbers() {
    // The number is the position in the enum: inserting or reordering a variant would change the meaning of stored bytes.
    let numbers = |bytes: Vec<Vec<u8>>| bytes.concat();
    let encode = |reason: ByeReason| garam_proto::encode("reason", &reason).unwrap();
    let byes = [
        ByeReason::Shutdown,
        ByeReason::Version,
        ByeReason::Denied,
        ByeReason::TakenOver,
        ByeReason::TakeoverStorm,
        ByeReason::Protocol,
        ByeReason::Idle,
        ByeReason::Unavailable,
    ];
    assert_eq!(numbers(byes.map(encode).to_vec()), [0, 1, 2, 3, 4, 5, 6, 7]);
    let gaps = [
        GapReason::Truncated,
        GapReason::Removed,
        GapReason::Purged,
        GapReason::Restored,
        GapReason::Accepted,
    ];
    let encode = |reason: GapReason| garam_proto::encode("reason", &reason).unwrap();
    assert_eq!(numbers(gaps.map(encode).to_vec()), [0, 1, 2, 3, 4]);
    let claims =
        [ClaimReason::Known, ClaimReason::New, ClaimReason::Branched, ClaimReason::StreamChanged];
    let encode = |reason: ClaimReason| garam_proto::encode("reason", &reason).unwrap();
    assert_eq!(numbers(claims.map(encode).to_vec()), [0, 1, 2, 3]);
    let codecs = [Codec::None, Codec::Lz4, Codec::Zstd];
    let encode = |codec: Codec| garam_proto::encode("codec", &codec).unwrap();
    assert_eq!(numbers(codecs.map(encode).to_vec()), [0, 1, 2]);
}
