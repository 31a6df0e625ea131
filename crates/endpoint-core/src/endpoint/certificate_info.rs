//! What does an operator see of certificates?

use std::path::PathBuf;

use jiff::Timestamp;

use crate::certs::vault::Condition;

/// What an operator sees of a certificate that is served.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The names that it is served under.
    pub names: Vec<String>,
    /// Where it comes from: `acme`, `bundle`, `files`, `self-signed` or `tailscale`.
    pub source: &'static str,
    /// The PEM file that holds it, if it is kept in one.
    pub file: Option<PathBuf>,
    /// Who issues it: the URL of a directory, the signer of a bundle.
    pub issuer: Option<String>,
    /// Which client speaks to the authority.
    pub engine: Option<&'static str>,
    /// Why that one.
    pub engine_reason: Option<String>,
    /// Not good before, of what is served.
    pub not_before: Timestamp,
    /// Not good after, of what is served.
    pub not_after: Timestamp,
    /// Whether what is served is self-signed, because the source has nothing yet.
    pub fallback: bool,
    /// How the newest certificate of the source stands.
    pub condition: Condition,
    /// What happens next.
    pub next_action: Option<String>,
    /// When.
    pub next_at: Option<Timestamp>,
    /// What went wrong last, if nothing went right since.
    pub last_error: Option<String>,
}

/// Why a certificate was not renewed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// Too many orders failed lately; another one might make the authority refuse the name for longer.
    #[error("the failure budget is spent; the next order may be made at {until}")]
    BudgetSpent {
        /// When it may be tried again.
        until: Timestamp,
    },
    /// It was tried.
    #[error("{0}")]
    Failed(String),
    /// There is nobody to ask.
    #[error(
        "certificates from source `{0}` are not renewed on request; replace what it reads instead"
    )]
    NotRenewable(&'static str),
    /// No certificate is served under that name.
    #[error("no certificate is configured for `{}`; there are: {}", name.escape_debug(), known.join(", "))]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}
