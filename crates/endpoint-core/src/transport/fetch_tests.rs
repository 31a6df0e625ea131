//! Does the web client end, and stop, and trust as it says?

use std::net::SocketAddr;

use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};
use tokio_rustls::TlsAcceptor;

use super::*;

fn fetch(roots: &str) -> Fetch {
    let tls = web_tls(Some(roots.as_bytes()), Arc::new(default_provider())).unwrap();
    Fetch { tls, deadline: Duration::from_secs(30), body_limit: 100 }
}

/// A self-signed certificate for `localhost`, and a server's configuration with it.
fn localhost() -> (String, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), Arc::new(config))
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A server of one connection that answers `answer`; ends with the request's head.
async fn answering(answer: Vec<u8>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        // A client that has seen enough goes away.
        let _ = stream.write_all(&answer).await;
        head
    });
    (at, served)
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn asks_in_clear_and_gives_any_status_with_its_fields_and_body() {
    let (pem, _) = localhost();
    let answer =
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 4\r\n\r\nbody";
    let (at, served) = answering(answer.to_vec()).await;
    let got = fetch(&pem).send(get(&format!("http://user:word@{at}/a/b?c=d"))).await.unwrap();
    assert_eq!(got.status(), 302, "no redirect is followed");
    assert_eq!(got.headers()["location"], "http://127.0.0.1:1/");
    assert_eq!(got.body().as_ref(), b"body");
    let head = served.await.unwrap();
    assert!(head.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {at}\r\n")), "{head}");
}

#[tokio::test]
async fn asks_over_tls_only_whom_it_trusts() {
    let (pem, config) = localhost();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(stream).await.is_err());
        }
    });
    let url = format!("https://localhost:{port}/");
    assert_eq!(fetch(&pem).send(get(&url)).await.unwrap().body().as_ref(), b"ok");

    let (other, _) = localhost();
    let refused = fetch(&other).send(get(&url)).await.unwrap_err();
    assert!(matches!(&refused, FetchError::Tls { .. }), "{refused}");
    let by_address = format!("https://127.0.0.1:{port}/");
    let refused = fetch(&pem).send(get(&by_address)).await.unwrap_err();
    assert!(matches!(&refused, FetchError::Tls { .. }), "{refused}");
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_ends_by_the_deadline() {
    let (pem, _) = localhost();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    for scheme in ["http", "https"] {
        let late = fetch(&pem).send(get(&format!("{scheme}://{at}/"))).await.unwrap_err();
        assert_eq!(late.to_string(), format!("{at} gave no answer within 30 s"));
    }
}

#[tokio::test]
async fn takes_no_body_beyond_its_limit_with_or_without_a_length() {
    let (pem, _) = localhost();
    for (length, taken) in [(100, true), (101, false), (1 << 20, false)] {
        for head in [format!("content-length: {length}\r\n"), "connection: close\r\n".to_owned()] {
            let mut answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
            answer.resize(answer.len() + length, b'x');
            let (at, _served) = answering(answer).await;
            let got = fetch(&pem).send(get(&format!("http://{at}/"))).await;
            match got {
                Ok(got) => assert!(taken && got.body().len() == length, "{length}"),
                Err(FetchError::TooLong { limit: 100, .. }) => assert!(!taken),
                Err(other) => panic!("{length}: {other}"),
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_whole_answer_is_told_briefly_and_escaped() {
    let (pem, _) = localhost();
    let garbage = [&b"\x1b[31mSSH-2.0\r\n\r\n"[..], &b"HTTP/1.1 200 OK\r\ncontent-le"[..], b""];
    let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"a: b\r\n".repeat(20_000)].concat();
    for answer in garbage.into_iter().chain([endless.as_slice()]) {
        let (at, _served) = answering(answer.to_vec()).await;
        let broken = fetch(&pem).send(get(&format!("http://{at}/"))).await.unwrap_err();
        assert!(matches!(&broken, FetchError::Broken { .. }), "{broken}");
        let text = broken.to_string();
        assert!(text.len() < 300 && !text.contains('\u{1b}'), "{text}");
    }
    assert_eq!(cut("a\u{1b}\nb"), "a\\u{1b}\\nb");
    assert_eq!(cut(&"\n".repeat(1000)).len(), 200);
}

#[tokio::test]
async fn tells_a_closed_port_and_a_bad_url_apart() {
    let (pem, _) = localhost();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = fetch(&pem).send(get(&format!("https://{closed}/"))).await.unwrap_err();
    assert!(matches!(gone, FetchError::Unreachable { .. }), "{gone}");
    for url in ["/path", "ftp://localhost/", "localhost:80"] {
        let bad = fetch(&pem).send(get(url)).await.unwrap_err();
        assert!(matches!(bad, FetchError::Url(_)), "{url}: {bad}");
    }
}

#[tokio::test]
async fn asks_over_a_local_socket_under_the_name_it_is_given() {
    let (pem, _) = localhost();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        head
    });
    let request = Request::get("/status").header(HOST, "daemon.sock").body(Bytes::new()).unwrap();
    let got = fetch(&pem).send_over_unix(&socket, request).await.unwrap();
    assert_eq!(got.body().as_ref(), b"ok");
    let head = served.await.unwrap();
    assert!(head.starts_with("GET /status HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: daemon.sock\r\n") && !head.contains("localhost"), "{head}");
    let gone = folder.path().join("gone");
    let gone = fetch(&pem).send_over_unix(&gone, get("/status")).await.unwrap_err();
    assert!(matches!(gone, FetchError::Unreachable { .. }), "{gone}");
}

#[test]
fn roots_that_hold_no_certificate_are_an_error() {
    let provider = || Arc::new(default_provider());
    for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(web_tls(Some(pem.as_bytes()), provider()).is_err(), "{pem}");
    }
}
