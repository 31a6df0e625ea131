//! Other HTTP servers behind a site.
//!
//! Requests are rebuilt, never passed through: method, path, checked fields, body as a stream. `fields` says
//! which fields pass and which are ours, `pool` keeps connections, `upgrade` is WebSocket.

mod body;
mod fields;
mod idle;
mod pool;
mod upgrade;

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use endpoint_core::http::{RequestPermit, Requester};
use http::{Method, StatusCode, Uri, header};
use http_body::Body as _;
use ipnet::IpNet;
use tokio::time::{Instant, error::Elapsed, timeout};

use self::{
    body::{Trimmed, Upload},
    pool::{Fault, Pool},
};
use super::{Request, Response, host, page::Refusal, rule::Slot};
use crate::{
    config::{WebLimits, web::Upstream},
    error::{CliError, Result},
};

/// Time for an upstream to begin its answer, where the route sets none.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// How much longer than a route's own limit, so that the answer says whose limit it was.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of a body that have to pass in that time for it to begin anew: a thousand a second.
const LEAST_BYTES: usize = 60_000;
/// Failures of upstreams are told to the operator at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The servers behind a site, in turn.
#[derive(Debug)]
pub(super) struct Proxy {
    pools: Vec<Pool>,
    next: AtomicUsize,
    /// What `via` calls this start of the program.
    pseudonym: String,
    /// When a failure was last told to the operator.
    told: Mutex<Option<Instant>>,
}

/// What a rule says of requests that go to an upstream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'r> {
    /// Addresses whose forwarded fields are believed.
    pub(super) trusted: &'r [IpNet],
    /// Time for an answer to begin, which the rule itself keeps.
    pub(super) timeout: Option<Duration>,
    /// Times of silence.
    pub(super) limits: WebLimits,
}

impl Proxy {
    /// Checks that no server is this program itself; `own` are the addresses it will listen on.
    ///
    /// # Errors
    /// A server that is one of ours. Exit code 2.
    pub(super) fn prepare(
        upstreams: &[Upstream],
        own: &[SocketAddr],
        limits: &WebLimits,
    ) -> Result<Self> {
        for upstream in upstreams {
            let Upstream::Tcp { authority, .. } = upstream else { continue };
            // A name that cannot be looked up now may be later; a loop is then told by 502.
            let addresses = authority.to_socket_addrs().into_iter().flatten();
            if let Some(address) = addresses.into_iter().find(|address| is_ours(*address, own)) {
                let message =
                    format!("the upstream {authority} is this endpoint itself ({address})");
                return Err(CliError::usage("proxy-loop", message).hint(
                    "name the server that answers: endpoint serve --proxy http://127.0.0.1:3000",
                ));
            }
        }
        let send_idle = limits.upstream_send_idle;
        let pool = |upstream: &Upstream| Pool::new(upstream.clone(), send_idle);
        let pools = upstreams.iter().map(pool).collect();
        let pseudonym = format!("endpoint-{:08x}", RandomState::new().hash_one(0) & 0xffff_ffff);
        Ok(Self { pools, next: AtomicUsize::new(0), pseudonym, told: Mutex::default() })
    }

