//! Do certificates look after themselves, at real authorities?
//!
//! Pebble and its DNS server from Debian, Caddy's own authority from PyPI, and a proxy before Pebble that
//! errs as it is told. `cargo xtask test` installs what is missing.

mod caddy;
mod commands;
mod dark;
mod example;
mod faults;
mod fire;
mod guard;
mod processes;
#[allow(dead_code, reason = "shared with the test binary `interop`, which needs more of it")]
#[path = "../interop/pypi.rs"]
mod pypi;
mod renewals;
mod scene;
mod secrets;
mod serve;
mod site;
mod special;
