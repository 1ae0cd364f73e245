//! What one side encodes the other decodes to the same value, whatever it is and however its bytes arrive.

use bytes::BytesMut;
use garam_proto::{BlockHeader, FrameLimits, FrameReader, Message};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{arbitrary, samples};

#[test]
fn every_sample_comes_back() {
    for (message, payload) in samples::all() {
        let mut buffer = BytesMut::from(&samples::frame_bytes(&message, payload)[..]);
        let frame = FrameReader::new(FrameLimits::SESSION).next(&mut buffer).unwrap().unwrap();
        assert_eq!(Message::decode(&frame).unwrap(), message);
        assert_eq!(frame.payload, payload);
        assert!(buffer.is_empty());
    }
}

proptest! {
    #[test]
    fn any_messages_come_back_in_order_however_they_are_cut(
        messages in vec(arbitrary::message(), 1..6),
        payload in vec(any::<u8>(), 0..200),
        piece in 1usize..300,
    ) {
        let may_carry = |message: &Message| matches!(message, Message::Push(_) | Message::Part(_));
        let mut wire = Vec::new();
        for message in &messages {
            let payload = if may_carry(message) { &payload[..] } else { &[] };
            wire.extend(samples::frame_bytes(message, payload));
        }
        let mut reader = FrameReader::new(FrameLimits::SESSION);
        let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = reader.next(&mut buffer).unwrap() {
                let message = Message::decode(&frame).unwrap();
                let expected = if may_carry(&message) { &payload[..] } else { &[] };
                prop_assert_eq!(&frame.payload[..], expected);
                received.push(message);
            }
        }
        prop_assert_eq!(received, messages);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn any_block_header_comes_back(header in arbitrary::block_header()) {
        let bytes = garam_proto::encode("block", &header).unwrap();
        prop_assert_eq!(garam_proto::decode::<BlockHeader>("block", &bytes).unwrap(), header);
    }
}
