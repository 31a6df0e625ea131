//! How are certificates obtained from an authority, and renewed, without anybody looking after them?
//!
//! `issuer` is what an authority does for us, `rustls_acme` and `instant_acme` the two clients that do it,
//! `engine` picks between them. `source` does for one name what `certs::plan` says, `schedule` is what all
//! names share.

mod account_key;
mod accounts;
#[cfg(test)]
mod answering;
mod answers;
mod ari;
pub(crate) mod challenge;
mod csr;
#[cfg(test)]
mod dark_tests;
pub(crate) mod engine;
mod entries;
#[cfg(test)]
mod fake;
mod hold;
mod instant_acme;
mod issuer;
mod limits;
mod order;
#[cfg(test)]
mod pebble_tests;
mod problem;
mod published;
mod register;
mod rustls_acme;
mod schedule;
mod source;
mod steps;
mod unkept;
mod wire;

pub(crate) use self::{ari::suggested, schedule::Desk, source::AcmeSource};
