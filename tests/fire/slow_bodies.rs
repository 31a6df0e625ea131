//! Request bodies that stall or trickle: the request ends with 408, its connection goes on.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, body::Bytes, routing::post};
use endpoint_core::{Access, Endpoint, Limits, TlsIdentity};
use endpoint_tests::{
    node::identity,
    wire::{self, Client},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{raw, raw2};

const PAUSE: Duration = Duration::from_millis(50);

/// A server that reads whole bodies.
async fn server(limits: Limits) -> Endpoint {
    let echo = |body: Bytes| async move { body };
    Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", TlsIdentity::SelfSigned)
        .limits(limits)
        .http(Access::Public, Router::new().route("/", post(echo)))
        .bind()
        .await
        .unwrap()
}

fn trickling() -> Limits {
    // 20 bytes a second come.
    Limits::default().request_body_grace(Duration::from_millis(500)).request_body_rate(500)
}

fn stalling() -> Limits {
    Limits::default().request_body_idle(Duration::from_millis(500))
}

async fn http1(server: SocketAddr) -> TlsStream<TcpStream> {
    let client = Client::new(&[b"http/1.1"]).wants_x509();
    client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap()
}

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n";

/// The status over HTTP/1.1 when a body of 60 bytes trickles, or stalls after one.
async fn status1(server: SocketAddr, trickles: bool) -> String {
    let (mut read, mut write) = tokio::io::split(http1(server).await);
    write.write_all(HEAD).await.unwrap();
    let writing = tokio::spawn(async move {
        for _ in 0..60 {
            if write.write_all(b"x").await.is_err() || write.flush().await.is_err() {
                break;
            }
            if !trickles {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // Open until the answer is there.
        std::future::pending::<()>().await;
    });
    let mut status = [0; 12];
    within(20, "a status", read.read_exact(&mut status)).await.unwrap();
    writing.abort();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

/// The same over HTTP/2; the connection answers another request afterwards.
async fn status2(server: SocketAddr, trickles: bool) -> String {
    let mut raw = raw2::Raw2::connect(server).await;
    let head = raw2::frame(raw2::HEADERS, raw2::END_HEADERS, 1, &raw2::request("POST", "/"));
    raw.send(&head).await.unwrap();
    let mut sent = 0;
    let first = loop {
        let data = raw2::frame(raw2::DATA, if sent == 59 { raw2::END_STREAM } else { 0 }, 1, b"x");
        if sent < 60 && (trickles || sent == 0) {
            raw.send(&data).await.unwrap();
            sent += 1;
        }
        if let Ok(frame) = tokio::time::timeout(PAUSE, raw.next()).await {
            let frame = frame.expect("the connection goes on");
            if frame.stream == 1 && frame.kind == raw2::HEADERS {
                break frame;
            }
        }
    };
    let flags = raw2::END_HEADERS;
    let next = raw2::frame(raw2::HEADERS, flags, 3, &raw2::request("POST", "/"));
    let end = raw2::frame(raw2::DATA, raw2::END_STREAM, 3, b"more");
    raw.send(&[next, end].concat()).await.unwrap();
    let answered = async {
        loop {
            let frame = raw.next().await.expect("the connection goes on");
            if frame.stream == 3 && frame.kind == raw2::HEADERS {
                return;
            }
        }
    };
    within(20, "another answer", answered).await;
    // 200 stands in HPACK's static table; 408 is Huffman-coded after the name of index 8 (RFC 7541).
    match first.payload.as_slice() {
        [0x88, ..] => "200".to_owned(),
        [0x48, 0x83, 0x68, 0x0f, 0x7f, ..] => "408".to_owned(),
        payload => format!("{payload:x?}"),
    }
}

/// The same over HTTP/3.
async fn status3(server: SocketAddr, trickles: bool) -> String {
    let socket = wire::socket();
    let client = Client::new(&[b"h3"]).wants_x509();
    let quinn = client.dial(&socket, server, "localhost").await.unwrap();
    let (driver, mut requests) =
        h3::client::new(h3_quinn::Connection::new(quinn.clone())).await.unwrap();
    let driving = tokio::spawn(async move {
        let mut driver = driver;
        std::future::poll_fn(|cx| driver.poll_close(cx)).await
    });
    let mut ask = async |slow: bool| {
        let request = http::Request::post("https://localhost/").body(()).unwrap();
        let stream = requests.send_request(request).await.unwrap();
        let (mut send, mut recv) = stream.split();
        let writing = tokio::spawn(async move {
            for _ in 0..60 {
                if send.send_data(bytes::Bytes::from_static(b"x")).await.is_err() {
                    return;
                }
                if slow && !trickles {
                    std::future::pending::<()>().await;
                }
                if slow {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            let _ = send.finish().await;
        });
        let answer = within(20, "a status", recv.recv_response()).await.unwrap();
        writing.abort();
        answer.status().as_str().to_owned()
    };
    let status = ask(true).await;
    assert_eq!(ask(false).await, "200", "the connection goes on");
    drop(driving);
    status
}

async fn statuses(limits: Limits, trickles: bool) -> [String; 3] {
    let endpoint = server(limits).await;
    let server = endpoint.local_addrs()[0];
    let (one, two, three) = tokio::join!(
        status1(server, trickles),
        status2(server, trickles),
        status3(server, trickles)
    );
    [one, two, three]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_or_stalls_is_answered_with_408() {
    let (trickled, stalled) =
        tokio::join!(statuses(trickling(), true), statuses(stalling(), false));
    assert_eq!(trickled, ["408"; 3]);
    assert_eq!(stalled, ["408"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_least_rate_a_trickle_is_served() {
    assert_eq!(statuses(trickling().request_body_rate(0), true).await, ["200"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_that_does_not_end_is_answered_with_408_over_http3() {
    let endpoint = server(stalling()).await;
    let connection = raw::Raw::connect(endpoint.local_addrs()[0]).await;
    let _control = connection.uni(&[0x00, 0x04, 0x00]).await;
    let head = raw::headers(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
        ("content-length", "0"),
    ]);
    let (send, mut recv) = connection.request(&head).await;
    let answer = within(20, "an answer", recv.read_to_end(1 << 16)).await.unwrap();
    assert!(answer.windows(3).any(|text| text == b"408"), "{answer:?}");
    // H3_NO_ERROR: it need not send the rest, and its answer counts.
    let stopped = within(20, "a stop", send.stopped()).await.unwrap();
    assert_eq!(stopped.map(quinn::VarInt::into_inner), Some(0x100));
}
