//! Strangers do their worst, or nothing at all; who else comes in meanwhile, and for how long may they?

mod crowd;
mod drain;
mod honest;
mod kinds;
mod silence;
mod slow_bodies;
mod strangers;

#[path = "../abuse/raw.rs"]
#[allow(dead_code, reason = "shared with another binary that needs more of it")]
mod raw;
#[path = "../abuse/raw2.rs"]
#[allow(dead_code, reason = "shared with another binary that needs more of it")]
mod raw2;
