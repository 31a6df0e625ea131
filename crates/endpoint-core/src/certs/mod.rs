//! Which certificate is served under which name?
//!
//! Certificates come from files or are made here, and stand in one table that handshakes read.
//! Not here: the handshake (`tls`).
//!
//! Always true: a handshake reads memory only; nothing is served whose key does not match.

pub(crate) mod files;
pub(crate) mod self_signed;
mod table;
pub(crate) mod validity;

pub(crate) use self::table::{CertTable, Names, Served, normalized_name};
