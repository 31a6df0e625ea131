//! Upstreams and tunnels that say nothing, or take nothing.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use endpoint_tests::{
    http::{VERSIONS, connect, get},
    machine::{Machine, Server},
    wire::Client,
    within,
};
use http::{Request, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

/// What an upstream does once it has the head of a request.
#[derive(Clone, Copy)]
enum Does {
    /// Half of an answer, and nothing more.
    Half,
    /// An event each 200 ms, ten of them.
    Events,
    /// A WebSocket that says nothing by itself and repeats what it hears.
    Socket,
    /// The head of an answer; nothing of the request's body is read.
    Unread,
}

/// The upstream; it tells when one of its connections has ended.
async fn upstream(does: Does) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let _ = serve(stream, does).await;
                let _ = ended.send(());
            });
        }
    });
    (address, ends)
}

async fn serve(mut stream: TcpStream, does: Does) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    match does {
        Does::Half => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
        }
        Does::Events => {
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            stream.write_all(head).await?;
            for _ in 0..10 {
                sleep(Duration::from_millis(200)).await;
                stream.write_all(b": alive\n\n").await?;
            }
            return Ok(());
        }
        Does::Socket => {
            let head = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: x\r\n\r\n";
            stream.write_all(head).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            return Ok(());
        }
        Does::Unread => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            // A sign of life, so that only the other direction is at fault.
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
            return Ok(());
        }
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

fn proxied(upstream: SocketAddr, limits: &str, route: &str) -> (Machine, Server) {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let file = machine.file("silences.toml");
    let route = match route {
        "" => String::new(),
        route => format!("[[site.route]]\npath = \"/\"\n{route}\n"),
    };
    let text = format!(
        "[limits]\n{limits}\n[[site]]\nnames = [\"localhost\"]\nproxy = [\"http://{upstream}\"]\n{route}"
    );
    fs::write(&file, text).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    (machine, server)
}

fn address(server: &Server) -> SocketAddr {
    server.address().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_upstream_stalls_breaks_off() {
    let (upstream, mut ends) = upstream(Does::Half).await;
    // Once for all, once for a route.
    for (limits, route) in
        [("upstream_idle = \"400ms\"", ""), ("upstream_idle = \"1h\"", "upstream_idle = \"400ms\"")]
    {
        let (_machine, server) = proxied(upstream, limits, route);
        for version in VERSIONS {
            let mut connection =
                connect(version, address(&server), "localhost", &browser()).await.unwrap();
            let began = Instant::now();
            let answer = within(10, "an end", connection.send(get("localhost", "/"))).await;
            assert!(answer.is_err(), "{version:?}: half an answer does not look whole");
            assert!(began.elapsed() >= Duration::from_millis(400), "{version:?}");
            within(10, "the upstream is let go", ends.recv()).await.unwrap();
        }
    }
    // By default it has ten minutes.
    let (_machine, server) = proxied(upstream, "", "");
    let mut connection =
        connect(Version::HTTP_2, address(&server), "localhost", &browser()).await.unwrap();
    let answer = timeout(Duration::from_secs(2), connection.send(get("localhost", "/"))).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_pauses_go_on() {
    let (upstream, _ends) = upstream(Does::Events).await;
    let (_machine, server) = proxied(upstream, "upstream_idle = \"1s\"", "");
    for version in VERSIONS {
        let mut connection =
            connect(version, address(&server), "localhost", &browser()).await.unwrap();
        let answer = connection.send(get("localhost", "/")).await.unwrap();
        assert_eq!(answer.text().matches("alive").count(), 10, "{version:?}");
    }
}

async fn socket(server: &Server) -> tokio_rustls::client::TlsStream<TcpStream> {
    let client = browser().offering(&[b"http/1.1"]);
    let mut stream = client.dial_tcp("127.0.0.1", address(server), "localhost", b"").await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(10, "a head", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tunnel_ends_and_one_that_is_used_does_not() {
    let (upstream, mut ends) = upstream(Does::Socket).await;
    let (_machine, server) = proxied(upstream, "", "tunnel_idle = \"800ms\"");
    let mut stream = socket(&server).await;
    for _ in 0..6 {
        sleep(Duration::from_millis(300)).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(within(10, "an echo", stream.read_u8()).await.unwrap(), b'x');
    }
    let began = Instant::now();
    let _ = within(10, "an end", stream.read_to_end(&mut Vec::new())).await;
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    within(10, "the upstream is let go", ends.recv()).await.unwrap();
    // By default it has an hour.
    let (_machine, server) = proxied(upstream, "", "");
    let mut stream = socket(&server).await;
    assert!(timeout(Duration::from_secs(2), stream.read_u8()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_upstream_does_not_read_ends() {
    let (upstream, mut ends) = upstream(Does::Unread).await;
    let upload = || {
        let body = bytes::Bytes::from(vec![7; 32 << 20]);
        Request::post("https://localhost/").body(body).unwrap()
    };
    let (_machine, server) = proxied(upstream, "upstream_send_idle = \"600ms\"", "");
    for version in VERSIONS {
        let mut connection =
            connect(version, address(&server), "localhost", &browser()).await.unwrap();
        let ended = within(20, "an end", connection.send(upload())).await;
        assert!(ended.is_err(), "{version:?}: {ended:?}");
        within(10, "the upstream is let go", ends.recv()).await.unwrap();
    }
    // By default it has a minute.
    let (_machine, server) = proxied(upstream, "", "");
    let mut connection =
        connect(Version::HTTP_2, address(&server), "localhost", &browser()).await.unwrap();
    let ended = timeout(Duration::from_secs(3), connection.send(upload())).await;
    assert!(ended.is_err(), "{ended:?}");
}
