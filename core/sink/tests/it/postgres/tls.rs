//! Whom a writer believes it talks to.

use garam_sink::postgres::Mode::Append;
use garam_sink::postgres::{PostgresConfig, Url};
use garam_stage::FailureKind;

use super::server::{Base, Server};
use crate::fixture::{batch, rows, schema, written};

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test]
async fn only_the_server_of_the_certificate_is_believed() {
    let server = Server::start();
    server.kill();
    let (own, key) = certificate();
    server.certify(&own, &key);
    server.start_again();
    let base = Base::on(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right.pem"), folder.path().join("wrong.pem"));
    std::fs::write(&right, own).unwrap();
    std::fs::write(&wrong, certificate().0).unwrap();
    let with = |root: &std::path::Path, host: &str| {
        let url = base.url(base.port).replace("@127.0.0.1", &format!("@{host}"));
        let url = format!("{url}&sslmode=verify-full&sslrootcert={}", root.display());
        PostgresConfig { url: Some(Url(url)), ..base.config(Append) }
    };

    // Another authority; a name that the certificate does not have; the system's authorities.
    let unknown = format!("{}&sslmode=verify-full", base.url(base.port));
    let unknown = PostgresConfig { url: Some(Url(unknown)), ..base.config(Append) };
    for config in [with(&wrong, "127.0.0.1"), with(&right, "localhost"), unknown] {
        let failure = config.connect(&schema()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    }

    let (mut destination, start) = base.ready_with(with(&right, "127.0.0.1")).await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
    let sql = format!(
        "select distinct s.ssl, s.version from pg_stat_ssl s join pg_stat_activity a using (pid) \
         where a.application_name = '{}' and a.query = 'COMMIT'",
        base.schema
    );
    assert_eq!(base.lines(&sql).await, "t | TLSv1.3");
    server.kill();
}
