//! A QUIC endpoint with fingerprint identity: raw-key peers and browsers on one port.
//!
//! A connection takes six steps, and each is a module, in this order: `transport` → `admission` → `tls` →
//! `dispatch` → [`trust`] → [`handler`]. [`endpoint`] puts them together.
//!
//! Begin with [`Endpoint::builder`]: an identity, where to listen, who is trusted, and a [`Handler`] for each
//! protocol. [`Endpoint::connect`] dials a [`Target`]. Both take part in the program of the README, which is
//! compiled as a test of this crate, and in `examples/echo.rs` and `examples/pinned_dial.rs`, which run in one;
//! so does `examples/web.rs`, a site for browsers and peers. `examples/acme.rs` is one whose certificates look
//! after themselves.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests make and read files as they like")
)]

// ground: no network, no decisions
pub mod alpn;
mod apart;
pub mod clock;
pub mod close;
pub mod config;
pub mod error;
pub mod event;
pub mod facts;
pub mod hostname;
pub mod identity;
mod phase;
pub mod target;
mod woken;

// 1
pub mod store;
mod transport;
// 2
mod admission;
// 3
#[cfg(feature = "acme")]
mod acme;
mod certs;
pub mod tls;
// 4
mod dispatch;
// 5
pub mod trust;
// 6
pub mod handler;
#[cfg(feature = "http3")]
pub mod http;

// the whole
pub mod endpoint;

pub use self::{
    alpn::Alpn,
    certs::bundle,
    certs::vault::{Ailing, Condition, Examined, KeptCertificate, Origin, Vault, VaultError},
    clock::Clock,
    close::CloseCode,
    config::{Access, Acme, AcmeDirectory, Limits, Scope, StoreConfig, TlsIdentity},
    dispatch::RegisterError,
    endpoint::{BindError, Builder, ConnectError, Endpoint},
    error::LinkError,
    handler::{Connection, Handler, HandlerError, Permit},
    identity::{Fingerprint, Identity},
    target::Target,
    transport::{RecvStream, SendStream},
    trust::{AuthorizedPeers, ConnectionInfo, Denial},
};

// For the fuzz targets, which stand outside of this crate: no part of the interface.
#[doc(hidden)]
pub use self::certs::probe::CertProbe;

/// The program in the README compiles as it stands.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
