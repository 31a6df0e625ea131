//! Clients that ask for much and take nothing of it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use endpoint_core::{
    Limits,
    http::{PlainOptions, serve_plain},
};
use endpoint_tests::{until, wire::Client, within};
use http::Version;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    raw::{Raw, get as gets, headers},
    yard::{Honest, Yard},
};

const REQUEST_CANCELLED: u32 = 0x10c;
const LARGE_BYTES: usize = 16 << 20;

fn limits(idle: Duration) -> Limits {
    Limits::default().request_answer_idle(idle)
}

fn request(path: &str) -> Vec<u8> {
    headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_is_given_up_alone() {
    let yard = Yard::start(limits(Duration::from_millis(400))).await;
    let honest = Honest::start(Version::HTTP_3, yard.addr()).await;
    let raw = Raw::connect(yard.addr()).await;
    let _control = raw.uni(&[0x00, 0x04, 0x00]).await;
    // A handler that has nothing to say yet keeps nobody waiting.
    let (mut hangs, _hangs) = raw.request(&request("/hangs")).await;
    hangs.finish().unwrap();
    until("the handler runs", || yard.hanging.now() == 1).await;
    for _ in 0..3 {
        let (mut send, mut recv) = raw.request(&request("/large")).await;
        send.finish().unwrap();
        let code = within(10, "the reset", recv.received_reset()).await.unwrap();
        assert_eq!(code, Some(REQUEST_CANCELLED.into()));
    }
    let (mut send, mut recv) = raw.request(&gets()).await;
    send.finish().unwrap();
    let answer = within(10, "an answer", recv.read_to_end(4096)).await.unwrap();
    assert!(answer.ends_with(b"ok"));
    assert_eq!(yard.hanging.now(), 1, "silence of the handler is no fault of the client");
    honest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_all_of_its_answer() {
    let idle = Duration::from_secs(1);
    let yard = Yard::start(limits(idle)).await;
    tokio::join!(slow_over_http3(&yard, idle), slow_over_http1(&yard, idle));
}

async fn slow_over_http1(yard: &Yard, idle: Duration) {
    let client = Client::new(&[b"http/1.1"]).wants_x509();
    let mut stream = client.dial_tcp("127.0.0.1", yard.addr(), "localhost", b"").await.unwrap();
    let request = b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let (began, mut taken) = (Instant::now(), 0);
    let mut some = vec![0; 256 << 10];
    loop {
        let read = within(10, "more", stream.read(&mut some)).await.expect("no reset");
        if read == 0 {
            break;
        }
        taken += read;
        if began.elapsed() < 2 * idle {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    assert!(taken > LARGE_BYTES && began.elapsed() > 2 * idle, "{taken} bytes");
}

async fn slow_over_http3(yard: &Yard, idle: Duration) {
    let raw = Raw::connect(yard.addr()).await;
    let (mut send, mut recv) = raw.request(&request("/large")).await;
    send.finish().unwrap();
    let (began, mut taken) = (Instant::now(), 0);
    let mut some = vec![0; 256 << 10];
    while let Some(read) = within(10, "more", recv.read(&mut some)).await.expect("no reset") {
        taken += read;
        if began.elapsed() < 2 * idle {
            // This is the slowness itself.
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    assert!(taken > LARGE_BYTES && began.elapsed() > 2 * idle, "{taken} bytes");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_which_nobody_takes_anything_ends() {
    let yard = Yard::start(limits(Duration::from_millis(400))).await;
    let client = Client::new(&[b"http/1.1"]).wants_x509();
    let mut stream = client.dial_tcp("127.0.0.1", yard.addr(), "localhost", b"").await.unwrap();
    let request = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    until("it is served", || yard.endpoint.counters().permitted == 1).await;
    until("it ends", || yard.endpoint.connections().is_empty()).await;
    assert_eq!(yard.endpoint.counters().handler_errors, 0);
    let mut taken = Vec::new();
    let _ = within(10, "the rest", stream.read_to_end(&mut taken)).await;
    assert!(taken.len() < LARGE_BYTES, "{}", taken.len());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_plain_http() {
    let held = Arc::new(());
    let given = Arc::clone(&held);
    let large = move || {
        let given = Arc::clone(&given);
        let pieces = futures_util::stream::unfold(given, |given| async {
            Some((Ok::<_, Infallible>(Bytes::from_static(&[0; 64 << 10])), given))
        });
        async { Body::from_stream(pieces) }
    };
    let router = Router::new().route("/", get(large));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let limits = limits(Duration::from_millis(400));
    let serving =
        serve_plain(listener, router, &PlainOptions::default(), &limits, std::future::pending())
            .unwrap();
    let serving = tokio::spawn(serving);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let idle = Arc::strong_count(&held);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_ne!(within(10, "a byte", stream.read_u8()).await.unwrap(), 0);
    assert!(Arc::strong_count(&held) > idle, "an answer without end");
    until("the answer is given up", || Arc::strong_count(&held) == idle).await;
    serving.abort();
}
