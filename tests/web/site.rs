//! A server of these tests: an axum router behind `Builder::http`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    routing::{get, post},
};
use endpoint_core::{
    Access, AuthorizedPeers, Clock, Endpoint, Limits, Scope, TlsIdentity,
    http::{Authorize, Requester},
};
use endpoint_tests::node::{identity, noon};
use http_body_util::{BodyExt, StreamBody};

/// The server.
pub struct Site {
    pub endpoint: Endpoint,
    pub peers: AuthorizedPeers,
    pub clock: Clock,
    /// Calls of the guarded routes' handlers.
    pub calls: Arc<AtomicUsize>,
    /// Calls of `/waits`, which never answers.
    waits: Arc<AtomicUsize>,
}

impl Site {
    pub async fn start(peers: &str) -> Self {
        Self::start_with(peers, Limits::default()).await
    }

    pub async fn start_with(peers: &str, limits: Limits) -> Self {
        let peers = AuthorizedPeers::from_text(peers).unwrap();
        let clock = Clock::manual(noon());
        let calls = Arc::new(AtomicUsize::new(0));
        let waits = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waits);
        let wait = move || {
            waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>()
        };
        let endpoint = Endpoint::builder(identity(1))
            .listen("127.0.0.1:0".parse().unwrap())
            .server_name("localhost", TlsIdentity::SelfSigned)
            .authorized(peers.clone())
            .clock(clock.clone())
            .limits(limits)
            .http(Access::Public, router(&calls).route("/waits", get(wait)))
            .bind()
            .await
            .unwrap();
        Self { endpoint, peers, clock, calls, waits }
    }

    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addrs()[0]
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls of `/waits`.
    pub fn waits(&self) -> usize {
        self.waits.load(Ordering::SeqCst)
    }

    pub async fn trust(&self, lines: &str) -> usize {
        self.peers.replace(lines, self.clock.now()).unwrap();
        self.endpoint.reload().await.closed
    }
}

fn router(calls: &Arc<AtomicUsize>) -> Router {
    let guarded = |access: Access| {
        let calls = Arc::clone(calls);
        let answer = move || {
            calls.fetch_add(1, Ordering::SeqCst);
            async { "secret" }
        };
        Router::new()
            .route("/", get(answer))
            .route("/events", get(events))
            .layer(Authorize::new(access))
    };
    Router::new()
        .route("/", get(|| async { "Hello, World!" }))
        .route("/who", get(who))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/length", post(length))
        .route("/ignores-body", post(|_: Request| async { "early" }))
        .route("/panics", get(panics))
        .route("/trailers", get(trailers))
        .route("/fails", get(fails))
        .route("/hangs", get(std::future::pending::<()>))
        .nest("/public", guarded(Access::Public))
        .nest("/enroll", guarded(Access::Enroll))
        .nest("/peer", guarded(Access::Peer(Scope::ANY)))
        .nest("/scoped", guarded(Access::Peer(Scope::new("ops").unwrap())))
        .nest("/loopback", guarded(Access::Loopback))
}

async fn who(Extension(requester): Extension<Requester>) -> String {
    requester.key().fingerprint().map_or_else(|| "nobody".into(), |key| key.to_string())
}

async fn length(request: Request) -> String {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    length.to_string()
}

#[allow(clippy::unused_async, reason = "a handler is an async fn")]
async fn panics() -> &'static str {
    panic!("on purpose")
}

async fn trailers() -> Body {
    let mut fields = http::HeaderMap::new();
    fields.insert("x-sum", "42".parse().unwrap());
    let frames = [
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"body"))),
        Ok(http_body::Frame::trailers(fields)),
    ];
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

/// An answer that breaks off in the middle.
async fn fails() -> Body {
    let frames = futures_util::stream::unfold(0, |n| async move {
        match n {
            0 => Some((Ok(Bytes::from_static(b"half")), 1)),
            1 => {
                tokio::task::yield_now().await;
                Some((Err("broken on purpose"), 2))
            }
            _ => None,
        }
    });
    Body::from_stream(frames)
}

/// An answer without end: one event, then silence.
async fn events() -> Body {
    let first =
        futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"data: 1\n\n"))]);
    let rest = futures_util::stream::pending();
    Body::from_stream(futures_util::StreamExt::chain(first, rest))
}
