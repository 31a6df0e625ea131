//! Plain HTTP/1.1, for loopback and for the port that redirects to https.
//!
//! Nobody proves anything here: every request carries a [`Requester`] without a key. The same service and
//! the same checks as behind TLS.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, TcpListener},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

use super::{Answers, BoxError, RequestBody, Requester, service::HttpService, tcp::http1};
use crate::{
    config::{Limits, PaceLimits, RequestLimits},
    phase::{Activity, Movement, Pace},
    transport::tcp::{Accepted, accept, end_when_not_taken},
};

/// How plain connections are taken.
#[derive(Clone, Debug)]
pub struct PlainOptions {
    connections: usize,
    per_source: usize,
    lifetime: Option<Duration>,
    answers: Answers,
}

impl Default for PlainOptions {
    /// 256 connections, from one source or many, for as long as they like.
    fn default() -> Self {
        let answers = Answers::default();
        Self { connections: 256, per_source: usize::MAX, lifetime: None, answers }
    }
}

impl PlainOptions {
    /// Connections at one time, at least 1; more wait in the kernel's queue.
    #[must_use]
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// Connections at one time from one IPv4 address or one IPv6 network of 64 bits; more are closed at once.
    #[must_use]
    pub fn per_source(mut self, count: usize) -> Self {
        self.per_source = count;
        self
    }

    /// One request for each connection, which ends after `lifetime` at the latest: for a listener that
    /// everybody reaches and whose answers are short.
    #[must_use]
    pub fn brief(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Counts answers that wait for their clients in this sum, instead of one of its own.
    #[must_use]
    pub fn counted_in(mut self, answers: &Answers) -> Self {
        self.answers = answers.clone();
        self
    }
}

/// Serves plain HTTP/1.1 on `listener` with clones of `service`, as long as what this gives is polled and
/// `end` is not there; then it finishes what was accepted. Of `limits` those of requests count. Called within
/// a tokio runtime.
///
/// # Errors
/// A listener that cannot be driven.
pub fn serve_plain<S, B, E>(
    listener: TcpListener,
    service: S,
    options: &PlainOptions,
    limits: &Limits,
    end: E,
) -> io::Result<impl Future<Output = ()> + Send + use<S, B, E>>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Future<Output = ()> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(serve(listener, service, options.clone(), limits.requests, limits.pace, end))
}

async fn serve<S: HttpService>(
    listener: tokio::net::TcpListener,
    service: S,
    options: PlainOptions,
    limits: RequestLimits,
    pace: PaceLimits,
    end: impl Future<Output = ()> + Send + 'static,
) {
    let service = Arc::new(service);
    let room = Arc::new(Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let sources = Sources::default();
    let tasks = TaskTracker::new();
    let ended = CancellationToken::new();
    let end_with_this = ended.clone().drop_guard();
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = async {
                let slot = Arc::clone(&room).acquire_owned().await;
                (accept(&listener).await, slot)
            } => accepted,
        };
        let (Accepted { stream, remote }, slot) = accepted;
        let Ok(local) = stream.local_addr() else { continue };
        let Some(source) = sources.enter(remote.ip(), options.per_source) else { continue };
        let lifetime = options.lifetime;
        let account = options.answers.account(&limits);
        end_when_not_taken(&stream, limits.answer_idle);
        let (service, draining) = (Arc::clone(&service), ended.clone());
        tasks.spawn(async move {
            let activity = Activity::new(Instant::now());
            let requester = Requester::plain_on(remote, local, activity.clone());
            let pace = Pace::new(activity, draining, pace);
            let lasts = lifetime.is_none();
            let ended = http1(stream, &service, &requester, limits, &account, lasts, pace.ends());
            let ended = tokio::select! {
                ended = ended => ended,
                () = cut_off(&pace, lifetime) => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, %remote, "plain connection ended");
            }
            drop((slot, source));
        });
    }
    drop(end_with_this);
    tasks.close();
    tasks.wait().await;
}

/// Waits until the connection has to be cut off: by its phase, or because all end and nothing is under way.
async fn cut_off(pace: &Pace, lifetime: Option<Duration>) {
    let over = async {
        match lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = pace.silence(&RequestsOnly, || false) => {}
        () = async {
            pace.ends().await;
            pace.quiet(&RequestsOnly).await;
        } => {}
    }
}

/// Nothing beside the requests.
#[derive(Clone, Copy, Debug)]
struct RequestsOnly;

impl Movement for RequestsOnly {
    fn count(&self) -> u64 {
        0
    }

    fn counts_requests(&self) -> bool {
        true
    }
}

/// Connections by where they come from.
#[derive(Clone, Debug, Default)]
struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection of a source, as long as it lives.
#[derive(Debug)]
struct OfSource {
    sources: Sources,
    source: IpAddr,
}

impl Sources {
    /// Counts a connection; `None` where there are `most` already.
    fn enter(&self, from: IpAddr, most: usize) -> Option<OfSource> {
        let source = match from.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            v4 => v4,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= most.max(1) {
            return None;
        }
        *count = count.saturating_add(1);
        Some(OfSource { sources: self.clone(), source })
    }
}

impl Drop for OfSource {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_connections_by_address_or_network() {
        let sources = Sources::default();
        let enter = |ip: &str| sources.enter(ip.parse().unwrap(), 2);
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        let (one, other) = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(one.is_some() && other.is_some() && enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        drop((second, one, other));
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
