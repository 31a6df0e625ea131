//! Which connections over TCP give way when their peer was cut off.

use std::time::{Duration, Instant};

use endpoint_core::{CloseCode, LinkError, endpoint::DialOptions};
use endpoint_tests::{
    node::{PEER, Server, alpn, dialler, echo, identity},
    until,
    wire::{Client, Shown},
    within,
};
use socket2::{SockFilter, SockRef};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Connections of a key unless told otherwise.
const MOST: usize = 8;

/// A peer that has spoken, and listens.
async fn spoken(client: &Client, server: &Server) -> TlsStream<TcpStream> {
    let mut stream = client.dial_tcp("127.0.0.1", server.addr(), "localhost", b"").await.unwrap();
    stream.write_all(b"word").await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    stream
}

/// From now on its kernel hears nothing, and so says nothing.
fn cut_off(stream: &TlsStream<TcpStream>) {
    // BPF: return 0, which drops the packet.
    let drop_all = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(stream.get_ref().0).attach_filter(&[drop_all]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_were_cut_off_give_way_over_tcp_as_well() {
    let server = Server::start(&format!("{}\n", identity(2).fingerprint())).await;
    let client = Client::new(&[PEER]).showing(Shown::raw(2));
    let mut dead = Vec::new();
    for _ in 0..MOST - 1 {
        dead.push(spoken(&client, &server).await);
    }
    let mut alive = spoken(&client, &server).await;
    until("they are served", || server.endpoint.connections().len() == MOST).await;
    dead.iter().for_each(cut_off);

    let began = Instant::now();
    let friend = dialler(2).await;
    let (target, options) = (server.target(), DialOptions::default().tcp());
    let back = friend.connect_with(&target, alpn(PEER), options).await.unwrap();
    within(10, "an echo", echo(&back, b"back")).await.unwrap();
    // A word is asked for by the kernel after a second of silence, and given another.
    let most = Duration::from_secs(if endpoint_tests::long() { 3 } else { 9 });
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
    alive.write_all(b"word").await.unwrap();
    within(5, "who answered lives", alive.read_exact(&mut [0; 4])).await.unwrap();
    drop(dead);
}

/// The twin: their kernels answer, so for all that anybody knows they live, and nobody gives way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_whose_kernels_answer_keep_their_places() {
    let server = Server::start(&format!("{}\n", identity(2).fingerprint())).await;
    let client = Client::new(&[PEER]).showing(Shown::raw(2));
    let mut silent = Vec::new();
    for _ in 0..MOST {
        silent.push(spoken(&client, &server).await);
    }
    until("they are served", || server.endpoint.connections().len() == MOST).await;
    let friend = dialler(2).await;
    let (target, options) = (server.target(), DialOptions::default().tcp());
    let over = friend.connect_with(&target, alpn(PEER), options).await.unwrap();
    let told = within(10, "the newcomer is refused", echo(&over, b"back")).await;
    let refused = format!("{:?}", told.unwrap_err());
    assert!(refused.contains("NotAuthorized"), "{refused}");
    let ended = over.closed().await;
    assert!(
        matches!(ended, LinkError::Closed(CloseCode::NotAuthorized | CloseCode::Done)),
        "{ended:?}"
    );
    for stream in &mut silent {
        stream.write_all(b"word").await.unwrap();
        within(5, "an echo", stream.read_exact(&mut [0; 4])).await.unwrap();
    }
}
