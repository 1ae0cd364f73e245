//! Whom a writer believes it talks to.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use garam_sink::ServerConfig;
use garam_sink::postgres::Mode::Append;
use garam_sink::postgres::Url;
use garam_stage::FailureKind;

use super::server::PgBase;
use crate::fixture::{batch, rows, schema, written};
use crate::servers::Base as _;
use crate::testbed::{Kind, Server};

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Gives the server a certificate and the key to it; it reads them when it starts next.
fn certify(server: &Server, certificate: &str, key: &str) {
    let data = server.folder.join("data");
    let owner = std::fs::metadata(&data).unwrap();
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = data.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let mut settings =
        std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    settings.write_all(b"ssl = on\n").unwrap();
}

#[tokio::test]
async fn only_the_server_of_the_certificate_is_believed() {
    let server = Server::start(Kind::Postgres);
    server.kill();
    let (own, key) = certificate();
    certify(&server, &own, &key);
    server.start_again();
    let base = PgBase::on(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (folder.path().join("right.pem"), folder.path().join("wrong.pem"));
    std::fs::write(&right, own).unwrap();
    std::fs::write(&wrong, certificate().0).unwrap();
    let with = |root: &std::path::Path, host: &str| {
        let url = base.url(base.port()).replace("@127.0.0.1", &format!("@{host}"));
        let url = format!("{url}&sslmode=verify-full&sslrootcert={}", root.display());
        ServerConfig { url: Some(Url(url)), ..base.config(Append) }
    };

    // Another authority; a name that the certificate does not have; the system's authorities.
    let unknown = format!("{}&sslmode=verify-full", base.url(base.port()));
    let unknown = ServerConfig { url: Some(Url(unknown)), ..base.config(Append) };
    for config in [with(&wrong, "127.0.0.1"), with(&right, "localhost"), unknown] {
        let failure = base.sink(&config).connect(&schema()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    }

    let (mut destination, start) = base.ready_with(&with(&right, "127.0.0.1")).await;
    written(destination.write(&batch(&start, &rows(0..3))).await);
    let sql = format!(
        "select distinct s.ssl, s.version from pg_stat_ssl s join pg_stat_activity a using (pid) \
         where a.application_name = '{}' and a.query = 'COMMIT'",
        base.schema
    );
    assert_eq!(base.lines(&sql).await, "t | TLSv1.3");
    server.kill();
}
