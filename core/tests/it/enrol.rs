//! From a token to an agent, and on: renewal, recovery, revocation, rights. A real core with both of its ports.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use garam_core::app::{Issue, issue_agent};
use garam_core::pki::{DAY, PeerIdentity, peer_identity, read_certificates};
use garam_meta::Meta;
use garam_proto::AgentId;
use garam_proto::enrol::Answer;
use garam_proto::message::{self as m, ByeReason, Message, RenewOutcome};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::{Client, block, hello};
use crate::core_under_test::Core;
use crate::enrolment::{
    Token, ask, ask_as, builder, enrolled, folder, identity, now_us, question, request, speak,
    token,
};

const PORT: &str = "enrol_listen = \"127.0.0.1:0\"";
const POLICIES: &str = "[policy.web]\nstreams = [\"lo*\"]\n[policy.other]\nstreams = [\"other\"]";

async fn core() -> Core {
    Core::with(PORT, POLICIES).await
}

fn peer(folder: &Path) -> PeerIdentity {
    peer_identity(&read_certificates(&folder.join("cert.pem")).unwrap()[0]).unwrap()
}

async fn refusal(core: &Core, token: &Token) -> String {
    let key = KeyPair::generate().unwrap();
    match ask(core, &question(token, request(&key))).await {
        Some(Answer::Refused(refused)) => refused.why,
        other => panic!("expected a refusal: {other:?}"),
    }
}

async fn goodbye(agent: &mut Client) -> Option<ByeReason> {
    loop {
        match agent.receive().await {
            Some(Message::Bye(bye)) => return Some(bye.reason),
            Some(_) => {}
            None => return None,
        }
    }
}

