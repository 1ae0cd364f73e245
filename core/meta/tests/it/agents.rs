//! Agents and tokens: what one commit holds, which key counts, and that a cut leaves no half of it.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use garam_meta::{
    Enrolment, Grant, GrantError, KeyHash, Meta, NewToken, Proposal, Proven, Signed, Unusable,
};
use garam_proto::AgentId;

use crate::Place;

const AGENT: AgentId = AgentId([3; 16]);

fn token(id: &str) -> NewToken {
    NewToken {
        id: id.into(),
        secret_hash: KeyHash([1; 32]),
        host: format!("host-{id}"),
        policy: Some("web".into()),
        replaces: None,
        networks: vec!["10.0.0.0/8".into(), "::1/128".into()],
        uses: 1,
        expires_us: 1_000,
    }
}

fn enrolment(id: &str, key: u8) -> Enrolment {
    Enrolment {
        token: id.into(),
        host: format!("host-{id}"),
        key_hash: KeyHash([key; 32]),
        now_us: 10,
    }
}

fn sign(grant: &Grant) -> Result<Signed, Infallible> {
    let chain = format!("{} of {}", grant.generation, grant.agent);
    Ok(Signed { chain, expires_us: 5_000 })
}

fn proposal(key: u8, proven: Option<(u64, u8)>) -> Proposal {
    let proven =
        proven.map(|(generation, key)| Proven { generation, key_hash: KeyHash([key; 32]) });
    Proposal {
        agent: AGENT,
        host: "web-01".into(),
        policy: None,
        key_hash: KeyHash([key; 32]),
        proven,
        recoveries: None,
    }
}

async fn granted(meta: &Meta, proposal: &Proposal) -> u64 {
    meta.grant(proposal, sign).await.unwrap().0.generation
}

/// Bound generation and key, then the next.
async fn keys(meta: &Meta) -> (u64, u8, Option<(u64, u8)>) {
    let record = meta.identity(AGENT).await.unwrap().unwrap();
    (record.generation, record.key_hash.0[0], record.next.map(|(next, key)| (next, key.0[0])))
}

#[tokio::test]
async fn a_token_is_used_once_and_answers_its_key_again() {
    let place = Place::new();
    let meta = place.open().await;
    meta.create_token(&token("a")).await.unwrap();
    let first = meta.enrol(&enrolment("a", 1), sign).await.unwrap().unwrap();
    let meta = place.open().await;
    let again = meta.enrol(&enrolment("a", 1), sign).await.unwrap().unwrap();
    assert_eq!((first.agent, &first.chain, first.again), (again.agent, &again.chain, false));
    assert!(again.again);
    let other = meta.enrol(&enrolment("a", 2), sign).await.unwrap();
    assert_eq!(other, Err(Unusable::Used));
    let late = Enrolment { now_us: 1_000, ..enrolment("a", 1) };
    assert_eq!(meta.enrol(&late, sign).await.unwrap(), Err(Unusable::Expired));
    let stored = meta.tokens().await.unwrap();
    assert_eq!((&stored[0].token, stored[0].used), (&token("a"), 1));
    let record = meta.identity(first.agent).await.unwrap().unwrap();
    assert_eq!((record.host.as_str(), record.policy.as_deref()), ("host-a", Some("web")));
}

