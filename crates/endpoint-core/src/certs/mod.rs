//! Which certificate is served under which name?
//!
//! Certificates come from files or are made here, and stand in one table that handshakes read.
//! Not here: the handshake (`tls`).
//!
//! Always true: a handshake reads memory only; nothing is served whose key does not match.

#[cfg(any(feature = "acme", feature = "http3"))]
mod ask;
#[cfg(not(any(feature = "acme", feature = "http3")))]
#[path = "ask_off.rs"]
mod ask;
pub mod bundle;
pub(crate) mod challenges;
pub(crate) mod files;
#[cfg(feature = "acme")]
pub(crate) mod history;
pub(crate) mod local;
mod names;
pub(crate) mod pace;
#[cfg(feature = "acme")]
pub(crate) mod plan;
mod private_file;
pub(crate) mod probe;
pub(crate) mod self_signed;
pub(crate) mod source;
#[cfg(any(feature = "acme", feature = "http3"))]
pub(crate) mod staple;
#[cfg(not(any(feature = "acme", feature = "http3")))]
#[path = "staple_off.rs"]
pub(crate) mod staple;
pub(crate) mod stored;
mod table;
pub(crate) mod tailscale;
pub(crate) mod validity;
pub(crate) mod vault;

pub(crate) use self::table::{CertTable, Names, Served, normalized_name};
