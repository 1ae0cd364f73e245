//! The core: takes blocks in, makes them durable, refines and delivers them, and supervises everything that does.
//!
//! Reading order: [`config`] (what the operator wrote) → [`pki`] (certificates) → [`enrol`] (who may have one, and do what) → [`gateway`] (the door) → [`actors`] (the
//! rooms as children of the tree) → [`supervise`] (who restarts what) → [`app`] (the wiring) → [`backup`] → [`admin`] (what can be asked)
//! → [`cli`] (how it is asked). The rooms themselves are crates of their own: log, meta, stage, refine, flow, sink.
#![forbid(unsafe_code)]

pub mod actors;
pub mod admin;
pub mod app;
pub mod backup;
pub mod cli;
pub mod config;
pub mod enrol;
pub mod gateway;
pub mod pki;
pub mod supervise;
