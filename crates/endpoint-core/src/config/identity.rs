//! What does the server show under a name?
//!
//! Ground: plain data. Files are read and keys made by `certs` when the endpoint binds.

use std::path::PathBuf;

/// What the endpoint shows under a server name.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsIdentity {
    /// The endpoint's own Ed25519 key, raw (RFC 7250), and no certificate: X.509 clients of that
    /// name are refused. Raw-key peers need no name at all; this closes one to everybody else.
    RawKey,
    /// A certificate chain and its private key from PEM files, leaf first.
    X509 {
        /// The chain.
        cert: PathBuf,
        /// The private key: PKCS#8, SEC 1 or PKCS#1.
        key: PathBuf,
    },
    /// Certificates obtained over ACME (RFC 8555), one for each name, and renewed by themselves; feature
    /// `acme`. Until one is issued, a self-signed one is served.
    Acme(super::Acme),
    /// A certificate that somebody else renews and signs; seen on loopback addresses only. Until one is at
    /// hand, a self-signed one is served.
    Bundle(super::Bundle),
    /// A certificate of this machine's tailscaled. Until one is at hand, a self-signed one is served.
    Tailscale(super::Tailscale),
    /// A self-signed P-256 certificate, made when the endpoint binds and kept in the state folder
    /// if there is one.
    SelfSigned,
}
