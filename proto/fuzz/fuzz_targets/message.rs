//! Feeds libFuzzer's bytes to [`garam_proto_fuzz::message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garam_proto_fuzz::message(data));
