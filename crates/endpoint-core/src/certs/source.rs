//! Where does a certificate come from, and when is it looked for again?
//!
//! The one trait of files, self-signed certificates, ACME, bundles and Tailscale. Its driver stands in
//! `endpoint`: it calls [`Source::look`] when the endpoint binds and then when the source asked for it, on a
//! task of its own, never inside a handshake.

use std::{future::Future, pin::Pin};

use jiff::Timestamp;

use super::{files::Loaded, vault::Condition};

/// A look that is under way.
pub(crate) type Looking<'a> = Pin<Box<dyn Future<Output = Looked> + Send + 'a>>;

/// Where the certificate of a group of names comes from.
pub(crate) trait Source: std::fmt::Debug + Send + Sync {
    /// `files`, `self-signed`, `acme`, `bundle` or `tailscale`.
    fn name(&self) -> &'static str;

    /// Whether it never asks anybody: a reload waits for its looks, and nobody can ask it to renew.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether the fault that it found keeps the endpoint from being bound: only what an operator got wrong, such
    /// as a file that is not there, and never what befalls a certificate by itself.
    fn is_fatal(&self) -> bool {
        self.is_local()
    }

    /// What is at hand without asking anybody: from a file or the store. Called once, before the endpoint
    /// listens.
    fn kept<'a>(&'a self, now: Timestamp) -> Looking<'a>;

    /// Looks for a newer one, and asks whom it takes. Never called twice at once. `forced`: an operator
    /// asked for it, so a certificate that is still fresh is no reason to wait; a spent budget is.
    fn look<'a>(&'a self, now: Timestamp, forced: bool) -> Looking<'a>;

    /// Whether something that can be seen at once has changed, so that a look is due before its time.
    /// Called once a second.
    fn changed(&self) -> bool {
        false
    }

    /// Until when the failure budget lets nobody ask, also not a look that is forced.
    fn spent_until(&self) -> Option<Timestamp> {
        None
    }

    /// The authority says that it took back what is served: another one is preferred from now on, also after a
    /// restart.
    fn taken_back(&self) {}

    /// What an operator sees.
    fn standing(&self) -> Standing;
}

/// What a look found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// A certificate to serve from now on; `None`: the one that is served stays.
    pub(crate) fresh: Option<Loaded>,
    /// When to look again; `None`: only when something has changed.
    pub(crate) again: Option<Timestamp>,
    /// What went wrong, with what to do about it.
    pub(crate) fault: Option<String>,
}

/// What an operator sees of a source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Standing {
    /// Who issues: the directory's URL, the signer of a bundle.
    pub(crate) issuer: Option<String>,
    /// `rustls-acme` or `instant-acme`, and why it was picked.
    pub(crate) engine: Option<(&'static str, String)>,
    /// What happens next, and when.
    pub(crate) next: Option<(String, Timestamp)>,
    /// What went wrong last.
    pub(crate) last_error: Option<String>,
    /// How the newest certificate stands.
    pub(crate) condition: Condition,
}
