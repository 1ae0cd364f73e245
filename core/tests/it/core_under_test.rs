//! A real core in a temporary folder, on free ports, with certificates of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garam_core::app::App;
use garam_core::config::{self, Plan};
use garam_core::pki::{AgentKey, DAY, Pki};
use garam_meta::Grant;
use garam_proto::AgentId;
use garam_sink::sqlite::{QueryLimits, QueryValue, read_only_query};
use tempfile::TempDir;

pub(crate) struct Core {
    pub(crate) app: App,
    pub(crate) plan: Plan,
    pub(crate) folder: TempDir,
}

impl Core {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let to = format!("sqlite]\npath = {:?}", folder.path().join("data.sqlite"));
        let core = Self::delivering(folder, &to).await;
        core.eventually("the pipeline begins", || std::future::ready(core.database().is_file()))
            .await;
        core
    }

    /// With a destination: what stands behind `[pipeline.p.to.` but the table's name.
    pub(crate) async fn delivering(folder: TempDir, to: &str) -> Self {
        Self::configured(folder, to, "", "").await
    }

    /// The same, with more tables.
    pub(crate) async fn delivering_with(folder: TempDir, to: &str, tables: &str) -> Self {
        Self::configured(folder, to, "", tables).await
    }

    /// With more lines in `[gateway]` and more tables.
    pub(crate) async fn with(gateway: &str, tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let to = format!("sqlite]\npath = {:?}", folder.path().join("data.sqlite"));
        Self::configured(folder, &to, gateway, tables).await
    }

    /// With more tables, in a folder that they may name.
    pub(crate) async fn with_tables_in(folder: TempDir, tables: &str) -> Self {
        let to = format!("sqlite]\npath = {:?}", folder.path().join("data.sqlite"));
        Self::configured(folder, &to, "", tables).await
    }

    /// With more lines in `[admin]`.
    pub(crate) async fn with_admin(admin: &str) -> Self {
        Self::with("", admin).await
    }

    async fn configured(folder: TempDir, to: &str, gateway: &str, tables: &str) -> Self {
        let plan = plan(&folder, to, gateway, tables);
        Pki::at(&plan.pki_dir).init("test").unwrap();
        let app = App::start(plan.clone()).await.unwrap();
        Self { app, plan, folder }
    }

    /// Stops gracefully and starts again on the same folder.
    pub(crate) async fn restart(self) -> Self {
        let Self { app, plan, folder } = self;
        app.stop(Duration::from_secs(20)).await.unwrap();
        drop(app);
        let app = App::start(plan.clone()).await.unwrap();
        Self { app, plan, folder }
    }

    /// Stops gracefully and starts again on the same folder, with these tables.
    pub(crate) async fn restart_with(self, tables: &str) -> Self {
        let Self { app, folder, .. } = self;
        app.stop(Duration::from_secs(20)).await.unwrap();
        drop(app);
        let to = format!("sqlite]\npath = {:?}", folder.path().join("data.sqlite"));
        let plan = plan(&folder, &to, "", tables);
        let app = App::start(plan.clone()).await.unwrap();
        Self { app, plan, folder }
    }

    pub(crate) fn identity(&self, host: &str) -> PathBuf {
        let folder = self.folder.path().join(host);
        self.issue(host, DAY, &folder);
        folder
    }

    /// A certificate that no record knows, as an older build issued it.
    pub(crate) fn issue(&self, host: &str, life: Duration, folder: &Path) {
        let authority = Pki::at(&self.plan.pki_dir).authority().unwrap();
        let key = AgentKey::generate().unwrap();
        let agent = AgentId(*uuid::Uuid::new_v4().as_bytes());
        let grant = Grant { agent, host: host.into(), policy: None, generation: 1 };
        let certificate = authority.sign_own(&grant, &key, life).unwrap();
        authority.write_identity(folder, &certificate, &key).unwrap();
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("data.sqlite")
    }

    /// The delivered lines, in the order of the table.
    pub(crate) async fn lines(&self) -> Vec<String> {
        let sql = "select line from lines order by rowid";
        let limits = QueryLimits { rows: 1_000_000, ..QueryLimits::default() };
        let Ok(answer) = read_only_query(&self.database(), sql, limits).await else {
            return Vec::new();
        };
        let text = |row: Vec<QueryValue>| row.into_iter().next().map(|value| value.to_string());
        answer.rows.into_iter().filter_map(text).collect()
    }

    pub(crate) async fn delivered(&self, expected: &[&str]) {
        self.eventually(&format!("{expected:?} are delivered"), || async {
            self.lines().await == expected
        })
        .await;
    }

    /// Waits for a condition, within a deadline that only a broken core misses.
    pub(crate) async fn eventually<F: Future<Output = bool>>(
        &self,
        what: &str,
        mut holds: impl FnMut() -> F,
    ) {
        let begun = Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lines of the audit log about something that was refused.
    pub(crate) fn refusals(&self, what: &str) -> usize {
        let path = self.plan.data_dir.join("audit/audit.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let what = format!("\"what\":\"{what}\"");
        text.lines().filter(|line| line.contains("\"refused\"") && line.contains(&what)).count()
    }

    pub(crate) async fn refused(&self, what: &str) {
        let is_noted = || std::future::ready(self.refusals(what) > 0);
        self.eventually(&format!("{what} is in the audit log"), is_noted).await;
    }

    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        self.ask_by("GET", path).await
    }

    /// Over the socket, with a method.
    pub(crate) async fn ask_by(&self, method: &str, path: &str) -> (u16, String) {
        let stream = tokio::net::UnixStream::connect(&self.plan.admin.socket).await.unwrap();
        request(stream, method, path).await
    }

    /// Over plain HTTP, as any program of the machine may.
    pub(crate) async fn ask_plainly(&self, path: &str) -> (u16, String) {
        let stream = tokio::net::TcpStream::connect(self.app.admin_addr()).await.unwrap();
        request(stream, "GET", path).await
    }
}

/// Asks over whatever leads to a core: status and body of the answer; 0 and why when there is none.
pub(crate) async fn request<I>(io: I, method: &str, path: &str) -> (u16, String)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let asked = async {
        let io = hyper_util::rt::TokioIo::new(io);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let body = http_body_util::Empty::<hyper::body::Bytes>::new();
        let request = hyper::Request::builder().method(method).uri(path);
        let request = request.header("host", "localhost").body(body).unwrap();
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
        Ok::<_, hyper::Error>((status, String::from_utf8(body.to_vec()).unwrap()))
    };
    asked.await.unwrap_or_else(|error| (0, error.to_string()))
}

fn plan(folder: &TempDir, to: &str, gateway: &str, tables: &str) -> Plan {
    let gateway = match gateway.contains("handshake_timeout") {
        true => gateway.to_owned(),
        false => format!("handshake_timeout = \"2s\"\n{gateway}"),
    };
    let text = format!(
        "data_dir = {:?}\n[gateway]\nlisten = \"127.0.0.1:0\"\n{gateway}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         {tables}\n[stream.logs]\n[pipeline.p]\nfrom = \"logs\"\n[pipeline.p.to.{to}\ntable = \"lines\"\n",
        folder.path().join("core"),
    );
    config::parse("test", &text).and_then(config::Config::check).unwrap()
}
