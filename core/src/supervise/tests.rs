//! Supervision under injected faults. Control and data share one runtime with paused time, so minutes of back-off pass in
//! no time and every run goes the same way.

mod decisions;
mod pieces;
mod world;

mod drawing;
mod restarting;
mod stopping;
