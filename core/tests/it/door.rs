//! The door: who gets in, what an agent is told, and that what it was told is true.

use garam_proto::message::{self as m, ByeReason, Message};
use garam_proto::{Codec, Descriptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, block, claim, hello, tls};
use crate::core_under_test::Core;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_delivered_once_over_a_restart() {
    let core = Core::start().await;
    let identity = core.identity("web-01");
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(0));
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    agent.acked(1, 8).await;
    core.delivered(&["one", "two"]).await;

    let core = core.restart().await;
    let mut agent = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(8), "the core knows where the file stands");
    agent.push(1, 1, 1, 0, "one\ntwo\n").await;
    agent.acked(1, 8).await;
    agent.push(1, 1, 1, 8, "three\n").await;
    agent.acked(1, 14).await;
    core.delivered(&["one", "two", "three"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_answered_with_the_mark_and_older_answers_are_ignored() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 4, "hole\n").await;
    let Some(Message::Reposition(again)) = agent.receive().await else {
        panic!("expected a reposition")
    };
    assert_eq!((again.slot, again.answer, again.mark), (1, 2, 0));
    // On its way when the core spoke: dropped unanswered, although it would fit now.
    agent.push(1, 1, 1, 0, "old\n").await;
    agent.push(1, 1, 2, 0, "new\n").await;
    agent.acked(1, 4).await;
    core.delivered(&["new"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_ends_the_older_and_its_stragglers_do_not_count() {
    let core = Core::start().await;
    let identity = core.identity("web-01");
    let mut older = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    older.claim(1, 1, "logs").await.unwrap();
    let mut newer = Client::connect(core.app.gateway_addr(), &identity).await.unwrap();
    newer.claim(1, 1, "logs").await.unwrap();
    older.push(1, 1, 1, 0, "straggler\n").await;
    newer.push(1, 1, 1, 0, "newer\n").await;
    newer.acked(1, 6).await;
    let ended = loop {
        match older.receive().await {
            Some(Message::Bye(bye)) => break Some(bye.reason),
            Some(_) => {}
            None => break None,
        }
    };
    assert!(matches!(ended, Some(ByeReason::TakenOver) | None), "{ended:?}");
    core.delivered(&["newer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_in_parts_is_appended_whole() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    let line = "x".repeat(2_500_000) + "\n";
    let header = block(agent.welcome.agent, 1, 0, line.as_bytes());
    let mut parts = line.as_bytes().chunks(m::MAX_PART);
    let first = parts.next().unwrap();
    agent.send(m::Push { slot: 1, answer: 1, block: header }.into(), first).await;
    for part in parts {
        agent.send(m::Part { slot: 1 }.into(), part).await;
    }
    agent.acked(1, line.len() as u128).await;
    core.eventually("the line is delivered", || async {
        core.lines().await.first().is_some_and(|l| l.len() == 2_500_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_protocol_ends_the_session_with_a_reason() {
    let core = Core::start().await;
    let identity = core.identity("web-01");
    let to = core.app.gateway_addr();
    let mut bad_crc = Client::connect(to, &identity).await.unwrap();
    bad_crc.claim(1, 1, "logs").await.unwrap();
    let mut header = block(bad_crc.welcome.agent, 1, 0, b"one\n");
    header.payload_crc ^= 1;
    bad_crc.send(m::Push { slot: 1, answer: 1, block: header }.into(), b"one\n").await;
    says_goodbye(&mut bad_crc, "checksum differs").await;

    let mut unclaimed = Client::connect(to, &identity).await.unwrap();
    unclaimed.push(9, 1, 1, 0, "one\n").await;
    says_goodbye(&mut unclaimed, "slot 9 was never claimed").await;

    let mut another = Client::connect(to, &identity).await.unwrap();
    another.claim(1, 1, "logs").await.unwrap();
    another.push(1, 2, 1, 0, "one\n").await;
    says_goodbye(&mut another, "slot 1 carries a block of another origin").await;

    // Sizes that are no range of a file, and those of a bomb.
    for (raw_len, range, why) in [
        (3, 4, "lines of 3 bytes claim a source range of 4 bytes"),
        (1 << 30, 1 << 30, "1073741824"),
    ] {
        let mut lying = Client::connect(to, &identity).await.unwrap();
        lying.claim(1, 1, "logs").await.unwrap();
        let mut header = block(lying.welcome.agent, 1, 0, b"one\n");
        (header.raw_len, header.to, header.codec) = (raw_len, range, Codec::Zstd);
        lying.send(m::Push { slot: 1, answer: 1, block: header }.into(), b"one\n").await;
        says_goodbye(&mut lying, why).await;
    }

    let mut long = Client::connect(to, &identity).await.unwrap();
    long.send(claim_of(1, 1, vec![b'x'; 8 * 1024 + 1]).into(), &[]).await;
    says_goodbye(&mut long, "a descriptor of 8193 bytes, at most 8192").await;

    let mut wrong_way = Client::connect(to, &identity).await.unwrap();
    wrong_way.send(m::Ack { marks: Vec::new() }.into(), &[]).await;
    says_goodbye(&mut wrong_way, "Ack is not for an agent to send").await;

    let mut garbage = Client::connect(to, &identity).await.unwrap();
    garbage.raw(&[0xff; 64]).await;
    says_goodbye(&mut garbage, "is the peer speaking Garam's protocol?").await;

    assert_eq!(core.lines().await, Vec::<String>::new(), "nothing of it was delivered");
}

/// A claim of an origin with this path.
fn claim_of(slot: u32, generation: u8, path: Vec<u8>) -> m::Claim {
    let mut claim = claim(slot, generation, "logs");
    if let Descriptor::File(file) = &mut claim.descriptor {
        file.path = path;
    }
    claim
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_claims_no_more_than_it_may_take_in_memory() {
    let core = Core::start().await;
    let mut greedy =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    // 8 KiB of path and half of one for the rest, of 32 MiB.
    let most = 32 * 1024 * 1024 / (8 * 1024 + 512);
    for slot in 0..=most {
        let mut claim = claim_of(slot, 1, vec![b'x'; 8 * 1024]);
        claim.generation.0[..4].copy_from_slice(&slot.to_be_bytes());
        greedy.send(claim.into(), &[]).await;
    }
    let mut granted = 0;
    let bye = loop {
        match greedy.receive().await {
            Some(Message::ClaimAck(_)) => granted += 1,
            Some(Message::Bye(bye)) => break bye,
            other => panic!("expected a goodbye, got {other:?} after {granted}"),
        }
    };
    assert_eq!(bye.reason, ByeReason::Unavailable);
    assert!(bye.text.contains("too many origins in one session"), "{}", bye.text);
    assert_eq!(granted, most);
}

async fn says_goodbye(agent: &mut Client, why: &str) {
    match agent.receive().await {
        Some(Message::Bye(bye)) => {
            assert_eq!(bye.reason, ByeReason::Protocol);
            assert!(bye.text.contains(why), "{}", bye.text);
        }
        other => panic!("expected a goodbye about {why:?}, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_the_log_refuses_ends_the_session_instead_of_leaving_the_agent_waiting() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    let backwards = m::Gap {
        slot: 1,
        answer: 1,
        from: 0,
        to: 0,
        at_least: false,
        reason: m::GapReason::Truncated,
    };
    agent.send(backwards.into(), &[]).await;
    // The agent says nothing more: it waits for an answer.
    match agent.receive().await {
        Some(Message::Bye(bye)) => assert_eq!(bye.reason, ByeReason::Unavailable, "{}", bye.text),
        other => panic!("expected a goodbye, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_stream_is_denied_with_its_name() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    let denied = agent.claim(1, 1, "nowhere").await.unwrap_err();
    assert!(denied.contains("stream nowhere is not in the configuration"), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_do_not_meet_are_told_apart() {
    let core = Core::start().await;
    let identity = core.identity("web-01");
    let mut stream = tls(core.app.gateway_addr(), &identity).await.unwrap();
    let greeting = Message::from(hello((7, 9))).encode(0).unwrap();
    stream.write_all(&greeting).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("this side speaks protocol 1 to 1, the peer 7 to 9"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_get_in() {
    let core = Core::start().await;
    let to = core.app.gateway_addr();
    let stranger = Core::start().await;
    let foreign = stranger.identity("web-01");
    // A certificate of another authority, with this core's root put in its place so that only the client is foreign.
    std::fs::copy(core.plan.pki_dir.join("root.pem"), foreign.join("ca.pem")).unwrap();
    let refused = Client::connect(to, &foreign).await;
    assert!(refused.is_err(), "a foreign certificate got in");

    // Plain text instead of TLS.
    let mut plain = TcpStream::connect(to).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _closed = plain.read_to_end(&mut answer).await.is_ok();
    assert!(!answer.starts_with(b"HTTP"), "it answered");

    // The server's own certificate is no agent's.
    let identity = core.identity("web-02");
    std::fs::copy(core.plan.pki_dir.join("server.pem"), identity.join("cert.pem")).unwrap();
    std::fs::copy(core.plan.pki_dir.join("server.key"), identity.join("key.pem")).unwrap();
    assert!(Client::connect(to, &identity).await.is_err(), "a server certificate got in");

    // An agent of this core whose certificate ends with the current second.
    let ended = core.folder.path().join("web-04");
    core.issue("web-04", std::time::Duration::ZERO, &ended);
    core.eventually("an expired certificate is refused", || async {
        Client::connect(to, &ended).await.is_err()
    })
    .await;

    let honest = core.identity("web-03");
    assert!(Client::connect(to, &honest).await.is_ok(), "an honest agent still gets in");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_tells_what_the_core_knows_of_a_file() {
    let core = Core::start().await;
    let mut agent =
        Client::connect(core.app.gateway_addr(), &core.identity("web-01")).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.acked(1, 4).await;
    let m::Claim { stream, source, descriptor, .. } = claim(1, 1, "logs");
    let query = m::OpenQuery { stream, source, descriptor };
    agent.send(m::Open { number: 5, queries: vec![query] }.into(), &[]).await;
    let Some(Message::OpenAck(ack)) = agent.receive().await else { panic!("expected an answer") };
    assert_eq!(ack.number, 5);
    assert_eq!(ack.candidates[0][0].mark, 4);
    assert_eq!(ack.candidates[0][0].tail_hash, garam_proto::hash::tail_hash(b"one\n"));
}
