//! Who asks? The extension of every request.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Request;
use tokio::time::Instant;

use super::{RequestBody, answers::Account};
use crate::{
    config::Access,
    facts::{Address, Carrier, KeyKind, PeerKey, is_loopback},
    phase::Activity,
    trust::{Approval, Denial, Permit, Watch},
};

/// Who sent a request, and over what. An extension of every request; cheap to clone.
#[derive(Clone, Debug)]
pub struct Requester(Arc<Inner>);

/// An answer that is under way. Its connection is busy as long.
#[derive(Debug)]
pub(super) struct UnderWay(Requester);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.answers.fetch_sub(1, Ordering::Relaxed);
        self.0.0.activity.ended(Instant::now);
    }
}

#[derive(Debug)]
struct Inner {
    over: Over,
    activity: Activity,
    /// Answers under way.
    answers: AtomicUsize,
    /// Where they are charged.
    account: OnceLock<Arc<Account>>,
}

#[derive(Debug)]
enum Over {
    /// TLS: the connection is in the table of live connections.
    Live(Watch),
    /// Plain HTTP: nobody proved anything.
    Plain { remote: SocketAddr, local: SocketAddr },
}

impl Requester {
    fn new(over: Over, activity: Activity) -> Self {
        let (answers, account) = (AtomicUsize::new(0), OnceLock::new());
        Self(Arc::new(Inner { over, activity, answers, account }))
    }

    pub(super) fn live(watch: Watch, activity: Activity) -> Self {
        Self::new(Over::Live(watch), activity)
    }

    /// The same as [`Self::plain`], of a connection whose phase somebody watches.
    pub(super) fn plain_on(remote: SocketAddr, local: SocketAddr, activity: Activity) -> Self {
        Self::new(Over::Plain { remote, local }, activity)
    }

    /// A requester on a plain connection, which shows no key.
    #[must_use]
    pub fn plain(remote: SocketAddr, local: SocketAddr) -> Self {
        Self::plain_on(remote, local, Activity::new(Instant::now()))
    }

    /// Answers of this connection that are under way: an answer that waits for its client should hold the
    /// less the more there are.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.0.answers.load(Ordering::Relaxed)
    }

    /// Whether the answers that wait for their clients, of all connections, hold more than half of
    /// [`Limits::answer_bytes`](crate::config::Limits::answer_bytes): each should hold little then.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.0.account.get().is_some_and(|account| account.is_crowded())
    }

    /// Says where the answers of this connection are charged.
    pub(super) fn charged_to(&self, account: &Arc<Account>) {
        let _ = self.0.account.set(Arc::clone(account));
    }

    /// Counts an answer until it ends.
    pub(super) fn answering(&self) -> UnderWay {
        self.0.answers.fetch_add(1, Ordering::Relaxed);
        self.0.activity.begun(Instant::now);
        UnderWay(self.clone())
    }

    /// Puts the requester, and the guard of the body if there is one, into a request's extensions.
    pub(super) fn go_with(&self, request: &mut Request<RequestBody>) {
        let guard = request.body_mut().guard();
        let extensions = request.extensions_mut();
        extensions.insert(self.clone());
        if let Some(guard) = guard {
            extensions.insert(guard);
        }
    }

    /// Where the requester is. Rules of addresses ask [`Address::satisfies`].
    #[must_use]
    pub fn address(&self) -> Address {
        match &self.0.over {
            Over::Live(watch) => watch.address(),
            Over::Plain { remote, .. } => Address::at(*remote),
        }
    }

    /// The address that the requester answered from last: what others are told.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.address().proven()
    }

    /// The address of ours that the connection came to.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        match &self.0.over {
            Over::Live(watch) => watch.facts().local,
            Over::Plain { local, .. } => *local,
        }
    }

    /// What carries the request; `None` for plain HTTP.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        match &self.0.over {
            Over::Live(watch) => Some(watch.facts().carrier),
            Over::Plain { .. } => None,
        }
    }

    /// The name that the TLS handshake asked for (SNI, RFC 6066 §3), normalised.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match &self.0.over {
            Over::Live(watch) => watch.facts().server_name.as_deref(),
            Over::Plain { .. } => None,
        }
    }

    /// The kind of key that the server showed; `None` for plain HTTP.
    #[must_use]
    pub fn server_key_kind(&self) -> Option<KeyKind> {
        match &self.0.over {
            Over::Live(watch) => Some(watch.facts().profile.server),
            Over::Plain { .. } => None,
        }
    }

    /// The key that the requester proved to hold.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        match &self.0.over {
            Over::Live(watch) => watch.facts().peer,
            Over::Plain { .. } => PeerKey::None,
        }
    }

    /// Number of the connection, as in [`ConnectionInfo`](crate::ConnectionInfo); `None` for plain HTTP.
    #[must_use]
    pub fn connection_id(&self) -> Option<u64> {
        match &self.0.over {
            Over::Live(watch) => Some(watch.facts().id),
            Over::Plain { .. } => None,
        }
    }

    /// Judges the requester by `access`, now. Each request is judged for itself; what goes on for longer
    /// waits beside it for [`RequestPermit::no_longer`].
    ///
    /// # Errors
    /// [`Denial`], for the log; a client is told no more than 403.
    pub fn permit(&self, access: &Access) -> Result<RequestPermit, Denial> {
        let (permit, approval) = match &self.0.over {
            Over::Live(watch) => {
                let (permit, approval) = watch.permit(access)?;
                (Some(permit), Some(approval))
            }
            Over::Plain { remote, .. } => match access {
                Access::Public => (None, None),
                Access::Loopback if is_loopback(remote.ip()) => (None, None),
                Access::Loopback => return Err(Denial::NotLoopback),
                Access::Peer(_) | Access::Enroll => return Err(Denial::NoKey),
            },
        };
        Ok(RequestPermit { requester: self.clone(), access: access.clone(), permit, approval })
    }
}

/// The yes to one request.
#[derive(Clone, Debug)]
pub struct RequestPermit {
    requester: Requester,
    access: Access,
    permit: Option<Permit>,
    approval: Option<Approval>,
}

impl RequestPermit {
    /// What is known of the peer: key, name, tenant, scopes; `None` for plain HTTP.
    #[must_use]
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// Whether the yes can end before the connection does: a rule that asks for something.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.approval.is_some() && self.access != Access::Public
    }

    /// Waits until the requester is no longer allowed what this permit told of: on a change of the set
    /// at once, by time or address within a second.
    pub async fn no_longer(&self) -> Denial {
        match (&self.requester.0.over, &self.approval) {
            (Over::Live(watch), Some(first)) => watch.no_longer(&self.access, first).await,
            _ => std::future::pending().await,
        }
    }
}
