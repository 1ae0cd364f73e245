//! Tokens, requests and certificates that open nothing any more, or never should: used, revoked, expired, older, greedy, weak.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::BytesMut;
use garam_proto::FrameReader;
use garam_proto::enrol::{Answer, Enrol, Issued, LIMITS, Question};
use garam_proto::message::{self as m, Message};
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Tally;
use super::arena::{Arena, POLICY};
use super::peer::{Identity, Peer, anonymous, is_closed, tls};
use super::watch::Suspect;

const PATIENCE: Duration = Duration::from_secs(12);
/// How long the certificates of this run's enrolled agents live.
pub(super) const LIFE: Duration = Duration::from_secs(10);

/// A token as a host holds it.
struct Token {
    id: String,
    secret: String,
}

async fn token(arena: &Arena, who: &Suspect) -> anyhow::Result<Token> {
    let file = arena.ground.dir.join(format!("{}.token", who.host));
    let path = file.to_str().context("the work folder's name is no UTF-8")?;
    let verb = ["token", "create", "--host", &who.host, "--policy", POLICY, "--out", path];
    arena.ground.garam(&verb).await?;
    let text = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;
    let mut parts = text.trim().split('.').skip(1).map(str::to_owned);
    let id = parts.next().context("a token has an id")?;
    Ok(Token { id, secret: parts.next().context("a token has a secret")? })
}

fn question(token: &Token, csr: Vec<u8>) -> Question {
    Question::Enrol(Enrol {
        token: token.id.clone(),
        secret: token.secret.clone(),
        host: "soak-host".into(),
        csr,
        build: "hostile".into(),
    })
}

fn request(key: &KeyPair) -> anyhow::Result<Vec<u8>> {
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

/// What the enrolment port answers; none when it closes instead.
async fn ask(arena: &Arena, from: IpAddr, question: &Question) -> anyhow::Result<Option<Answer>> {
    let Ok(mut stream) = tls(from, arena.enrol, anonymous(&arena.root())?).await else {
        return Ok(None);
    };
    let bytes = question.encode()?;
    let (mut frames, mut buffer) = (FrameReader::new(LIMITS), BytesMut::new());
    let answer = async {
        stream.write_all(&bytes).await.ok()?;
        stream.flush().await.ok()?;
        loop {
            if let Some(frame) = frames.next(&mut buffer).ok()? {
                return Answer::decode(&frame).ok();
            }
            if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                return None;
            }
        }
    };
    Ok(timeout(PATIENCE, answer).await.ok().flatten())
}

/// An agent by a token, with whatever its request asks for.
async fn enrol(
    arena: &Arena,
    who: &Suspect,
    (key, csr): (&KeyPair, Vec<u8>),
) -> anyhow::Result<(Token, Issued, Identity)> {
    let token = token(arena, who).await?;
    let answer = ask(arena, who.address, &question(&token, csr)).await?;
    let Some(Answer::Issued(issued)) = answer else { anyhow::bail!("not enrolled: {answer:?}") };
    let folder = arena.ground.dir.join(&who.host);
    let identity = keep(&folder, &arena.root(), &issued.chain, key)?;
    Ok((token, issued, identity))
}

fn keep(folder: &Path, root: &Path, chain: &str, key: &KeyPair) -> anyhow::Result<Identity> {
    std::fs::create_dir_all(folder)?;
    std::fs::copy(root, folder.join("ca.pem"))?;
    std::fs::write(folder.join("cert.pem"), chain)?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(Identity::at(folder))
}

/// A token that was used, one with another secret, one that never was.
pub(super) async fn used_token(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let key = KeyPair::generate()?;
    let (used, ..) = enrol(arena, who, (&key, request(&key)?)).await?;
    let guessed = Token { secret: "00".repeat(32), id: used.id.clone() };
    let unknown = Token { id: "0011223344556677".into(), secret: used.secret.clone() };
    let mut tally = Tally::default();
    for token in [used, guessed, unknown] {
        let csr = request(&KeyPair::generate()?)?;
        let answer = ask(arena, who.address, &question(&token, csr)).await?;
        tally.note(matches!(answer, Some(Answer::Refused(_))));
    }
    Ok(tally)
}

/// A request for CA:TRUE, a server's rights and another agent's name: what is issued has none of it.
pub(super) async fn greedy_request(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let victim = "spiffe://garam/agent/09090909-0909-4909-8909-090909090909";
    let key = KeyPair::generate()?;
    let mut wishes = CertificateParams::new(vec!["localhost".to_owned()])?;
    wishes.subject_alt_names.push(SanType::URI(victim.try_into()?));
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let constraints = vec![0x30, 0x03, 0x01, 0x01, 0xff];
    wishes.custom_extensions =
        vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], constraints)];
    let csr = wishes.serialize_request(&key)?.der().to_vec();
    let (_, issued, identity) = enrol(arena, who, (&key, csr)).await?;
    let mut tally = Tally::default();
    let peer = arena.welcomed(who, identity.config()?).await?;
    tally.note(peer.agent == issued.agent && !peer.agent.to_string().starts_with("0909"));
    drop(peer);
    // As an authority of its own it makes a certificate in the victim's name.
    let issuer = Issuer::from_ca_cert_pem(&issued.chain, &key)?;
    let own = KeyPair::generate()?;
    let mut forged = CertificateParams::default();
    forged.subject_alt_names.push(SanType::URI(victim.try_into()?));
    forged.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let forged = forged.signed_by(&own, &issuer)?;
    let chain = format!("{}{}", forged.pem(), issued.chain);
    let folder = arena.ground.dir.join("forged-identity");
    let forged = keep(&folder, &arena.root(), &chain, &own)?;
    tally.note(arena.keeps_out(who, forged.config()?).await?);
    Ok(tally)
}

