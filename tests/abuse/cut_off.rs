//! HTTP over TCP whose client is gone behind a proxy that is not: its key is served all the same.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use endpoint_core::{Access, Endpoint, TlsIdentity, trust::AuthorizedPeers};
use endpoint_tests::{
    http::{Connection, connect, get as asks},
    node::identity,
    swallow::Swallow,
    until,
    wire::{Client, Shown},
    within,
};
use http::Version;
use tokio::sync::Semaphore;

/// Connections of a key unless told otherwise.
const MOST: usize = 8;

/// Answers `/`; `/hang` never.
async fn server() -> (Endpoint, Arc<Semaphore>) {
    let hangs = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&hangs);
    let hang = move || async move {
        at.add_permits(1);
        std::future::pending::<&str>().await
    };
    let router = Router::new().route("/", get(|| async { "here" })).route("/hang", get(hang));
    let lines = format!("{}\n", identity(2).fingerprint());
    let endpoint = Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", TlsIdentity::SelfSigned)
        .authorized(AuthorizedPeers::from_text(&lines).unwrap())
        .http(Access::default(), router)
        .bind()
        .await
        .unwrap();
    (endpoint, hangs)
}

/// As many connections of one key as it may have, through `relay`, each of which has asked once.
async fn fill(relay: &Swallow, version: Version, client: &Client) -> Vec<Connection> {
    let mut all = Vec::new();
    for _ in 0..MOST {
        let mut connection = connect(version, relay.addr(), "localhost", client).await.unwrap();
        assert_eq!(connection.send(asks("localhost", "/")).await.unwrap().text(), "here");
        all.push(connection);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_connections_were_swallowed_is_served_again() {
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let (endpoint, _) = server().await;
        let address = endpoint.local_addrs()[0];
        let relay = Swallow::before(address).await;
        let client = Client::new(&[]).showing(Shown::raw(2));
        let gone = fill(&relay, version, &client).await;
        relay.swallow();
        // Two that come back at once get a place each.
        let back = || async {
            let mut connection = connect(version, address, "localhost", &client).await.unwrap();
            let answer = within(10, "an answer", connection.send(asks("localhost", "/"))).await;
            answer.map(|answer| (answer.text(), connection))
        };
        let (one, other) = tokio::join!(back(), back());
        let ((one, _first), (other, _second)) = (one.unwrap(), other.unwrap());
        assert_eq!([one, other], ["here", "here"], "{version:?}");
        assert_eq!(endpoint.connections().len(), MOST);
        drop(gone);
    }
}

/// The twin: with a request under way a connection gives way to nobody, swallowed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_with_a_request_under_way_keep_their_places() {
    let (endpoint, hangs) = server().await;
    let relay = Swallow::before(endpoint.local_addrs()[0]).await;
    let client = Client::new(&[]).showing(Shown::raw(2));
    let mut busy = tokio::task::JoinSet::new();
    for mut connection in fill(&relay, Version::HTTP_2, &client).await {
        busy.spawn(async move { connection.send(asks("localhost", "/hang")).await.map(drop) });
    }
    until("all hang", || hangs.available_permits() == MOST).await;
    relay.swallow();
    let back = connect(Version::HTTP_2, endpoint.local_addrs()[0], "localhost", &client).await;
    let mut back = back.unwrap();
    let answer = within(10, "the newcomer is refused", back.send(asks("localhost", "/"))).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(endpoint.connections().len(), MOST);
    tokio::time::timeout(Duration::from_millis(10), busy.join_next()).await.unwrap_err();
}
