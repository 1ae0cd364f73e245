//! The corpus is replayed, then changed a little thousands of times: the same inputs at every run, on stable Rust.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use fastrand::Rng;
use garam_fuzz::{TARGETS, Target, mutate};

/// No target takes so long for one input, on the slowest of machines.
const SLOW: Duration = Duration::from_secs(10);
/// Memory of the whole process: an allocation that only a declared size asks for ends it.
const MEMORY: u64 = 3 << 30;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("{target} has no corpus: {error}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs one input, and keeps it where it broke something.
fn try_one(target: &Target, what: &str, input: &[u8]) -> bool {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let failed = match outcome {
        Ok(accepted) if begun.elapsed() < SLOW => return accepted,
        Ok(_) => format!("took {:?}", begun.elapsed()),
        Err(_) => "panicked: see above".into(),
    };
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    std::fs::create_dir_all(&kept).unwrap();
    let kept = kept.join(format!("{}-{}", target.name, what.replace(' ', "-")));
    std::fs::write(&kept, input).unwrap();
    panic!("{} {failed}; the input, {what}, is {}", target.name, kept.display());
}

fn limit_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = rustix::process::Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    });
}

fn run(name: &str) {
    limit_memory();
    let target = TARGETS.into_iter().find(|target| target.name == name).unwrap();
    let inputs = corpus(name);
    let accepted = inputs.iter().filter(|(file, bytes)| try_one(&target, file, bytes)).count();
    assert!(
        accepted > 0,
        "nothing in corpus/{name} is valid any more: GARAM_WRITE_SEEDS=1 cargo test -p garam-fuzz writes valid ones"
    );
    let mut rng = Rng::with_seed(7);
    for round in 0..target.rounds {
        let (_, input) = &inputs[rng.usize(0..inputs.len())];
        let (_, other) = &inputs[rng.usize(0..inputs.len())];
        let changed = mutate::mutate(&mut rng, input, other);
        try_one(&target, &format!("round {round}"), &changed);
    }
}

macro_rules! each {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), run);
        }
    };
}

each!(
    frame,
    message,
    records,
    decompress,
    enrolment,
    block,
    csr,
    certificate,
    core_config,
    agent_config,
    segment,
    checkpoint,
    syslog,
    journal
);

#[test]
fn a_target_that_panics_is_named_and_its_input_kept() {
    let target = Target { name: "canary", run: |data| data[2] == 0, rounds: 0 };
    assert!(try_one(&target, "three bytes", &[1, 2, 0]));
    let told = catch_unwind(|| try_one(&target, "one byte", &[1])).unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    assert!(told.contains("canary panicked") && told.contains("canary-one-byte"), "{told}");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/canary-one-byte");
    assert_eq!(std::fs::read(&kept).unwrap(), [1]);
    std::fs::remove_file(kept).unwrap();
}
