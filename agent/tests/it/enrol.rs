//! Enrolment as a host sees it: the core is known before anything is said to it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use garam_agent::config::CoreAddress;
use garam_agent::enrol::{EnrolError, Token, enrol};
use garam_agent::identity::IdentityFolder;
use garam_proto::enrol::{Answer, Issued, LIMITS, Question, Refused};
use garam_proto::{AgentId, FrameReader};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pki::Pki;

const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

struct Host {
    place: TempDir,
    folder: IdentityFolder,
    core: CoreAddress,
}

impl Host {
    fn of(port: u16, server_name: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = IdentityFolder::at(place.path().join("identity"));
        let core = CoreAddress {
            address: format!("127.0.0.1:{port}"),
            server_name: server_name.into(),
            enrol_port: port,
        };
        Self { place, folder, core }
    }

    async fn enrol(&self, pin: &str) -> Result<Issued, EnrolError> {
        let file: PathBuf = self.place.path().join("token");
        std::fs::write(&file, format!("garam1.0123.{SECRET}.{pin}\n")).unwrap();
        enrol(&self.core, &Token::read(&file).unwrap(), "web-01", &self.folder).await
    }
}

/// Answers every question with this, and gives the questions that were heard.
async fn core(pki: &Pki, answer: Answer) -> (u16, tokio::sync::mpsc::Receiver<Question>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let tls = TlsAcceptor::from(Arc::new(pki.open_server()));
    let (heard, questions) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = socket.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(tcp).await else { continue };
            let (mut frames, mut buffer) = (FrameReader::new(LIMITS), BytesMut::new());
            let question = loop {
                if let Some(frame) = frames.next(&mut buffer).unwrap() {
                    break Question::decode(&frame).unwrap();
                }
                if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                    panic!("cut");
                }
            };
            heard.send(question).await.unwrap();
            stream.write_all(&answer.encode().unwrap()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (port, questions)
}

fn issued(root: String) -> Answer {
    Answer::Issued(Issued {
        agent: AgentId([7; 16]),
        host: "web-01".into(),
        root,
        chain: "the chain".into(),
        time_us: 0,
    })
}

#[tokio::test]
async fn a_host_that_knows_the_core_by_its_token_gets_an_identity() {
    let pki = Pki::new();
    let (pin, root) = pki.root();
    let (port, mut questions) = core(&pki, issued(root.clone())).await;
    let host = Host::of(port, "localhost");
    assert_eq!(host.enrol(&pin).await.unwrap().agent, AgentId([7; 16]));
    let Question::Enrol(asked) = questions.recv().await.unwrap() else { panic!("enrolment") };
    assert_eq!((asked.token.as_str(), asked.secret.as_str()), ("0123", SECRET));
    assert!(!format!("{asked:?}").contains(SECRET), "the secret is never printed");
    let pair = host.folder.pair().unwrap();
    assert!(!pair.is_next && host.folder.is_complete().unwrap());
    assert_eq!(std::fs::read_to_string(host.folder.root()).unwrap(), root);
    assert_eq!(std::fs::metadata(&pair.key).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&pair.key).unwrap();
    assert!(!asked.csr.windows(32).any(|part| key.as_bytes().windows(32).any(|k| k == part)));
}

#[tokio::test]
async fn a_core_that_the_token_does_not_pin_hears_nothing() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (port, mut questions) = core(&pki, issued(pki.root().1)).await;
    let host = Host::of(port, "localhost");
    let error = host.enrol(&other.root().0).await.unwrap_err();
    assert!(error.to_string().contains("is this the right core?"), "{error}");
    let (pin, _) = pki.root();
    let renamed = Host::of(port, "core-2.example");
    let error = renamed.enrol(&pin).await.unwrap_err();
    assert!(error.to_string().contains("another name"), "{error}");
    assert!(questions.try_recv().is_err(), "nothing was said");
    assert!(!host.folder.is_complete().unwrap());
    assert!(!format!("{error} {error:?}").contains(SECRET));
}

#[tokio::test]
async fn a_refusal_leaves_no_identity_names_skew_and_the_next_try_uses_the_same_key() {
    let pki = Pki::new();
    let (pin, _) = pki.root();
    let refusal = Refused { why: "opens nothing".into(), later: false, time_us: 1_000_000 };
    let (port, mut questions) = core(&pki, Answer::Refused(refusal)).await;
    let host = Host::of(port, "localhost");
    let mut keys = Vec::new();
    for _ in 0..2 {
        let error = host.enrol(&pin).await.unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("opens nothing; clock skew: this host's clock is"), "{text}");
        assert!(!host.folder.is_complete().unwrap());
        assert!(matches!(questions.recv().await, Some(Question::Enrol(_))));
        keys.push(std::fs::read(host.folder.path().join("key.next.pem")).unwrap());
    }
    assert_eq!(keys[0], keys[1]);
}
