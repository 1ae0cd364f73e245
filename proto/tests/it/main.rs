//! The wire format, held to its promises: golden bytes, round trips, hostile input.
// No `forbid(unsafe_code)`: an allocator that counts what is taken cannot be written without (`largest`).
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is the test's failure")]

mod arbitrary;
mod codecs;
mod frames;
mod fuzz_entries;
mod golden;
mod hashes;
mod headers;
mod largest;
mod payloads;
mod round_trips;
mod samples;
