//! Who kept an address token (NEW_TOKEN, RFC 9000 §8.1.3) is no worse off than who has none.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use endpoint_tests::{
    crowd::{Crowd, Way},
    node::{PUBLIC, Server},
    until,
    wire::{self, Client},
};

use crate::{
    ALONE,
    honest::PATIENCE,
    strangers::{counted, limits, one_site},
};

/// Tokens of NEW_TOKEN frames that a client has kept.
#[derive(Debug, Default)]
struct Kept {
    tokens: std::sync::Mutex<Vec<bytes::Bytes>>,
    /// How many were taken out to be shown to the server.
    taken: AtomicUsize,
}

impl quinn_proto::TokenStore for Kept {
    fn insert(&self, _: &str, token: bytes::Bytes) {
        self.tokens.lock().expect("a lock").push(token);
    }

    fn take(&self, _: &str) -> Option<bytes::Bytes> {
        let token = self.tokens.lock().expect("a lock").pop();
        self.taken.fetch_add(usize::from(token.is_some()), Ordering::SeqCst);
        token
    }
}

/// A client that keeps its tokens.
struct Visitor {
    server: SocketAddr,
    kept: Arc<Kept>,
    config: quinn::ClientConfig,
    socket: quinn::Endpoint,
}

impl Visitor {
    fn of(server: SocketAddr) -> Self {
        let kept = Arc::new(Kept::default());
        let mut config = Client::new(&[PUBLIC]).wants_x509().quic();
        config.token_store(Arc::clone(&kept) as _);
        Self { server, kept, config, socket: wire::socket_at("127.0.9.200") }
    }

    fn tokens(&self) -> usize {
        self.kept.tokens.lock().expect("a lock").len()
    }

    /// How many were shown so far.
    fn shown(&self) -> usize {
        self.kept.taken.load(Ordering::SeqCst)
    }

    /// One visit, after which there are more tokens.
    async fn visit(&self) -> Result<(), String> {
        let had = self.tokens();
        let dialled = self.socket.connect_with(self.config.clone(), self.server, "localhost");
        let connection =
            tokio::time::timeout(PATIENCE, dialled.map_err(|error| error.to_string())?)
                .await
                .map_err(|_| "no answer".to_owned())?
                .map_err(|error| error.to_string())?;
        until("tokens have come", || self.tokens() > had.saturating_sub(1)).await;
        connection.close(0_u32.into(), b"");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_a_token_is_no_worse_off_than_a_newcomer_and_no_better_once_room_is_scarce() {
    let _alone = ALONE.lock().await;
    let server = Server::start_with("", limits()).await;
    let visitor = Visitor::of(server.addr());
    visitor.visit().await.unwrap();

    // While there is room the token saves the Retry.
    let before = (visitor.shown(), server.endpoint.counters().retries);
    visitor.visit().await.unwrap();
    assert_eq!((before.0, visitor.shown()), (0, 1), "the token was shown");
    assert_eq!(server.endpoint.counters().retries, before.1, "no Retry");

    let _crowd = Crowd::gather(
        server.addr(),
        one_site(),
        &[Way::FirstFlight, Way::ProvesOnly, Way::HalfHello],
        100,
    );
    counted(&server, "the budget is full", |counters| counters.retries > 50).await;
    for n in 0..10 {
        let (had, began) = (visitor.tokens(), Instant::now());
        visitor.visit().await.unwrap_or_else(|why| panic!("visit {n}, {had} tokens: {why}"));
        assert_eq!(visitor.shown(), n + 2, "a token was shown");
        println!("visit {n} with {had} tokens took {:?}", began.elapsed());
    }
}

/// A server with the mistake: whoever shows an address token is a proven arrival, and there is no more room for
/// those; whoever shows none is asked for a Retry, and has room of its own.
fn weak() -> quinn::Endpoint {
    let mut server = wire::weak_server(&[PUBLIC]);
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(2).log(Arc::new(quinn::BloomTokenLog::default()));
    server.validation_token_config(tokens);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = quinn::EndpointConfig::default();
    quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_token_stands_for_proof_its_holder_is_kept_out_and_a_newcomer_is_not() {
    let _alone = ALONE.lock().await;
    let endpoint = weak();
    let server = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            if !incoming.remote_address_validated() {
                incoming.retry().expect("nobody has proven anything");
            } else if incoming.may_retry() {
                incoming.refuse();
            } else {
                tokio::spawn(async move {
                    let connection = incoming.await?;
                    Err::<(), _>(connection.closed().await)
                });
            }
        }
    });
    let visitor = Visitor::of(server);
    visitor.visit().await.unwrap();
    visitor.visit().await.unwrap_err();
    assert_eq!(visitor.shown(), 1);
    Visitor::of(server).visit().await.unwrap();
}
