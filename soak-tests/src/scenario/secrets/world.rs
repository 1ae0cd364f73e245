//! Configurations full of secrets, files with hostile names, and every question that can be asked about them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use super::search::{Search, Secret};
use crate::ground::{Ground, free_port};

pub(super) const URL_PASSWORD: &str = "Zq7canaryurlpassword";
const ENV_PASSWORD: &str = "Zq7canaryenvpassword";
const FILE_PASSWORD: &str = "Zq7canaryfilepassword";
const BAD_URL_PASSWORD: &str = "Zq7canarybadurlpassword";
const HASH_KEY: &str = "Zq7canaryhashkey0123456789";
/// In records that a mask covers.
const MASKED: &str = "Zq7canarymasked";
pub(super) const DEBUG: (&str, &str) = ("GARAM_LOG", "debug");
pub(super) const ENVIRONMENT: [(&str, &str); 2] = [
    DEBUG,
    ("SECRETS_URL", "postgres://garam:Zq7canaryenvpassword@127.0.0.1:1/garam?sslmode=disable"),
];
/// What a name or a record with a line feed would put at the start of a line.
pub(super) const FORGED: &str = "FORGED LINE";
/// Clears a screen, begins a line, turns the rest around.
pub(super) const HOSTILE: &str = "evil\u{1b}[2J\u{9b}31m\nFORGED LINE\u{202e}gol";
/// Records that are delivered, and that the contract refuses, to the one database that is there.
pub(super) const GOOD: u64 = 20;
pub(super) const BROKEN: u64 = 10;
const FORMATS: [&str; 4] = ["table", "json", "yaml", "name"];

pub(super) struct World {
    enrol: SocketAddr,
    token: PathBuf,
}

impl World {
    pub(super) fn prepare(ground: &Ground, database: SocketAddr) -> anyhow::Result<Self> {
        let enrol = free_port(&[ground.gateway, ground.admin])?;
        let dir = &ground.dir;
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text);
        let url = |password: &str| {
            format!("postgres://garam:{password}@{database}/garam?sslmode=disable")
        };
        write("db.url", &url(URL_PASSWORD))?;
        write("db.password", FILE_PASSWORD)?;
        write("bad.url", &format!("postgres://garam:{BAD_URL_PASSWORD}@[no host/garam"))?;
        write("hash.key", HASH_KEY)?;
        std::fs::write(&ground.core_config, core_toml(ground, enrol))?;
        // An address that stands where it should not, beside a mistake; and one that is none.
        let good = core_toml(ground, enrol);
        let by_file = format!("url_file = {:?}", dir.join("db.url"));
        let broken = good.replace(&by_file, &format!("url = {:?}", url(URL_PASSWORD)));
        write("broken.toml", &broken.replace("table = \"by_url\"", "tabel = \"by_url\""))?;
        let bad = good.replace(&by_file, &format!("url_file = {:?}", dir.join("bad.url")));
        write("bad.toml", &bad)?;
        std::fs::write(&ground.agent_config, agent_toml(ground, enrol))?;
        Ok(Self { enrol, token: dir.join("token") })
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        let secrets = [
            ("the password of url_file", URL_PASSWORD),
            ("the password of the environment", ENV_PASSWORD),
            ("the password of password_file", FILE_PASSWORD),
            ("the password of an address that is none", BAD_URL_PASSWORD),
            ("the key of a mask", HASH_KEY),
            ("what a mask covers", MASKED),
        ];
        let secret = |(what, text): (&str, &str)| Secret { what: what.into(), text: text.into() };
        secrets.map(secret).into()
    }

    /// What a verb prints, on both streams, however it ends.
    pub(super) async fn garam(&self, ground: &Ground, verb: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.garam_with(&ground.core_config, ground, verb).await
    }

    async fn garam_with(
        &self,
        config: &Path,
        ground: &Ground,
        verb: &[&str],
    ) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(&ground.programs.core);
        command.arg("-c").arg(config).args(verb).envs(ENVIRONMENT);
        both(command).await
    }

    /// From a token to an identity. The token is a secret from here on.
    pub(super) async fn enrol(&self, ground: &Ground, search: &mut Search) -> anyhow::Result<()> {
        let file = self.token.to_str().context("the work folder's name is no UTF-8")?;
        let made =
            self.garam(ground, &["token", "create", "--host", "soak-host", "--out", file]).await?;
        search.output("token create", &made);
        let token = std::fs::read_to_string(&self.token)?;
        let secret = token.trim().split('.').nth(2).context("the token has another form")?;
        search.secret("the secret of a token", secret);
        let mut command = Command::new(&ground.programs.agent);
        command.args(["enrol", "--core", &self.enrol.to_string(), "--token-file", file]);
        command.arg("--config").arg(&ground.agent_config).envs([DEBUG]);
        search.output("garam-agent enrol", &both(command).await?);
        anyhow::ensure!(ground.identity().join("key.pem").is_file(), "no identity was made");
        Ok(())
    }

    /// The keys that lie in files: any line of them would be enough.
    pub(super) fn keys(&self, ground: &Ground, search: &mut Search) -> anyhow::Result<()> {
        let mut keys = vec![ground.identity().join("key.pem")];
        keys.extend(
            ["root", "issuing", "server"]
                .map(|name| ground.data_dir.join("pki").join(format!("{name}.key"))),
        );
        for key in keys {
            let text = std::fs::read_to_string(&key)?;
            let line = text.lines().nth(1).context("a key has another form")?;
            search.secret(format!("the key of {}", key.display()), line);
        }
        Ok(())
    }

    pub(super) fn write_records(&self, ground: &Ground) -> anyhow::Result<()> {
        let mut text = String::new();
        for id in 0..GOOD {
            text += &serde_json::json!({"id": id, "text": format!("card={MASKED}{id} {HOSTILE}")})
                .to_string();
            text.push('\n');
        }
        for id in 0..BROKEN {
            text += &serde_json::json!({"id": format!("{HOSTILE}{id}"), "text": ""}).to_string();
            text.push('\n');
        }
        let name = ground.logs.join(format!("{HOSTILE}.log"));
        std::fs::write(&name, text).context("a file with a hostile name")?;
        // One that nobody may open is named in warnings.
        std::os::unix::fs::symlink("/nonexistent", ground.logs.join(format!("{HOSTILE}2.log")))?;
        Ok(())
    }

    /// Every verb that shows something, in every format, and those that fail.
    pub(super) async fn ask_everything(
        &self,
        ground: &Ground,
        search: &mut Search,
    ) -> anyhow::Result<()> {
        let backup = ground.dir.join("backup");
        let backup = backup.to_str().context("the work folder's name is no UTF-8")?;
        let verbs: [&[&str]; 17] = [
            &["status"],
            &["tree"],
            &["lag"],
            &["check"],
            &["check", "--connect"],
            &["log", "inspect"],
            &["log", "verify"],
            &["dlq", "ls", "good"],
            &["dlq", "show", "good", "1"],
            &["agent", "ls"],
            &["token", "ls"],
            &["query", "select * from good"],
            &["query", "select nothing from \u{1b}[2J"],
            &["tap", "good", "--from", "earliest", "--limit", "20"],
            &["tap", "good", "--from", "earliest", "--limit", "20", "--before"],
            &["resume", "\u{1b}[2J\u{202e}"],
            &["resume", "by-url", "--rewind", "--dry-run"],
        ];
        for verb in verbs {
            for format in FORMATS {
                let asked = [verb, &["-o", format]].concat();
                let name = asked.join(" ").escape_default().to_string();
                search.output(&name, &self.garam(ground, &asked).await?);
            }
        }
        search.output("backup", &self.garam(ground, &["backup", backup]).await?);
        search.output("verify", &self.garam(ground, &["verify", backup]).await?);
        for config in ["broken.toml", "bad.toml"] {
            let path = ground.dir.join(config);
            for verb in [&["check"][..], &["check", "--connect"]] {
                let text = self.garam_with(&path, ground, verb).await?;
                search.output(&format!("{} with {config}", verb.join(" ")), &text);
            }
        }
        let verbs: [&[&str]; 7] = [
            &["check"],
            &["status"],
            &["status", "-o", "json"],
            &["status", "-o", "metrics"],
            &["fsck"],
            &["fsck", "-o", "json"],
            &["check", "--config", "/nonexistent/\u{1b}[2J"],
        ];
        for verb in verbs {
            let mut command = Command::new(&ground.programs.agent);
            command.args(verb).envs([DEBUG]).env("GARAM_AGENT_CONFIG", &ground.agent_config);
            let name = format!("garam-agent {}", verb.join(" ").escape_default());
            search.output(&name, &both(command).await?);
        }
        for path in ["/metrics", "/readyz", "/healthz"] {
            search.output(path, crate::admin::plainly(ground.admin, path).await?.as_bytes());
        }
        Ok(())
    }
}