    /// Answers by an upstream.
    pub(super) async fn answer(&self, mut request: Request, terms: Terms<'_>) -> Response {
        let id = request.headers().get(super::REQUEST_ID).cloned();
        let id = id.as_ref().and_then(|id| id.to_str().ok());
        let Some(requester) = request.extensions().get::<Requester>().cloned() else {
            return Refusal::status(StatusCode::INTERNAL_SERVER_ERROR).into();
        };
        let permit = request.extensions().get::<RequestPermit>().cloned();
        let slot = request.extensions_mut().remove::<Slot>();
        if fields::goes_round(request.headers(), &self.pseudonym) {
            let sentence = "the request goes round: an upstream of this site leads back here";
            return Refusal::new(StatusCode::LOOP_DETECTED, sentence).into();
        }
        let authority = match host::host(&request) {
            Ok(_) => host::authority(&request),
            Err(refusal) => return refusal.into(),
        };
        let tunnel = upgrade::wanted(&mut request);
        body::settle(&mut request).await;
        let (permit_now, host) = (permit.as_ref(), authority.as_ref());
        let (trusted, own) = (terms.trusted, self.pseudonym.as_str());
        let upload = fields::forward(&mut request, &requester, permit_now, trusted, host, own);
        if let Some(tunnel) = &tunnel {
            tunnel.ask(request.headers_mut());
        }
        let patience = terms.timeout.map_or(HEAD_DEADLINE, |limit| limit.saturating_add(GRACE));
        let answered = self.send(request, patience, &upload).await;
        let mut response = match answered {
            Ok(response) => response,
            Err(fault) if upload.is_broken() => {
                tracing::debug!(%fault, id, "the request's body failed");
                let sentence = "the body of the request was malformed or did not come";
                return Refusal::new(StatusCode::BAD_REQUEST, sentence).into();
            }
            Err(fault) => {
                self.tell(&fault, id);
                return fault.refusal().into();
            }
        };
        match tunnel {
            Some(tunnel)
                if response.status() == StatusCode::SWITCHING_PROTOCOLS
                    && upgrade::agreed(&response) =>
            {
                tunnel.connect(response, permit, slot, terms.limits.tunnel_idle)
            }
            _ if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Refusal::new(StatusCode::BAD_GATEWAY, "the upstream changed to another protocol")
                    .into()
            }
            _ => {
                fields::strip(response.headers_mut());
                let idle = terms.limits.upstream_idle;
                response.map(|body| Body::new(Trimmed::answer(body, idle)))
            }
        }
    }

    /// Tells the operator of a failure, not more often than one can read: anybody may ask.
    fn tell(&self, fault: &Fault, id: Option<&str>) {
        let names: Vec<String> = self.pools.iter().map(Pool::name).collect();
        let upstreams = names.join(" ");
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(%fault, upstreams, id, "upstream failed");
        } else {
            tracing::debug!(%fault, upstreams, id, "upstream failed");
        }
    }

    /// Sends a request; once more on a new connection if the first was dead and nothing can happen twice:
    /// none of it was sent, or it may be repeated.
    async fn send(
        &self,
        request: Request,
        patience: Duration,
        upload: &Upload,
    ) -> std::result::Result<Response, Fault> {
        let repeatable = is_idempotent(request.method()) && request.body().is_end_stream();
        let again = repeatable.then(|| {
            let mut again = Request::new(Body::empty());
            *again.method_mut() = request.method().clone();
            *again.uri_mut() = request.uri().clone();
            *again.headers_mut() = request.headers().clone();
            again
        });
        let count = self.pools.len().max(1);
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (0..count).map(|turn| (first.wrapping_add(turn)) % count);
        let mut fault = Fault::Unreachable("there is no upstream".into());
        let mut request = Some(request);
        for turn in turns {
            let Some(pool) = self.pools.get(turn) else { continue };
            let connection = match pool.connect().await {
                Ok(connection) => connection,
                Err(error) => {
                    fault = error;
                    continue;
                }
            };
            let Some(request) = request.take() else { break };
            let reused = connection.reused;
            match answered(connection.send(request), patience, upload).await {
                Ok(Ok(response)) => return Ok(response),
                // The server had closed the connection while it lay idle.
                Ok(Err(error)) if reused => {
                    let again = match (error, again) {
                        (Fault::Unsent(request, _), _) => *request,
                        (error, Some(again)) if error.is_dead() => again,
                        (error, _) => return Err(error),
                    };
                    let fresh = pool.fresh().await?;
                    return answered(fresh.send(again), patience, upload)
                        .await
                        .unwrap_or(Err(Fault::Timeout));
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Fault::Timeout),
            }
        }
        Err(fault)
    }
}

/// Waits for an answer for so long, and on while the request's body gets on.
async fn answered<T>(
    answer: impl Future<Output = T>,
    patience: Duration,
    upload: &Upload,
) -> std::result::Result<T, Elapsed> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let sent = upload.bytes();
        match timeout(patience, &mut answer).await {
            Err(_) if upload.bytes().saturating_sub(sent) >= LEAST_BYTES => {}
            done => return done,
        }
    }
}

fn is_ours(address: SocketAddr, own: &[SocketAddr]) -> bool {
    let same = |ours: IpAddr, theirs: IpAddr| {
        let (ours, theirs) = (ours.to_canonical(), theirs.to_canonical());
        ours == theirs || theirs.is_unspecified() || (ours.is_unspecified() && theirs.is_loopback())
    };
    own.iter().any(|ours| {
        ours.port() != 0 && ours.port() == address.port() && same(ours.ip(), address.ip())
    })
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// The path and query of a request, as an upstream is asked.
fn target(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from)
}

/// The length that a body declares, if it does.
fn declares_body(request: &Request) -> bool {
    request.headers().contains_key(header::CONTENT_LENGTH) || !request.body().is_end_stream()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_addresses() {
        let own: Vec<SocketAddr> =
            ["127.0.0.1:4433", "[::]:443", "127.0.0.1:0"].map(|a| a.parse().unwrap()).to_vec();
        for (address, ours) in [
            ("127.0.0.1:4433", true),
            ("0.0.0.0:4433", true),
            ("[::ffff:127.0.0.1]:4433", true),
            ("127.0.0.1:443", true),
            ("[::1]:443", true),
            ("127.0.0.1:3000", false),
            ("192.0.2.1:4433", false),
        ] {
            assert_eq!(is_ours(address.parse().unwrap(), &own), ours, "{address}");
        }
    }
}