/// Keys too weak, too large, not shown to be held; requests that are none.
pub(super) async fn bad_keys(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let fixture = |bytes: &[u8]| bytes.to_vec();
    let mut unproven = request(&KeyPair::generate()?)?;
    if let Some(last) = unproven.last_mut() {
        *last ^= 1;
    }
    let cases = [
        fixture(include_bytes!("../../../../core/tests/it/fixtures/rsa-512.csr")),
        fixture(include_bytes!("../../../../core/tests/it/fixtures/rsa-16384.csr")),
        unproven,
        vec![0x30; 9000],
        b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(),
    ];
    let token = token(arena, who).await?;
    let mut tally = Tally::default();
    for csr in cases {
        let answer = ask(arena, who.address, &question(&token, csr)).await?;
        tally.note(matches!(answer, Some(Answer::Refused(_))));
    }
    Ok(tally)
}

/// Many hosts at once from one address, none with a token; one honest host beside them is served.
pub(super) async fn enrol_storm(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let config = anonymous(&arena.root())?;
    let guess = Token { id: "0011223344556677".into(), secret: "00".repeat(32) };
    let bytes = question(&guess, request(&KeyPair::generate()?)?).encode()?;
    let mut storm = JoinSet::new();
    for _ in 0..150 {
        let (from, to, config, bytes) = (who.address, arena.enrol, config.clone(), bytes.clone());
        storm.spawn(async move {
            let Ok(mut stream) = tls(from, to, config).await else { return true };
            let _closed = stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err();
            is_closed(&mut stream).await
        });
    }
    let honest = arena.suspect("storm_honest");
    let key = KeyPair::generate()?;
    let (_, issued, _) = enrol(arena, &honest, (&key, request(&key)?)).await?;
    anyhow::ensure!(issued.host == honest.host, "an honest host is not served in a storm");
    Tally::of(storm).await
}

/// Revoked in the middle of a session, and again at the door, with a session that is to be resumed.
pub(super) async fn revoked(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let config = arena.identity(who).await?.config()?;
    let mut peer = arena.welcomed(who, config.clone()).await?;
    let mut tally = Tally::default();
    arena.ground.garam(&["agent", "revoke", &who.host, "--yes"]).await?;
    let revoked = Instant::now();
    tally.note(peer.is_ended().await && revoked.elapsed() < Duration::from_secs(2));
    // The same configuration remembers whatever it was given to resume with.
    tally.note(peer.stream.get_ref().1.tls13_tickets_received() == 0);
    tally.note(arena.keeps_out(who, config).await?);
    Ok(tally)
}

/// A certificate whose successor has been used.
pub(super) async fn old_generation(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let key = KeyPair::generate()?;
    let (.., old) = enrol(arena, who, (&key, request(&key)?)).await?;
    let (old, next) = (old.config()?, KeyPair::generate()?);
    let mut peer = arena.welcomed(who, old.clone()).await?;
    peer.send(m::Renew { csr: request(&next)? }.into(), &[]).await;
    let Some(Message::Renewed(m::Renewed { outcome: m::RenewOutcome::Issued { chain } })) =
        peer.receive().await
    else {
        anyhow::bail!("a certificate is not renewed");
    };
    let folder = arena.ground.dir.join(format!("{}-next", who.host));
    let newer = keep(&folder, &arena.root(), &chain, &next)?;
    drop(arena.welcomed(who, newer.config()?).await?);
    let mut tally = Tally::default();
    tally.note(arena.keeps_out(who, old).await?);
    Ok(tally)
}

/// A session that lives longer than its certificate, and then the certificate itself.
pub(super) async fn expired(arena: &Arena, who: &Suspect) -> anyhow::Result<Tally> {
    let key = KeyPair::generate()?;
    let (.., identity) = enrol(arena, who, (&key, request(&key)?)).await?;
    let config = identity.config()?;
    let mut peer: Peer = arena.welcomed(who, config.clone()).await?;
    let mut tally = Tally::default();
    let deadline = Instant::now() + LIFE + Duration::from_secs(3);
    let ended = async {
        // It is quiet for no longer than a session may be.
        while Instant::now() < deadline {
            let next = timeout(Duration::from_secs(1), peer.receive()).await;
            match next {
                Ok(None | Some(Message::Bye(_))) => return true,
                Ok(Some(_)) => {}
                Err(_) => peer.send(m::Ping { nonce: 1 }.into(), &[]).await,
            }
        }
        false
    };
    tally.note(ended.await);
    tokio::time::sleep_until(deadline).await;
    tally.note(arena.keeps_out(who, config).await?);
    Ok(tally)
}
