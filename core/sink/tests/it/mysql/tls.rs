//! Whom a writer believes it talks to. MySQL makes its own authority and certificate, which names no host.

use garam_sink::ServerConfig;
use garam_sink::mysql::Mode::Append;
use garam_sink::mysql::Url;
use garam_stage::FailureKind;

use super::server::MySqlBase;
use crate::fixture::{batch, rows, schema, written};
use crate::servers::Base as _;
use crate::testbed::{Kind, shared};

#[tokio::test]
async fn only_the_server_of_the_certificate_is_believed() {
    let server = shared(Kind::MySql);
    let base = MySqlBase::on(server).await;
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right.pem"), folder.path().join("wrong.pem"));
    std::fs::copy(server.folder.join("data/ca.pem"), &right).unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&wrong, made.cert.pem()).unwrap();
    let with = |mode: &str, root: &std::path::Path| {
        let url = base.url(base.port()).replace("DISABLED", mode);
        let url = format!("{url}&ssl-ca={}", root.display());
        ServerConfig { url: Some(Url(url)), ..base.config(Append) }
    };
    // Another authority; a certificate without the host's name.
    for config in [with("VERIFY_CA", &wrong), with("VERIFY_IDENTITY", &right)] {
        let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    }
    let (mut destination, start) = base.ready_with(&with("VERIFY_CA", &right)).await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
}

#[tokio::test]
async fn a_password_is_not_shown_without_tls() {
    let base = MySqlBase::on(shared(Kind::MySql)).await;
    let config = |mode: &str| {
        let url = base.url(base.port()).replace("DISABLED", mode);
        ServerConfig {
            url: Some(Url(url.replace("garam:garam", "stranger:garam"))),
            ..base.config(Append)
        }
    };
    base.execute_as_owner(&format!(
        "create user stranger@'%' identified by 'garam'; grant all on {}.* to stranger@'%'",
        base.database
    ))
    .await;
    let failure = base.sink(&config("DISABLED")).connect(&schema()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.to_string().contains("shown under TLS only"), "{failure}");
    base.sink(&config("PREFERRED")).connect(&schema()).await.unwrap();
}
