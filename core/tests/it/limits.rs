//! Limits at the gateway: who may be on the way in, for how long, how fast, with how much, and that others do not notice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use garam_proto::message::{self as m, ByeReason, Message};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::client::{Client, block, client_config, handshake, hello};
use crate::core_under_test::Core;
use crate::enrolment::{enrolled, token};

/// Far longer than any deadline of these cores.
const PATIENCE: Duration = Duration::from_secs(25);
/// The beginning of a TLS record that says it goes on.
const HALF_A_HELLO: [u8; 8] = [22, 3, 1, 2, 0, 1, 0, 1];

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 7, last))
}

async fn connect_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn client_from(from: IpAddr, core: &Core, host: &str) -> Result<Client, String> {
    let tcp = connect_from(from, core.app.gateway_addr()).await;
    let stream = handshake(tcp, client_config(&core.identity(host))).await?;
    Client::begin(stream, hello(m::VERSIONS)).await
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

/// The goodbye, past whatever else was on its way.
async fn goodbye(agent: &mut Client) -> Option<(ByeReason, String)> {
    loop {
        if let Message::Bye(bye) = agent.receive().await? {
            return Some((bye.reason, bye.text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_speak_in_time_is_closed_and_noted() {
    let core = Core::with("handshake_timeout = \"300ms\"", "").await;
    let to = core.app.gateway_addr();
    let mut silent = TcpStream::connect(to).await.unwrap();
    assert!(is_closed(&mut silent).await, "silent");
    core.refused("handshake").await;
    let mut slow = TcpStream::connect(to).await.unwrap();
    slow.write_all(&HALF_A_HELLO).await.unwrap();
    assert!(is_closed(&mut slow).await, "in the middle of its handshake");
    // With its certificate shown and its greeting left out.
    let tcp = TcpStream::connect(to).await.unwrap();
    let mut rude = handshake(tcp, client_config(&core.identity("web-01"))).await.unwrap();
    let mut rest = Vec::new();
    assert!(timeout(PATIENCE, rude.read_to_end(&mut rest)).await.is_ok(), "without a greeting");
    let noted = || std::future::ready(core.refusals("handshake") == 3);
    core.eventually("each is in the audit log", noted).await;
    // A probe that says nothing and goes is nobody's fault.
    drop(TcpStream::connect(to).await.unwrap());
    assert!(client_from(address(1), &core, "web-02").await.is_ok());
    assert_eq!(core.refusals("handshake"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_and_a_frame_that_drips_are_ended() {
    let core = Core::with("idle_timeout = \"500ms\"\nframe_timeout = \"500ms\"", "").await;
    let to = core.app.gateway_addr();
    let mut silent = Client::connect(to, &core.identity("web-01")).await.unwrap();
    assert_eq!(goodbye(&mut silent).await.unwrap().0, ByeReason::Idle);

    let mut dripping = Client::connect(to, &core.identity("web-02")).await.unwrap();
    dripping.claim(1, 1, "logs").await.unwrap();
    let payload = vec![b'x'; 1000];
    let push = m::Push { slot: 1, answer: 1, block: block(dripping.welcome.agent, 1, 0, &payload) };
    let frame = Message::from(push).encode(1000).unwrap();
    let begun = Instant::now();
    for byte in frame.iter().chain(&payload) {
        dripping.raw(&[*byte]).await;
        sleep(Duration::from_millis(20)).await;
        if begun.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let (reason, text) = goodbye(&mut dripping).await.unwrap();
    assert_eq!((reason, text.contains("not the rest in time")), (ByeReason::Idle, true), "{text}");
    core.refused("slow").await;

    // Slower than the deadline as a whole, but busy: pings keep a session.
    let mut busy = Client::connect(to, &core.identity("web-03")).await.unwrap();
    for nonce in 0..8 {
        sleep(Duration::from_millis(150)).await;
        busy.send(m::Ping { nonce }.into(), &[]).await;
        assert_eq!(busy.receive().await, Some(m::Pong { nonce }.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_takes_its_share_of_the_way_in_and_sessions_keep_their_places() {
    let gateway = "max_half_open = 16\nmax_half_open_per_address = 4\nmax_sessions = 1";
    let core = Core::with(gateway, "").await;
    let to = core.app.gateway_addr();
    let mut crowd = Vec::new();
    for _ in 0..4 {
        crowd.push(connect_from(address(1), to).await);
    }
    let mut fifth = connect_from(address(1), to).await;
    let begun = Instant::now();
    assert!(is_closed(&mut fifth).await);
    assert!(begun.elapsed() < Duration::from_millis(1500), "at once, not at its deadline");
    core.refused("connection").await;

    let _agent = client_from(address(2), &core, "web-01").await.unwrap();
    let refused = client_from(address(2), &core, "web-02").await.err().unwrap();
    assert!(refused.contains("Unavailable") && refused.contains("all 1 sessions"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_handshake_holds_up_nobody_elsewhere_and_waiting_costs_no_deadline() {
    // One turn for each address.
    let core = Core::with("max_handshakes = 8", "").await;
    let mut stalled = connect_from(address(1), core.app.gateway_addr()).await;
    stalled.write_all(&HALF_A_HELLO).await.unwrap();
    let begun = Instant::now();
    let (elsewhere, behind) = tokio::join!(
        async {
            let client = client_from(address(2), &core, "web-01").await;
            client.map(|_| begun.elapsed())
        },
        client_from(address(1), &core, "web-02"),
    );
    assert!(elsewhere.unwrap() < Duration::from_millis(1800), "another address waits for nobody");
    assert!(behind.is_ok(), "the same address waits for its turn and is let in");
    assert!(is_closed(&mut stalled).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_agents_that_come_at_once_are_all_let_in() {
    let core = Core::start().await;
    let to = core.app.gateway_addr();
    let configs: Vec<_> = (0..1000)
        .map(|number| client_config(&core.identity(&format!("host-{number:04}"))))
        .collect();
    let mut coming = tokio::task::JoinSet::new();
    for config in configs {
        coming.spawn(async move {
            let tcp = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
            let mut agent =
                Client::begin(handshake(tcp, config).await?, hello(m::VERSIONS)).await?;
            agent.claim(1, 1, "logs").await?;
            agent.push(1, 1, 1, 0, "here\n").await;
            agent.acked(1, 5).await;
            Ok::<_, String>(agent)
        });
    }
    let mut agents = Vec::new();
    while let Some(agent) = coming.join_next().await {
        agents.push(agent.unwrap().unwrap());
    }
    assert_eq!(agents.len(), 1000);
    core.eventually("every line is delivered", || async { core.lines().await.len() == 1000 }).await;
    assert_eq!(core.refusals("connection") + core.refusals("handshake"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reads_no_answers_is_ended_and_holds_nothing() {
    let core = Core::with("frame_timeout = \"500ms\"", "").await;
    let to = core.app.gateway_addr();
    let mut deaf = Client::connect(to, &core.identity("web-01")).await.unwrap();
    let ping = Message::from(m::Ping { nonce: 7 }).encode(0).unwrap().repeat(16 * 1024);
    let flood = async { while deaf.raw(&ping).await {} };
    assert!(timeout(PATIENCE, flood).await.is_ok(), "it is still listened to");
    let gone = || async { core.ask("/metrics").await.1.contains("garam_sessions 0") };
    core.eventually("its session is gone", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_never_ends_keeps_nobody_waiting() {
    let gateway = "max_in_flight = \"16MiB\"\nframe_timeout = \"1s\"";
    let core = Core::with(gateway, "").await;
    let to = core.app.gateway_addr();
    let mut slow = Client::connect(to, &core.identity("web-01")).await.unwrap();
    slow.claim(1, 1, "logs").await.unwrap();
    let whole = vec![b'x'; 16 * 1024 * 1024];
    let header = block(slow.welcome.agent, 1, 0, &whole);
    slow.send(m::Push { slot: 1, answer: 1, block: header }.into(), &whole[..1000]).await;

    let mut honest = Client::connect(to, &core.identity("web-02")).await.unwrap();
    honest.claim(1, 2, "logs").await.unwrap();
    honest.push(1, 2, 1, 0, "here\n").await;
    let begun = Instant::now();
    honest.acked(1, 5).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "it waited for a stranger's block");

    for _ in 0..40 {
        slow.send(m::Part { slot: 1 }.into(), b"x").await;
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(goodbye(&mut slow).await.map(|bye| bye.0), Some(ByeReason::Idle));
    core.delivered(&["here"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_never_resumed() {
    let core = Core::start().await;
    let config = client_config(&core.identity("web-01"));
    for _ in 0..3 {
        let tcp = TcpStream::connect(core.app.gateway_addr()).await.unwrap();
        let stream = handshake(tcp, config.clone()).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!connection.is_early_data_accepted());
        let mut agent = Client::begin(stream, hello(m::VERSIONS)).await.unwrap();
        // What came behind the handshake has been read by now: no tickets.
        assert_eq!(agent.tickets(), 0);
        agent.claim(1, 1, "logs").await.unwrap();
    }
}

const POLICIES: &str = "[policy.slow]\nstreams = [\"*\"]\nrate = \"64KiB\"\n[policy.short]\nstreams = [\"*\"]\nmax_record = \"64KiB\"";

/// An agent with a policy.
async fn agent_with(core: &Core, policy: &str, host: &str) -> Client {
    let token = token(core, |token| {
        token.policy = Some(policy.into());
        token.host = host.into();
    })
    .await;
    let (folder, _) = enrolled(core, &token, host).await;
    Client::connect(core.app.gateway_addr(), &folder).await.unwrap()
}

/// Pushes 64 blocks of 4 KiB and gives how long it took until the last was acknowledged.
async fn ship(agent: &mut Client, generation: u8) -> Duration {
    agent.claim(1, generation, "logs").await.unwrap();
    let lines = "x".repeat(4095) + "\n";
    let begun = Instant::now();
    for number in 0..64 {
        agent.push(1, generation, 1, number * 4096, &lines).await;
    }
    agent.acked(1, 64 * 4096).await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sends_no_faster_than_its_policy_and_others_do_not_notice() {
    let core = Core::with("enrol_listen = \"127.0.0.1:0\"", POLICIES).await;
    let mut slow = agent_with(&core, "slow", "web-01").await;
    let mut free =
        Client::connect(core.app.gateway_addr(), &core.identity("web-02")).await.unwrap();
    let (took, free_took) = tokio::join!(ship(&mut slow, 1), ship(&mut free, 2));
    // 256 KiB at 64 KiB a second, of which the first second's may come at once.
    assert!(took > Duration::from_millis(2500), "{took:?}");
    assert!(free_took < Duration::from_millis(2000), "{free_took:?}");
    core.eventually("nothing is lost", || async { core.lines().await.len() == 128 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_beyond_the_policy_ends_the_session_and_reaches_nothing() {
    let core = Core::with("enrol_listen = \"127.0.0.1:0\"", POLICIES).await;
    let mut agent = agent_with(&core, "short", "web-01").await;
    assert_eq!(agent.welcome.max_record, 64 * 1024, "it is told");
    agent.claim(1, 1, "logs").await.unwrap();
    let line = "x".repeat(2 * 1024 * 1024) + "\n";
    let header = block(agent.welcome.agent, 1, 0, line.as_bytes());
    agent
        .send(m::Push { slot: 1, answer: 1, block: header }.into(), &line.as_bytes()[..1000])
        .await;
    let (reason, text) = goodbye(&mut agent).await.unwrap();
    assert_eq!(reason, ByeReason::Protocol);
    assert!(text.contains("policy short allows 1048576"), "{text}");
    core.refused("record").await;
    assert_eq!(core.lines().await, Vec::<String>::new());
}
