//! Which certificate authority issues certificates, and where are they kept?
//!
//! Ground: plain data. Nothing here talks to anybody; `acme` and `store` do when the endpoint binds.

use std::{path::PathBuf, time::Duration};

/// Where an ACME directory is (RFC 8555 §7.1.1).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum AcmeDirectory {
    /// Let's Encrypt.
    #[default]
    Production,
    /// Let's Encrypt's staging environment: generous limits, certificates that nobody trusts.
    Staging,
    /// ZeroSSL, which asks for an external account binding.
    ZeroSsl,
    /// Any other, by its URL.
    Custom(String),
}

impl AcmeDirectory {
    /// The URL of the directory.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::Production => "https://acme-v02.api.letsencrypt.org/directory",
            Self::Staging => "https://acme-staging-v02.api.letsencrypt.org/directory",
            Self::ZeroSsl => "https://acme.zerossl.com/v2/DV90",
            Self::Custom(url) => url,
        }
    }
}

/// A way to prove control of a name to a certificate authority.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ChallengeKind {
    /// In a TLS handshake on TCP port 443 (RFC 8737).
    TlsAlpn01,
    /// In an HTTP answer on TCP port 80 (RFC 8555 §8.3).
    Http01,
}

/// The kind of key that a certificate is issued for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum CertificateKey {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
}

/// A client that speaks to certificate authorities.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AcmeEngine {
    /// rustls-acme: DNS names, P-256.
    RustlsAcme,
    /// instant-acme: also external accounts, profiles, IP addresses, P-384, and the word to the authority
    /// that a certificate replaces another.
    InstantAcme,
}

impl AcmeEngine {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RustlsAcme => "rustls-acme",
            Self::InstantAcme => "instant-acme",
        }
    }
}

/// External account binding (RFC 8555 §7.3.4): who we are to the authority's operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalAccount {
    /// The key's name at the authority.
    pub kid: String,
    /// A file that holds the HMAC key as base64url, as the authority gave it.
    pub hmac_file: PathBuf,
}

/// A certificate authority, and how we are known to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AcmeIssuer {
    /// Its directory.
    pub directory: AcmeDirectory,
    /// Where it may reach us: `mailto:` URLs.
    pub contact: Vec<String>,
    /// A PEM file of the roots that its directory's certificate is checked against. `None`: the platform's.
    pub ca_root: Option<PathBuf>,
    /// External account binding, if it asks for one.
    pub eab: Option<ExternalAccount>,
    /// The certificate profile to ask for (draft-ietf-acme-profiles), for example `shortlived`.
    pub profile: Option<String>,
    /// The kind of key.
    pub key_type: CertificateKey,
    /// A directory to try first after a failure, so that failures count there. `None`: Let's Encrypt's
    /// staging for its production, else none.
    pub staging: Option<AcmeDirectory>,
    /// The client to use where both can. `None`: instant-acme.
    pub engine: Option<AcmeEngine>,
}

/// The secret that seals what is kept: at least 32 random bytes, as hex or base64.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreSecret {
    /// In a file of mode 0600, which is made with a new secret if there is none.
    File(PathBuf),
    /// In this environment variable.
    Environment(String),
    /// Handed over by systemd under this name (`LoadCredential=`), in the folder `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Where certificates, keys and accounts are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreConfig {
    /// Nowhere: every start orders anew. For tests.
    #[default]
    Memory,
    /// In an SQLite file; feature `sqlite`.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What seals the keys in it.
        secret: StoreSecret,
    },
}

/// Certificates obtained over ACME (RFC 8555), one for each domain.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Acme {
    /// DNS names or IP addresses.
    pub domains: Vec<String>,
    /// Where what is issued is kept.
    pub store: StoreConfig,
    /// The authorities, tried in this order; at least one.
    pub issuers: Vec<AcmeIssuer>,
    /// The proofs that may be tried, in this order; after a failure the other one goes first. For HTTP-01
    /// something has to answer on port 80 with [`Endpoint::challenge_response`](crate::Endpoint::challenge_response):
    /// leave it out where nothing does.
    pub challenges: Vec<ChallengeKind>,
    /// How long before its end a certificate is renewed, at most a third of its life. `None`: 30 days.
    pub renew_before: Option<Duration>,
}

impl Acme {
    /// Certificates for `domains` from Let's Encrypt, kept in memory.
    #[must_use]
    pub fn new(domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            domains: domains.into_iter().map(Into::into).collect(),
            store: StoreConfig::default(),
            issuers: vec![AcmeIssuer::default()],
            // The endpoint answers it by itself; HTTP-01 needs somebody on port 80.
            challenges: vec![ChallengeKind::TlsAlpn01],
            renew_before: None,
        }
    }

    /// Orders at this directory.
    #[must_use]
    pub fn directory(mut self, directory: AcmeDirectory) -> Self {
        if let Some(first) = self.issuers.first_mut() {
            first.directory = directory;
        }
        self
    }

    /// Where the authority may reach us: a `mailto:` URL.
    #[must_use]
    pub fn contact(mut self, url: impl Into<String>) -> Self {
        if let Some(first) = self.issuers.first_mut() {
            first.contact.push(url.into());
        }
        self
    }

    /// Keeps what is issued there.
    #[must_use]
    pub fn store(mut self, store: StoreConfig) -> Self {
        self.store = store;
        self
    }
}
