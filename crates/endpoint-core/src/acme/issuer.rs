//! What does an authority do for us, whichever client speaks to it?
//!
//! Two engines stand behind one trait: rustls-acme for plain DNS names, instant-acme for what it lacks.
//! Timing, retries across orders, budgets and the store are not theirs but `schedule`'s.
//!
//! Always true: every call ends by its own deadline; an engine that ends takes its challenge answers back.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::config::{CertificateKey, ChallengeKind};

/// An answer of an authority that is yet to come.
pub(crate) type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, IssueError>> + Send + 'a>>;

/// A client of one authority.
pub(crate) trait Issuer: fmt::Debug + Send + Sync {
    /// `rustls-acme` or `instant-acme`.
    fn engine(&self) -> &'static str;

    /// Registers the key, or finds its account (RFC 8555 §7.3). Gives the account's URL.
    fn register<'a>(&'a self, key: &'a AccountKey) -> Asked<'a, String>;

    /// Orders one certificate, answers the challenges, and gives what was issued.
    fn issue<'a>(&'a self, account: &'a Account, order: &'a Order) -> Asked<'a, Issued>;

    /// When the authority wants this certificate renewed (RFC 9773); `None`: it has no opinion.
    fn window<'a>(
        &'a self,
        account: &'a Account,
        leaf: &'a CertificateDer<'static>,
    ) -> Asked<'a, Option<Window>>;
}

/// An ECDSA P-256 account key, PKCS#8; the form that both engines take. Wiped when dropped.
#[derive(Clone)]
pub(crate) struct AccountKey(pub(crate) Zeroizing<Vec<u8>>);

/// An account at an authority.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Its key.
    pub(crate) key: AccountKey,
    /// Its URL, which signs requests.
    pub(crate) url: String,
}

/// What is ordered.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The one name: a DNS name or an IP address.
    pub(crate) name: String,
    /// The proofs to try, in this order.
    pub(crate) challenges: Vec<ChallengeKind>,
    /// The kind of certificate key.
    pub(crate) key: CertificateKey,
    /// The profile to ask for.
    pub(crate) profile: Option<String>,
    /// The leaf that the new certificate replaces (RFC 9773 §5).
    pub(crate) replaces: Option<CertificateDer<'static>>,
    /// Where challenge answers are published.
    pub(crate) answers: Arc<dyn Answers>,
}

/// Where an engine publishes the answers to challenges: in memory, and for other processes in the store.
pub(crate) trait Answers: fmt::Debug + Send + Sync {
    /// Answers this challenge from now on, everywhere, before the future ends.
    fn publish(&self, answer: Answer) -> Asked<'_, ()>;
    /// Takes the answer for that name and token back. Cannot fail: what cannot be taken back, expires.
    fn withdraw(&self, answer: Answer) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The answer to one challenge.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Which proof.
    pub(crate) kind: ChallengeKind,
    /// The name that is proved.
    pub(crate) name: String,
    /// The authority's token.
    pub(crate) token: String,
    /// The key authorization (RFC 8555 §8.1), from which the certificate of TLS-ALPN-01 is made.
    pub(crate) key_authorization: String,
}

/// What an authority issued.
pub(crate) struct Issued {
    /// The chain, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Its key, PKCS#8.
    pub(crate) key: Zeroizing<Vec<u8>>,
}

/// A renewal window (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Window {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// How long the answer is good for.
    pub(crate) ask_again: Duration,
}

/// What went wrong with an authority.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct IssueError {
    pub(crate) kind: Fault,
    /// What to tell the operator: what was wrong, with which value. Escaped, of bounded length.
    pub(crate) detail: String,
    /// How long the authority asked us to wait (RFC 9110 §10.2.3).
    pub(crate) retry_after: Option<Duration>,
}

/// How a fault counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Fault {
    /// No answer: not reached, not in time, 5xx, or no ACME. Says nothing about the order.
    Unavailable,
    /// The authority limits us (429, `rateLimited`).
    RateLimited,
    /// The account is unknown to the authority: register again.
    AccountUnknown,
    /// The authority refuses the account: external account binding absent or wrong, or deactivated.
    AccountRefused,
    /// A challenge was not met, or the authority refused the name. Counts against the budget.
    Refused,
    /// The store failed while challenge answers were published.
    Store,
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey(..)")
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}
