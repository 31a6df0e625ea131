//! A server whose handlers are counted, and an honest client that is served while others attack it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    routing::{any, get, post},
};
use endpoint_core::{Access, Endpoint, Limits, TlsIdentity, http::Answers};
use endpoint_tests::{
    http::{Connection, connect, get as asks},
    node::identity,
    wire::Client,
};
use http::Version;
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
};

/// Handlers that hang: how many do so now, did at most, and were called.
#[derive(Debug, Default)]
pub struct Hanging {
    now: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
}

impl Hanging {
    pub fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn hang(self: Arc<Self>) {
        struct Leaves(Arc<Hanging>);
        impl Drop for Leaves {
            fn drop(&mut self) {
                self.0.now.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _leaves = Leaves(self);
        std::future::pending::<()>().await;
    }
}

/// The server: `/` answers, `/hangs` never does, `/echo` takes bodies, `/large` answers 16 MiB,
/// `/pieces` 1 MiB bit by bit.
pub struct Yard {
    pub endpoint: Endpoint,
    pub answers: Answers,
    pub hanging: Arc<Hanging>,
}

impl Yard {
    pub async fn start(limits: Limits) -> Self {
        let hanging = Arc::new(Hanging::default());
        let hangs = {
            let hanging = Arc::clone(&hanging);
            move || Arc::clone(&hanging).hang()
        };
        let router = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/hangs", any(hangs))
            .route("/echo", post(|body: Bytes| async { body }))
            .route("/trailers", post(trailers))
            .route("/large", get(|| async { Body::from(vec![0_u8; 16 << 20]) }))
            .route("/pieces", get(pieces));
        let answers = Answers::default();
        let endpoint = Endpoint::builder(identity(1))
            .listen("127.0.0.1:0".parse().unwrap())
            .server_name("localhost", TlsIdentity::SelfSigned)
            .limits(limits)
            .http_counted_in(Access::Public, router, &answers)
            .bind()
            .await
            .unwrap();
        Self { endpoint, answers, hanging }
    }

    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addrs()[0]
    }
}

/// 1 MiB in pieces of 8 KiB, as a file comes.
async fn pieces() -> Body {
    let piece = || Ok::<_, Infallible>(Bytes::from(vec![0_u8; 8 << 10]));
    Body::from_stream(futures_util::stream::iter((0..128).map(move |_| piece())))
}

/// Reads the whole body and says whether trailers came.
async fn trailers(request: Request) -> Result<String, String> {
    let body = request.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(format!("{} trailers", body.trailers().map_or(0, http::HeaderMap::len)))
}

/// A browser on a connection of its own that asks again and again.
pub struct Honest {
    stop: oneshot::Sender<()>,
    asking: JoinHandle<Served>,
    ready: Arc<AtomicUsize>,
}

/// What it was given; none of its requests failed.
#[derive(Debug)]
pub struct Served {
    pub answers: usize,
    pub slowest: Duration,
}

impl Honest {
    pub async fn start(version: Version, server: SocketAddr) -> Self {
        let client = Client::new(&[]).wants_x509();
        let mut connection = connect(version, server, "localhost", &client).await.unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let ready = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ready);
        let asking = tokio::spawn(async move {
            let mut served = Served { answers: 0, slowest: Duration::ZERO };
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let began = Instant::now();
                ask(&mut connection).await;
                served.answers += 1;
                served.slowest = served.slowest.max(began.elapsed());
                count.fetch_add(1, Ordering::SeqCst);
                // A person, not another flood.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            served
        });
        let honest = Self { stop, asking, ready };
        honest.more(1).await;
        honest
    }

    /// Waits until it was served so many times more.
    pub async fn more(&self, times: usize) {
        let enough = self.ready.load(Ordering::SeqCst) + times;
        endpoint_tests::until("the honest client is served", || {
            self.asking.is_finished() || self.ready.load(Ordering::SeqCst) >= enough
        })
        .await;
    }

    /// What it was given.
    ///
    /// # Panics
    /// If one of its requests failed.
    pub async fn stop(self) -> Served {
        self.more(2).await;
        let _ = self.stop.send(());
        self.asking.await.expect("the honest client is always served")
    }
}

async fn ask(connection: &mut Connection) {
    let answer = connection.send(asks("localhost", "/")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
    yield_now().await;
}
