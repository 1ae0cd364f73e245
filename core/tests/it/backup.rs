//! A core that is lost and restored from an older backup: real files, the real command line, a real pipeline.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use garam_core::app::App;

use crate::client::Client;
use crate::core_under_test::Core;

/// The command line beside a core.
struct Operator {
    folder: PathBuf,
}

impl Operator {
    /// Ports differ at each start, so the configuration is written anew for it.
    fn of(core: &Core) -> Self {
        let folder = core.folder.path().to_owned();
        let text = format!(
            "data_dir = {:?}\n[gateway]\nlisten = {:?}\n[admin]\nlisten = {:?}\n[stream.logs]\n[pipeline.p]\nfrom = \"logs\"\n\
             [pipeline.p.to.sqlite]\npath = {:?}\ntable = \"lines\"\n",
            folder.join("core"),
            core.app.gateway_addr().to_string(),
            core.app.admin_addr().to_string(),
            folder.join("data.sqlite"),
        );
        std::fs::write(folder.join("garam.toml"), text).unwrap();
        Self { folder }
    }

    fn garam(&self, arguments: &[&str]) -> Output {
        let config = self.folder.join("garam.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_garam"));
        command.arg("--config").arg(config).args(arguments).current_dir(&self.folder);
        command.output().unwrap()
    }

    #[track_caller]
    fn ends(&self, arguments: &[&str], code: i32) -> String {
        let output = self.garam(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text + &String::from_utf8(output.stdout).unwrap()
    }
}

async fn ship(core: &Core, identity: &Path, generation: u8, mark: u128, text: &str) {
    let mut agent = Client::connect(core.app.gateway_addr(), identity).await.unwrap();
    assert_eq!(agent.claim(1, generation, "logs").await, Ok(mark), "where the core stands");
    agent.push(1, generation, 1, mark, text).await;
    agent.acked(1, mark + text.len() as u128).await;
}

async fn is_parked(core: &Core) {
    core.eventually("the pipeline is parked", || async {
        let (_, lag) = core.ask("/v1/status").await;
        lag.contains("parked")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_restored_from_an_older_backup_delivers_everything_once_after_a_rewind() {
    let core = Core::start().await;
    let identity = core.identity("web-01");
    ship(&core, &identity, 1, 0, "one\ntwo\n").await;
    core.delivered(&["one", "two"]).await;
    let operator = Operator::of(&core);
    operator.ends(&["backup", "b"], 0);
    operator.ends(&["backup", "b"], 6);
    operator.ends(&["verify", "b"], 0);
    assert!(operator.ends(&["restore", "b", "--yes"], 6).contains("not empty"));
    // An origin that goes on, and one that is younger than the backup.
    ship(&core, &identity, 1, 8, "three\n").await;
    ship(&core, &identity, 2, 0, "young\n").await;
    core.delivered(&["one", "two", "three", "young"]).await;

    let Core { app, plan, folder } = core;
    app.stop(Duration::from_secs(20)).await.unwrap();
    drop(app);
    std::fs::rename(&plan.data_dir, folder.path().join("lost")).unwrap();
    operator.ends(&["restore", "b", "--dry-run"], 0);
    assert!(!plan.data_dir.try_exists().unwrap(), "a dry run makes nothing");
    operator.ends(&["restore", "b"], 2);
    operator.ends(&["restore", "b", "--yes"], 0);
    operator.ends(&["log", "verify"], 0);
    let app = App::start(plan.clone()).await.unwrap();
    let core = Core { app, plan, folder };
    let operator = Operator::of(&core);

    is_parked(&core).await;
    ship(&core, &identity, 1, 8, "three\n").await;
    ship(&core, &identity, 2, 0, "young\n").await;
    operator.ends(&["resume", "p", "--rewind"], 2);
    operator.ends(&["resume", "p", "--rewind", "--dry-run"], 0);
    let told = operator.ends(&["resume", "p", "--rewind", "--yes", "-o", "json"], 0);
    assert!(told.contains("\"decided\":true") && told.contains("\"started\":true"), "{told}");
    ship(&core, &identity, 1, 14, "four\n").await;
    core.delivered(&["one", "two", "three", "young", "four"]).await;
    assert!(operator.ends(&["resume", "p", "--rewind", "--yes"], 6).contains("fits"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_behind_a_restored_core_goes_on_unasked() {
    let core = Core::start().await;
    let identity = core.identity("web-01");
    ship(&core, &identity, 1, 0, "one\n").await;
    core.delivered(&["one"]).await;
    let operator = Operator::of(&core);
    let Core { app, plan, folder } = core;
    app.stop(Duration::from_secs(20)).await.unwrap();
    drop(app);
    operator.ends(&["backup", "b"], 0);
    std::fs::remove_dir_all(&plan.data_dir).unwrap();
    operator.ends(&["restore", "b", "--yes"], 0);
    let app = App::start(plan.clone()).await.unwrap();
    let core = Core { app, plan, folder };
    ship(&core, &identity, 1, 4, "two\n").await;
    core.delivered(&["one", "two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_newer_backup_is_refused_and_nothing_is_made_of_it() {
    let core = Core::start().await;
    ship(&core, &core.identity("web-01"), 1, 0, "one\n").await;
    core.delivered(&["one"]).await;
    let operator = Operator::of(&core);
    operator.ends(&["backup", "b"], 0);
    let Core { app, plan, folder } = core;
    app.stop(Duration::from_secs(20)).await.unwrap();
    std::fs::remove_dir_all(&plan.data_dir).unwrap();
    let backup = folder.path().join("b");
    let segment = backup.join("log/logs/0000/00000000000000000000.seg");
    for file in [&segment, &backup.join("meta.db"), &backup.join("MANIFEST")] {
        let good = std::fs::read(file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        std::fs::write(file, bad).unwrap();
        operator.ends(&["verify", "b"], 1);
        operator.ends(&["restore", "b", "--yes"], 1);
        std::fs::write(file, good).unwrap();
    }
    let stray = backup.join("log/logs/0000/00000000000000000009.seg");
    std::fs::write(&stray, "x").unwrap();
    assert!(operator.ends(&["verify", "b"], 1).contains("not in the MANIFEST"));
    std::fs::remove_file(stray).unwrap();
    let manifest = std::fs::read_to_string(backup.join("MANIFEST")).unwrap();
    let newer = manifest.replace("\"format\":1", "\"format\":2");
    std::fs::write(backup.join("MANIFEST"), newer).unwrap();
    operator.ends(&["verify", "b"], 78);
    operator.ends(&["restore", "b", "--yes"], 78);
    assert!(!plan.data_dir.try_exists().unwrap(), "nothing was changed");
    std::fs::write(backup.join("MANIFEST"), manifest).unwrap();
    // What a restore that was interrupted leaves keeps a core from starting, and is done again.
    std::fs::create_dir(&plan.data_dir).unwrap();
    std::fs::write(plan.data_dir.join("RESTORING"), "").unwrap();
    std::fs::write(plan.data_dir.join("meta.db"), "half").unwrap();
    assert!(operator.ends(&["run"], 6).contains("did not end"));
    operator.ends(&["restore", "b", "--yes"], 0);
    operator.ends(&["log", "verify"], 0);
}
