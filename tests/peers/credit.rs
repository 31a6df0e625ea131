//! How many streams a permitted peer may open.

use std::time::Duration;

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Connection, Endpoint, Limits, RecvStream, SendStream, Target,
    handler::Echo,
};
use endpoint_tests::node::identity;
use tokio::time::timeout;

const LIMIT: u32 = 70;

async fn dialled() -> (Endpoint, Endpoint, Connection) {
    let client = Endpoint::builder(identity(2)).bind().await.unwrap();
    let peers = AuthorizedPeers::from_text(&client.fingerprint().to_string()).unwrap();
    let server = Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .authorized(peers)
        .limits(Limits::default().streams_per_connection(LIMIT))
        .handle(Alpn::ECHO_1, Access::default(), Echo)
        .bind()
        .await
        .unwrap();
    let target = format!("peer://{}@{}", server.fingerprint().hex(), server.local_addrs()[0]);
    let target: Target = target.parse().unwrap();
    let connection = client.connect(&target, b"echo/1").await.unwrap();
    (server, client, connection)
}

/// Opens a stream and waits until the handler answers on it; it stays open.
async fn opened(connection: &Connection) -> (SendStream, RecvStream) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    recv.read_exact(&mut [0]).await.unwrap();
    (send, recv)
}

#[tokio::test]
async fn a_peer_that_uses_streams_may_open_as_many_as_the_limit_says_and_no_more() {
    let (_server, _client, connection) = dialled().await;
    let mut open = Vec::new();
    for n in 0..LIMIT {
        let stream = timeout(Duration::from_secs(10), opened(&connection)).await;
        open.push(stream.unwrap_or_else(|_| panic!("stream {n} of {LIMIT} is not let in")));
    }
    let above = timeout(Duration::from_millis(300), connection.open_bi()).await;
    assert!(above.is_err(), "one above the limit was let in");
    let (mut send, _recv) = open.pop().unwrap();
    send.finish().await.unwrap();
    drop((send, _recv));
    // quinn tells of freed streams in steps of an eighth of the limit.
    for _ in 0..LIMIT / 4 {
        let (mut send, mut recv) = open.pop().unwrap();
        send.finish().await.unwrap();
        assert!(recv.read_to_end(10).await.is_ok());
    }
    timeout(Duration::from_secs(10), opened(&connection)).await.expect("room again");
}
