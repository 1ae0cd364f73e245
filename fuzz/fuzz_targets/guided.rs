//! One target under libFuzzer, which watches what the bytes reach: `fuzz/run TARGET`. `GARAM_FUZZ_TARGET` names it.
// No `forbid(unsafe_code)`: the macro exports the function that libFuzzer calls by its name in C.
#![no_main]

use std::sync::LazyLock;

use garam_fuzz::{TARGETS, Target};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("GARAM_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name:?}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (CHOSEN.run)(data);
});