/// Asks for another certificate on the live channel.
async fn renew(core: &Core, agent: &mut Client, name: &str, old: &Path) -> Result<PathBuf, String> {
    let key = KeyPair::generate().unwrap();
    agent.send(m::Renew { csr: request(&key) }.into(), &[]).await;
    loop {
        match agent.receive().await {
            Some(Message::Renewed(m::Renewed { outcome: RenewOutcome::Issued { chain } })) => {
                let root = std::fs::read_to_string(old.join("ca.pem")).unwrap();
                return Ok(identity(core, name, &root, &chain, &key));
            }
            Some(Message::Renewed(m::Renewed { outcome: RenewOutcome::Refused { why } })) => {
                return Err(why);
            }
            Some(_) => {}
            None => return Err("closed".into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_token_becomes_an_agent_that_ships() {
    let core = core().await;
    let token = token(&core, |token| token.policy = Some("web".into())).await;
    let (folder, issued) = enrolled(&core, &token, "web-01").await;
    let peer = peer(&folder);
    assert_eq!(
        (peer.agent, peer.host.as_str()),
        (issued.agent, "web-01"),
        "not what it called itself"
    );
    assert_eq!((peer.policy.as_deref(), peer.generation), (Some("web"), 1));
    let left = peer.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left <= DAY && left > DAY - Duration::from_secs(60), "{left:?}");

    let mut agent = Client::connect(core.app.gateway_addr(), &folder).await.unwrap();
    assert_eq!(agent.welcome.agent, issued.agent);
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.acked(1, 4).await;
    core.delivered(&["one"]).await;

    let audit = std::fs::read_to_string(core.plan.data_dir.join("audit/audit.jsonl")).unwrap();
    assert!(audit.contains(&issued.agent.to_string()), "{audit}");
    assert!(!audit.contains(&token.secret));
    let kept = std::fs::read(core.plan.meta_path()).unwrap();
    let secret = token.secret.as_bytes();
    assert!(!kept.windows(secret.len()).any(|window| window == secret), "the secret is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again_to_the_same_key_and_to_no_other() {
    let core = core().await;
    let token = token(&core, |_| {}).await;
    let key = KeyPair::generate().unwrap();
    let first = ask(&core, &question(&token, request(&key))).await;
    let again = ask(&core, &question(&token, request(&key))).await;
    let (Some(Answer::Issued(first)), Some(Answer::Issued(again))) = (first, again) else {
        panic!("expected two answers")
    };
    assert_eq!((first.agent, &first.chain), (again.agent, &again.chain));
    refusal(&core, &token).await;
    let core = core.restart().await;
    let Some(Answer::Issued(later)) = ask(&core, &question(&token, request(&key))).await else {
        panic!("expected the answer over a restart")
    };
    assert_eq!(later.chain, first.chain);
    let meta = Meta::open(&core.plan.meta_path()).await.unwrap();
    assert_eq!(meta.identities().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_opens_nothing_is_refused_alike_whatever_the_cause() {
    let core = core().await;
    let good = token(&core, |token| token.host = "db-01".into()).await;
    let (_, taken) = enrolled(&core, &good, "db-01").await;
    let wrong_secret = Token { secret: "00".repeat(32), ..token(&core, |_| {}).await };
    let revoked = token(&core, |_| {}).await;
    let meta = Meta::open(&core.plan.meta_path()).await.unwrap();
    assert!(meta.revoke_token(&revoked.id).await.unwrap());
    let nobody = AgentId([1; 16]);
    let cases = [
        Token { id: "0123".into(), secret: "00".repeat(32) },
        wrong_secret,
        good,
        revoked,
        token(&core, |token| token.expires_us = now_us() - 1).await,
        token(&core, |token| token.networks = vec!["10.0.0.0/8".into()]).await,
        token(&core, |token| token.host = "db-*".into()).await,
        token(&core, |token| token.host = "db-01".into()).await,
        token(&core, |token| token.replaces = Some(nobody)).await,
    ];
    let mut heard = Vec::new();
    for case in &cases {
        heard.push(refusal(&core, case).await);
    }
    heard.dedup();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let all = meta.identities().await.unwrap();
    assert_eq!(all.iter().map(|identity| identity.agent).collect::<Vec<_>>(), [taken.agent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_several_uses_makes_as_many_agents_and_no_more() {
    let core = core().await;
    let token = token(&core, |token| {
        token.host = "some*".into();
        token.uses = 2;
    })
    .await;
    let (first, _) = enrolled(&core, &token, "a").await;
    assert_eq!(peer(&first).host, "somebody");
    // The second host has another name, which fits too.
    let key = KeyPair::generate().unwrap();
    let garam_proto::enrol::Question::Enrol(mut asked) = question(&token, request(&key)) else {
        unreachable!()
    };
    asked.host = "someone".into();
    let second = ask(&core, &garam_proto::enrol::Question::Enrol(asked)).await;
    assert!(matches!(second, Some(Answer::Issued(_))), "{second:?}");
    refusal(&core, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_key_of_a_request_is_used() {
    let core = core().await;
    let token = token(&core, |_| {}).await;
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::new(vec!["core-1.example".to_owned()]).unwrap();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.distinguished_name.push(DnType::CommonName, "victim");
    let victim = format!("spiffe://garam/agent/{}", AgentId([9; 16]));
    greedy.subject_alt_names.push(SanType::URI(victim.try_into().unwrap()));
    greedy.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let mut csr = CertificateParams::default();
    csr.distinguished_name.push(DnType::CommonName, "victim");
    csr.subject_alt_names = greedy.subject_alt_names.clone();
    csr.extended_key_usages = greedy.extended_key_usages.clone();
    // The library writes no constraints into requests: the extension by hand, CA:TRUE.
    let constraints = rcgen::CustomExtension::from_oid_content(
        &[2, 5, 29, 19],
        vec![0x30, 0x03, 0x01, 0x01, 0xff],
    );
    csr.custom_extensions = vec![constraints];
    let csr = csr.serialize_request(&key).unwrap().der().to_vec();
    let Some(Answer::Issued(issued)) = ask(&core, &question(&token, csr)).await else {
        panic!("expected a certificate")
    };
    let folder = folder(&core, "greedy", &issued, &key);
    let peer = peer(&folder);
    assert_eq!((peer.agent, peer.host.as_str()), (issued.agent, "web-01"));
    let leaf = read_certificates(&folder.join("cert.pem")).unwrap().remove(0);
    let (_, certificate) = X509Certificate::from_der(&leaf).unwrap();
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let text = format!("{:?} {:?}", certificate.subject(), certificate.subject_alternative_name());
    assert!(!text.contains("victim") && !text.contains("core-1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_huge_and_unproven_keys_are_refused_and_burn_nothing() {
    let core = core().await;
    let token = token(&core, |_| {}).await;
    let mut unproven = request(&KeyPair::generate().unwrap());
    *unproven.last_mut().unwrap() ^= 1;
    let mut trailing = request(&KeyPair::generate().unwrap());
    trailing.push(0);
    let cases: [(Vec<u8>, &str); 6] = [
        (include_bytes!("fixtures/rsa-512.csr").to_vec(), "keys of this kind"),
        (include_bytes!("fixtures/rsa-16384.csr").to_vec(), "keys of this kind"),
        (unproven, "not signed by the key"),
        (trailing, "cannot be read"),
        (b"nonsense".to_vec(), "cannot be read"),
        (vec![0x30; 9000], "at most 8192"),
    ];
    for (csr, why) in cases {
        match ask(&core, &question(&token, csr)).await {
            Some(Answer::Refused(refused)) => assert!(refused.why.contains(why), "{}", refused.why),
            other => panic!("{why}: {other:?}"),
        }
    }
    enrolled(&core, &token, "web-01").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_hears_one_small_question_and_nothing_else() {
    let core = core().await;
    let to = core.app.enrol_addr().unwrap();
    let config = || {
        let mut roots = rustls::RootCertStore::empty();
        for root in read_certificates(&core.plan.pki_dir.join("root.pem")).unwrap() {
            roots.add(root).unwrap();
        }
        builder().with_root_certificates(roots).with_no_client_auth()
    };
    assert_eq!(speak(to, config(), b"GET / HTTP/1.1\r\n\r\n").await, None);
    assert_eq!(speak(to, config(), &[0xff; 64]).await, None);
    let message = Message::from(hello(m::VERSIONS)).encode(0).unwrap();
    assert_eq!(speak(to, config(), &message).await, None);
    let token = token(&core, |_| {}).await;
    enrolled(&core, &token, "web-01").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_counts_beside_the_old_one_until_it_is_used() {
    let core = core().await;
    let token = token(&core, |_| {}).await;
    let (first, issued) = enrolled(&core, &token, "first").await;
    let to = core.app.gateway_addr();
    let mut agent = Client::connect(to, &first).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    let second = renew(&core, &mut agent, "second", &first).await.unwrap();
    // Under load: the session that asked goes on.
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.acked(1, 4).await;
    drop(agent);
    assert!(
        Client::connect(to, &first).await.is_ok(),
        "the old one counts: the new was never used"
    );
    let mut agent = Client::connect(to, &second).await.unwrap();
    assert_eq!(agent.welcome.agent, issued.agent);
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(4));
    let refused = Client::connect(to, &first).await.err().expect("the old one is gone");
    assert!(refused.contains("Denied") && refused.contains("two hosts"), "{refused}");
    assert_eq!(peer(&second).generation, 2);
    // Another key of the same generation was never signed; one that was replaced before its use counts no more.
    let third = renew(&core, &mut agent, "third", &second).await.unwrap();
    let fourth = renew(&core, &mut agent, "fourth", &second).await.unwrap();
    assert!(Client::connect(to, &fourth).await.is_ok());
    assert!(Client::connect(to, &third).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_when_most_of_its_certificates_life_is_over_if_it_understands() {
    let core = core().await;
    let short = core.folder.path().join("short");
    core.issue("web-01", Duration::from_secs(8), &short);
    let deaf = core.folder.path().join("deaf");
    core.issue("web-02", Duration::from_secs(8), &deaf);
    let to = core.app.gateway_addr();
    let mut old = Client::connect(to, &deaf).await.unwrap();
    let greeting = m::Hello { features: m::FEATURE_RENEW, ..hello(m::VERSIONS) };
    let mut agent = Client::greet(to, &short, greeting).await.unwrap();
    let told = agent.receive().await;
    assert!(matches!(told, Some(Message::RenewDue(_))), "{told:?}");
    let next = renew(&core, &mut agent, "next", &short).await.unwrap();
    assert!(Client::connect(to, &next).await.is_ok());
    // The other one is never asked, and its session does not outlive its certificate.
    match old.receive().await {
        Some(Message::Bye(bye)) => assert!(bye.text.contains("certificate"), "{}", bye.text),
        other => panic!("expected a goodbye, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_comes_back_after_its_certificates_end_as_often_as_it_may() {
    let limits = "[pki]\nrecoveries = 2\nagent_life = \"10s\"\nrecover_within = \"1h\"";
    let core = Core::with(PORT, limits).await;
    let to = core.app.gateway_addr();
    let mut folder = core.folder.path().join("ended");
    core.issue("web-01", Duration::ZERO, &folder);
    let agent = peer(&folder).agent;
    core.eventually("the certificate ends", || async {
        Client::connect(to, &folder).await.is_err()
    })
    .await;
    let mut lost = None;
    for round in 0..2 {
        let key = KeyPair::generate().unwrap();
        // A lost answer is asked for again, and counts once.
        let asked = [
            ask_as(&core, &folder, request(&key)).await,
            ask_as(&core, &folder, request(&key)).await,
        ];
        let [Answer::Issued(_), Answer::Issued(issued)] = asked else { panic!("{asked:?}") };
        assert_eq!(issued.agent, agent);
        lost = Some(folder);
        folder = self::folder(&core, &format!("back-{round}"), &issued, &key);
    }
    let more = ask_as(&core, &folder, request(&KeyPair::generate().unwrap())).await;
    assert!(
        matches!(&more, Answer::Refused(refused) if refused.why.contains("as often")),
        "{more:?}"
    );
    // A key that was replaced opens nothing any more.
    let old = ask_as(&core, &lost.unwrap(), request(&KeyPair::generate().unwrap())).await;
    assert!(
        matches!(&old, Answer::Refused(refused) if refused.why.contains("two hosts")),
        "{old:?}"
    );
    assert!(Client::connect(to, &folder).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_too_late_is_refused() {
    let core = Core::with(PORT, "[pki]\nrecover_within = \"0s\"").await;
    let folder = core.folder.path().join("ended");
    core.issue("web-01", Duration::ZERO, &folder);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let late = ask_as(&core, &folder, request(&KeyPair::generate().unwrap())).await;
    assert!(
        matches!(&late, Answer::Refused(refused) if refused.why.contains("--replace")),
        "{late:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_out_at_once_and_stays_out_until_it_is_replaced() {
    let core = core().await;
    let token = self::token(&core, |_| {}).await;
    let (folder, issued) = enrolled(&core, &token, "web-01").await;
    let to = core.app.gateway_addr();
    let mut agent = Client::connect(to, &folder).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.acked(1, 4).await;
    let next = renew(&core, &mut agent, "next", &folder).await.unwrap();

    // As the command line does it: from another connection.
    let meta = Meta::open(&core.plan.meta_path()).await.unwrap();
    meta.revoke(issued.agent, 2).await.unwrap();
    let begun = Instant::now();
    assert_eq!(goodbye(&mut agent).await, Some(ByeReason::Denied));
    tracing::info!(took = ?begun.elapsed(), "ended");
    for key in [&folder, &next] {
        let refused = Client::connect(to, key).await.err().unwrap();
        assert!(refused.contains("revoked"), "{refused}");
        let back = ask_as(&core, key, request(&KeyPair::generate().unwrap())).await;
        assert!(
            matches!(&back, Answer::Refused(refused) if refused.why.contains("revoked")),
            "{back:?}"
        );
    }

    let core = core.restart().await;
    let to = core.app.gateway_addr();
    assert!(Client::connect(to, &folder).await.is_err(), "over a restart too");
    let token = self::token(&core, |token| token.replaces = Some(issued.agent)).await;
    let (rebuilt, again) = enrolled(&core, &token, "rebuilt").await;
    assert_eq!(again.agent, issued.agent);
    let mut agent = Client::connect(to, &rebuilt).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(4), "it goes on where the old host was");
    assert!(Client::connect(to, &folder).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_where_its_policy_lets_it_and_as_itself() {
    let core = core().await;
    let to = core.app.gateway_addr();
    let limited = token(&core, |token| token.policy = Some("other".into())).await;
    let (folder, _) = enrolled(&core, &limited, "web-01").await;
    let mut agent = Client::connect(to, &folder).await.unwrap();
    let denied = agent.claim(1, 1, "logs").await.unwrap_err();
    assert!(denied.contains("policy other does not allow stream logs"), "{denied}");

    let allowed = token(&core, |token| {
        token.policy = Some("web".into());
        token.host = "web-02".into();
    })
    .await;
    let (folder, issued) = enrolled(&core, &allowed, "web-02").await;
    let mut agent = Client::connect(to, &folder).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    let forged = block(AgentId([9; 16]), 1, 0, b"one\n");
    agent.send(m::Push { slot: 1, answer: 1, block: forged }.into(), b"one\n").await;
    assert_eq!(goodbye(&mut agent).await, Some(ByeReason::Protocol));
    assert_eq!(core.lines().await, Vec::<String>::new());

    let unknown = token(&core, |token| {
        token.policy = Some("gone".into());
        token.host = "web-03".into();
    })
    .await;
    let (folder, _) = enrolled(&core, &unknown, "web-03").await;
    let refused = Client::connect(to, &folder).await.err().unwrap();
    assert!(refused.contains("policy gone"), "{refused}");

    let audit = std::fs::read_to_string(core.plan.data_dir.join("audit/audit.jsonl")).unwrap();
    let refused = |what: &str| {
        audit.lines().filter(|line| line.contains("\"refused\"") && line.contains(what)).count()
    };
    assert_eq!((refused("\"stream\""), refused("\"origin\""), refused("\"session\"")), (1, 1, 1));
    assert!(audit.contains(&issued.agent.to_string()));
    let (_, metrics) = core.ask("/metrics").await;
    assert!(metrics.contains("garam_gateway_denied_total 3"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_younger_than_the_restored_record_is_let_in_by_its_certificate() {
    let core = core().await;
    let token = token(&core, |_| {}).await;
    let (first, issued) = enrolled(&core, &token, "first").await;
    let to = core.app.gateway_addr();
    let mut agent = Client::connect(to, &first).await.unwrap();
    let second = renew(&core, &mut agent, "second", &first).await.unwrap();
    // What a restored backup would say: nothing of the second key.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(core.plan.meta_path());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("UPDATE identities SET next_generation = NULL, next_key_hash = NULL")
        .execute(&mut connection)
        .await
        .unwrap();
    let agent = Client::connect(to, &second).await.unwrap();
    assert_eq!(agent.welcome.agent, issued.agent);
    assert!(Client::connect(to, &first).await.is_err(), "the older key counts no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_issued_again_goes_on_where_it_was() {
    let core = core().await;
    let to = core.app.gateway_addr();
    let issue = async |name: &str| {
        let folder = core.folder.path().join(name);
        let (host, life) = ("web-01", DAY);
        let issue = Issue { host, life, policy: None, replace: false, folder: &folder };
        issue_agent(&core.plan, &issue).await.unwrap();
        folder
    };
    let first = issue("first").await;
    let mut agent = Client::connect(to, &first).await.unwrap();
    agent.claim(1, 1, "logs").await.unwrap();
    agent.push(1, 1, 1, 0, "one\n").await;
    agent.acked(1, 4).await;
    drop(agent);
    let second = issue("second").await;
    assert!(Client::connect(to, &first).await.is_ok(), "until the second is used");
    let mut agent = Client::connect(to, &second).await.unwrap();
    assert_eq!(agent.claim(1, 1, "logs").await, Ok(4), "nothing is sent again");
    assert!(Client::connect(to, &first).await.is_err());
}