#[tokio::test]
async fn two_keys_that_race_for_one_token_make_one_agent() {
    let place = Place::new();
    let (a, b) = (place.open().await, place.open().await);
    a.create_token(&token("a")).await.unwrap();
    let (first, second) = (enrolment("a", 1), enrolment("a", 2));
    let (first, second) = tokio::join!(a.enrol(&first, sign), b.enrol(&second, sign));
    let won = [first.unwrap().is_ok(), second.unwrap().is_ok()];
    assert_eq!(won.iter().filter(|&&won| won).count(), 1, "{won:?}");
    assert_eq!(a.identities().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_signed_burns_nothing() {
    let place = Place::new();
    let meta = place.open().await;
    meta.create_token(&token("a")).await.unwrap();
    let failed = meta.enrol(&enrolment("a", 1), |_| Err(std::fmt::Error)).await;
    assert!(matches!(failed, Err(GrantError::Sign(_))), "{failed:?}");
    assert_eq!(meta.identities().await.unwrap(), []);
    assert!(meta.enrol(&enrolment("a", 2), sign).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_call_that_is_cancelled_leaves_the_file_free() {
    let place = Place::new();
    let meta = place.open().await;
    meta.create_token(&token("a")).await.unwrap();
    for steps in 0..40 {
        let enrolment = enrolment("a", 1);
        let enrolling = meta.enrol(&enrolment, sign);
        tokio::pin!(enrolling);
        for _ in 0..steps {
            if futures_poll(enrolling.as_mut()).await {
                break;
            }
        }
    }
    // Whatever had happened, the same key gets its answer, and nobody holds the file.
    assert!(meta.enrol(&enrolment("a", 1), sign).await.unwrap().is_ok());
    assert_eq!(meta.identities().await.unwrap().len(), 1);
}

/// Polls once and gives everybody else a turn.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    let ready = std::future::poll_fn(|context| {
        std::task::Poll::Ready(future.as_mut().poll(context).is_ready())
    });
    let ready = ready.await;
    tokio::task::yield_now().await;
    ready
}

#[tokio::test]
async fn the_old_key_counts_until_the_new_one_was_used() {
    let place = Place::new();
    let meta = place.open().await;
    assert_eq!(granted(&meta, &proposal(1, None)).await, 1);
    assert_eq!(keys(&meta).await, (1, 1, None));
    assert_eq!(granted(&meta, &proposal(2, Some((1, 1)))).await, 2);
    assert_eq!(keys(&meta).await, (1, 1, Some((2, 2))));
    assert_eq!(granted(&meta, &proposal(3, Some((1, 1)))).await, 3);
    assert_eq!(keys(&meta).await, (1, 1, Some((3, 3))));
    meta.settle(AGENT, Proven { generation: 3, key_hash: KeyHash([3; 32]) }).await.unwrap();
    meta.settle(AGENT, Proven { generation: 2, key_hash: KeyHash([2; 32]) }).await.unwrap();
    assert_eq!(keys(&meta).await, (3, 3, None), "an older key never comes back");
}

#[tokio::test]
async fn a_revocation_is_for_ever_and_a_new_key_is_above_it() {
    let place = Place::new();
    let meta = place.open().await;
    granted(&meta, &proposal(1, None)).await;
    granted(&meta, &proposal(2, Some((1, 1)))).await;
    meta.revoke(AGENT, 2).await.unwrap();
    let renewed = meta.grant(&proposal(3, Some((2, 2))), sign).await;
    assert!(matches!(renewed, Err(GrantError::Revoked(AGENT))), "{renewed:?}");
    assert_eq!(granted(&meta, &proposal(4, None)).await, 3);
    assert_eq!(keys(&meta).await, (3, 4, None), "a revoked key has nothing to go on with");
    let meta = place.open().await;
    assert_eq!(meta.revocations().await.unwrap()[&AGENT], 2);
}

#[tokio::test]
async fn a_revocation_is_in_the_copy_and_a_file_without_it_is_refused() {
    let place = Place::new();
    let meta = place.open().await;
    granted(&meta, &proposal(1, None)).await;
    meta.revoke(AGENT, 1).await.unwrap();
    drop(meta);
    place.execute("delete from revocations").await;
    let error = Meta::open(&place.path()).await.unwrap_err().to_string();
    assert!(error.contains("revocation of agent"), "{error}");
}

#[tokio::test]
async fn recoveries_are_counted_and_a_lost_answer_counts_once() {
    let place = Place::new();
    let meta = place.open().await;
    granted(&meta, &proposal(1, None)).await;
    let recovery = |key, proven| Proposal { recoveries: Some(2), ..proposal(key, Some(proven)) };
    assert_eq!(granted(&meta, &recovery(2, (1, 1))).await, 2);
    assert_eq!(granted(&meta, &recovery(2, (1, 1))).await, 2);
    assert_eq!(granted(&meta, &recovery(3, (2, 2))).await, 3);
    let third = meta.grant(&recovery(4, (3, 3)), sign).await;
    assert!(matches!(third, Err(GrantError::TooManyRecoveries(AGENT))), "{third:?}");
    assert_eq!(granted(&meta, &proposal(5, Some((3, 3)))).await, 4, "renewal is no recovery");
}

/// Says in which folder the child enrols.
const FOLDER: &str = "GARAM_META_ENROL_FOLDER";

/// Enrols for ever and prints what is done. Does nothing as a test of its own.
#[tokio::test]
async fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let meta = Meta::open(&std::path::Path::new(&folder).join("meta.db")).await.unwrap();
    let first = meta.tokens().await.unwrap().len();
    for round in first.. {
        let id = format!("t{round}");
        meta.create_token(&token(&id)).await.unwrap();
        let enrolled = meta.enrol(&enrolment(&id, 7), sign).await.unwrap().unwrap();
        println!("done {id} {}", enrolled.agent);
    }
}

#[tokio::test]
async fn a_killed_process_leaves_a_whole_agent_or_none() {
    let place = Place::new();
    drop(place.open().await);
    let mut random = fastrand::Rng::with_seed(5);
    let mut told: Vec<(String, String)> = Vec::new();
    for _ in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agents::the_process_that_is_killed", "--nocapture"])
            .env(FOLDER, place.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = random.usize(1..4);
        for (count, line) in
            lines.map_while(Result::ok).filter(|line| line.contains("done ")).enumerate()
        {
            let line = line.split("done ").nth(1).unwrap().to_owned();
            let (id, agent) = line.split_once(' ').unwrap();
            told.push((id.into(), agent.into()));
            if count + 1 == enough {
                // Somewhere inside the next round.
                std::thread::yield_now();
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();

        let meta = place.open().await;
        let agents = meta.identities().await.unwrap();
        for (id, agent) in &told {
            let found = agents.iter().find(|found| found.host == format!("host-{id}")).unwrap();
            assert_eq!(&found.agent.to_string(), agent);
        }
        // Every token that was used has its agent, every agent its token, and each answers its key again.
        for record in meta.tokens().await.unwrap() {
            let id = &record.token.id;
            let found = agents.iter().find(|found| found.host == record.token.host);
            assert_eq!(found.is_some(), record.used == 1, "{id}");
            let again = meta.enrol(&enrolment(id, 7), sign).await.unwrap().unwrap();
            assert_eq!(found.map_or(again.agent, |found| found.agent), again.agent);
        }
    }
    assert!(told.len() >= 10);
}