/// Both streams of a program, however it ends.
async fn both(mut command: Command) -> anyhow::Result<Vec<u8>> {
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(super::PATIENCE, output).await;
    let output = output.with_context(|| format!("{command:?} does not end"))??;
    Ok([output.stdout, output.stderr].concat())
}

fn core_toml(ground: &Ground, enrol: SocketAddr) -> String {
    let Ground { data_dir, gateway, admin, database, dir, .. } = ground;
    let contract = "format = \"json\"\n[stream.s.contract.columns]\nid = \"bigint not null\"\ntext = \"text\"\n";
    format!(
        "data_dir = {data_dir:?}\n[gateway]\nlisten = \"{gateway}\"\nenrol_listen = \"{enrol}\"\n[admin]\nlisten = \"{admin}\"\n\
         [stream.s]\n[stream.s.contract]\n{contract}\
         [pipeline.good]\nfrom = \"s\"\n[pipeline.good.to.sqlite]\npath = {database:?}\ntable = \"good\"\n\
         [pipeline.by-url]\nfrom = \"s\"\n[pipeline.by-url.to.postgres]\nurl_file = {:?}\ntable = \"by_url\"\n\
         [pipeline.by-env]\nfrom = \"s\"\n[pipeline.by-env.to.postgres]\nurl = \"${{env:SECRETS_URL}}\"\npassword_file = {:?}\n\
         table = \"by_env\"\n",
        dir.join("db.url"),
        dir.join("db.password"),
    )
}

fn agent_toml(ground: &Ground, enrol: SocketAddr) -> String {
    format!(
        "state_dir = {:?}\nidentity_dir = {:?}\ncore = [\"{}\"]\nenrol_port = {}\n\
         [[file]]\nname = \"s\"\ninclude = [\"{}/*.log\"]\nstream = \"s\"\n\
         [[file.mask]]\npattern = 'card=[A-Za-z0-9]+'\nhash_key_file = {:?}\n",
        ground.state,
        ground.identity(),
        ground.gateway,
        enrol.port(),
        ground.logs.display(),
        ground.dir.join("hash.key"),
    )
}
