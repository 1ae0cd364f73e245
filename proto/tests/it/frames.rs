//! Hostile and damaged bytes at the door: each ends in an error, at the latest when the frame is whole.

use bytes::{Bytes, BytesMut};
use garam_proto::message::{MessageError, Ping};
use garam_proto::{Frame, FrameError, FrameLimits, FrameReader, Message};

use crate::largest::largest_allocation;
use crate::samples;

/// Small, so that a length that was flipped upwards is waited for only briefly.
const TIGHT: FrameLimits = FrameLimits { max_header: 4096, max_payload: 4096 };

fn read(bytes: &[u8], limits: FrameLimits) -> Result<Option<Frame>, FrameError> {
    FrameReader::new(limits).next(&mut BytesMut::from(bytes))
}

#[test]
fn a_frame_cut_at_any_byte_is_waited_for() {
    for (message, payload) in samples::all() {
        let bytes = samples::frame_bytes(&message, payload);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut], TIGHT), Ok(None), "{} cut at {cut}", message.name());
        }
        assert!(read(&bytes, TIGHT).unwrap().is_some());
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    for (message, payload) in samples::all() {
        let good = samples::frame_bytes(&message, payload);
        let payload_at = good.len() - payload.len();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let in_payload = bit / 8 >= payload_at;
            // What a longer frame would wait for.
            bytes.resize(bytes.len() + 8192, 0);
            match read(&bytes, TIGHT) {
                Err(_) => assert!(!in_payload),
                Ok(None) => panic!("{} bit {bit}: still waiting", message.name()),
                Ok(Some(frame)) => {
                    assert!(in_payload, "{} bit {bit} passed", message.name());
                    let decoded = Message::decode(&frame).unwrap();
                    assert_eq!(decoded, message, "a payload bit changes no header");
                    if let Message::Push(push) = decoded {
                        push.block.check_payload(payload).unwrap();
                        push.block.check_payload(&frame.payload).unwrap_err();
                    }
                }
            }
        }
    }
}

#[test]
fn a_foreign_protocol_ends_the_connection_at_byte_16() {
    let strangers: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: core\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 16],
        &[0xff; 16],
    ];
    for bytes in strangers {
        let text = String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(read(&bytes[..15], FrameLimits::GREETING), Ok(None), "{text:?}");
        for limits in [FrameLimits::GREETING, FrameLimits::SESSION] {
            read(&bytes[..16], limits).expect_err(&text);
        }
    }
    let error = read(b"GET / HTTP/1.1\r\n", FrameLimits::GREETING).unwrap_err();
    expect_test::expect![
        "frame header of 542393671 bytes is above the limit of 4096: is the peer speaking Garam's protocol?"
    ]
    .assert_eq(&error.to_string());
}

#[test]
fn absurd_lengths_are_refused_before_anything_is_allocated() {
    let good = samples::frame_bytes(&Ping { nonce: 1 }.into(), b"");
    for field in [0..4, 4..8] {
        for len in [u32::MAX, i32::MAX as u32, 2 * 1024 * 1024 + 1] {
            let mut bytes = good.clone();
            bytes[field.clone()].copy_from_slice(&len.to_le_bytes());
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut reader = FrameReader::new(FrameLimits::SESSION);
            let (result, largest) = largest_allocation(|| reader.next(&mut buffer));
            assert!(matches!(
                result,
                Err(FrameError::HeaderTooLarge { .. } | FrameError::PayloadTooLarge { .. })
            ));
            assert!(largest < 1024, "allocated {largest} bytes");
        }
    }
}

#[test]
fn a_greeting_has_no_payload_and_a_small_header() {
    let push = samples::frame_bytes(&garam_proto::message::Part { slot: 1 }.into(), b"x");
    assert_eq!(
        read(&push, FrameLimits::GREETING),
        Err(FrameError::PayloadTooLarge { len: 1, limit: 0 })
    );
    assert!(read(&push, FrameLimits::SESSION).unwrap().is_some());
}

#[test]
fn another_layout_or_a_used_reserved_field_is_named() {
    for at in [9, 10, 11] {
        let mut bytes = samples::frame_bytes(&Ping { nonce: 1 }.into(), b"");
        bytes[at] ^= 2;
        assert!(matches!(read(&bytes, TIGHT), Err(FrameError::Layout { .. })), "byte {at}");
    }
}

#[test]
fn an_unknown_kind_and_a_payload_where_none_belongs_are_refused() {
    for kind in [0, 22, 255] {
        let frame = Frame { kind, header: Bytes::new(), payload: Bytes::new() };
        assert_eq!(Message::decode(&frame), Err(MessageError::UnknownKind(kind)));
    }
    for (message, _) in samples::all() {
        let bytes = samples::frame_bytes(&message, b"x");
        let decoded = Message::decode(&read(&bytes, TIGHT).unwrap().unwrap());
        match message {
            Message::Push(_) | Message::Part(_) => assert_eq!(decoded, Ok(message)),
            _ => assert_eq!(decoded, Err(MessageError::Payload(message.name()))),
        }
    }
}
