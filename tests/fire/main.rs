//! Strangers do their worst, or nothing at all; who else comes in meanwhile, and for how long may they?

use std::time::Duration;

mod drain;
mod honest;
mod kinds;
mod memory;
mod silence;
mod slow_bodies;
mod strangers;
mod tokens;

#[path = "../abuse/raw.rs"]
#[allow(dead_code, reason = "shared with another binary that needs more of it")]
mod raw;
#[path = "../abuse/raw2.rs"]
#[allow(dead_code, reason = "shared with another binary that needs more of it")]
mod raw2;

/// One at a time: a crowd takes a core, and what is timed beside it would be late.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How much later than promised something may be. A short run shares the machine with whatever else is there.
fn tolerance() -> Duration {
    Duration::from_secs(if endpoint_tests::long() { 1 } else { 3 })
}
