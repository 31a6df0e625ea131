//! The thin path: two endpoints on loopback.

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, ConnectError, Endpoint, Identity, Target, handler::Echo,
};
use endpoint_tests::wire::{self, Client};

async fn server(peers: AuthorizedPeers) -> (Endpoint, String) {
    let endpoint = Endpoint::builder(Identity::from_seed(&[1; 32]))
        .listen("127.0.0.1:0".parse().unwrap())
        .authorized(peers)
        .handle(Alpn::ECHO_1, Access::default(), Echo)
        .handle(Alpn::new(b"open/1").unwrap(), Access::Public, Echo)
        .discover()
        .bind()
        .await
        .unwrap();
    let host = endpoint.local_addrs()[0].to_string();
    (endpoint, host)
}

#[tokio::test]
async fn an_unknown_peer_is_refused_and_a_public_handler_serves_it() {
    let (server, host) = server(AuthorizedPeers::nobody()).await;
    let client = Endpoint::builder(Identity::from_seed(&[2; 32])).bind().await.unwrap();
    let target: Target = format!("peer://{}@{host}", server.fingerprint().hex()).parse().unwrap();
    let refused = client.connect(&target, b"echo/1").await;
    assert!(matches!(refused, Err(ConnectError::NotAuthorized { .. })), "{refused:?}");
    let open = client.connect(&target, b"open/1").await.unwrap();
    let (mut send, mut recv) = open.open_bi().await.unwrap();
    send.write_all(b"hello").await.unwrap();
    send.finish().await.unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"hello");
    assert_eq!(server.connections().len(), 1);
}

#[tokio::test]
async fn discover_gives_no_key_an_unknown_and_an_authorised_one_the_same_bytes() {
    let known = Identity::from_seed(&[2; 32]);
    let peers = AuthorizedPeers::from_text(&known.fingerprint().to_string()).unwrap();
    let (server, host) = server(peers).await;
    let target: Target = format!("peer://{}@{host}", server.fingerprint().hex()).parse().unwrap();
    let mut answers = Vec::new();
    for identity in [known, Identity::from_seed(&[3; 32])] {
        let client = Endpoint::builder(identity).bind().await.unwrap();
        let link = client.connect(&target, Alpn::DISCOVER_1).await.unwrap();
        let (mut send, mut recv) = link.open_bi().await.unwrap();
        send.finish().await.unwrap();
        answers.push(recv.read_to_end(1024).await.unwrap());
    }
    let keyless = Client::new(&[b"discover/1"]);
    let socket = wire::socket();
    let link = keyless.dial(&socket, server.local_addrs()[0], "localhost").await.unwrap();
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    send.finish().unwrap();
    answers.push(recv.read_to_end(1024).await.unwrap());
    assert!(answers[0].starts_with(b"{") && answers[0].is_ascii());
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
