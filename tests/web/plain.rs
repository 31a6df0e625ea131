//! Plain HTTP of the library.

use std::{net::TcpListener, time::Duration};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use endpoint_core::{
    Limits,
    http::{PlainOptions, serve_plain},
};
use endpoint_tests::within;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

#[tokio::test]
async fn requests_have_the_time_that_the_limits_say_and_the_end_is_awaited() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits::default()
        .request_header_deadline(Duration::from_millis(200))
        .request_body_idle(Duration::from_millis(200));
    let (end, ended) = oneshot::channel();
    let router = Router::new().route("/", post(|body: Bytes| async { body }));
    let ended = async {
        let _ = ended.await;
    };
    let serving = tokio::spawn(
        serve_plain(listener, router, &PlainOptions::default(), &limits, ended).unwrap(),
    );
    let told = async |request: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Well below the defaults.
        let _ = within(8, "an end", stream.read_to_string(&mut answer)).await;
        answer
    };
    let whole = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = told(whole).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hi"), "{answer}");
    let answer = told("POST / HTTP/1.1\r\nHost: a").await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = told(&whole[..whole.len() - 1]).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // A connection that is open when the end comes.
    let mut idle = TcpStream::connect(address).await.unwrap();
    end.send(()).unwrap();
    within(8, "the end", serving).await.unwrap();
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_holds_a_brief_listener_neither_by_number_nor_by_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = PlainOptions::default().per_source(2).brief(Duration::from_millis(300));
    let router = Router::new().route("/", get(|| async { "here" }));
    let (limits, never) = (Limits::default(), std::future::pending());
    tokio::spawn(serve_plain(listener, router, &options, &limits, never).unwrap());
    let connect = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut held = [connect("127.0.0.2").await, connect("127.0.0.2").await];
    let mut third = connect("127.0.0.2").await;
    let mut rest = Vec::new();
    // Closed at once or, where the others' time has passed already, served.
    let _ = within(20, "an end", third.read_to_end(&mut rest)).await;
    let mut other = connect("127.0.0.3").await;
    other.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(20, "an answer and an end", other.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("here") && answer.contains("connection: close"), "{answer}");
    for held in &mut held {
        let ended = within(20, "the end of a silent one", held.read(&mut [0])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}
