//! How much memory of the program can a connection take? Its own process is measured.

use std::{any::Any, fs, net::SocketAddr, pin::Pin, time::Duration};

use endpoint_tests::{
    count,
    machine::{Machine, Server},
    wire::Client,
    within,
};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    quic::{Hello, Quic, Space, stream},
    raw::{Raw, declared, frame, get, headers, varint},
    raw2::{self, Raw2},
};

/// What a connection of an attacker may take.
const MOST_BYTES: u64 = 8 << 20;
/// A file that attackers ask for and do not take.
const LARGE_BYTES: usize = 8 << 20;

/// What keeps an attacker's connection open.
type Held = Box<dyn Any + Send>;
type Attack = fn(SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>>;

fn large() -> Vec<u8> {
    headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/large"),
    ])
}

/// Header sections that are declared, sent, and never whole.
fn unfinished_headers(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let raw = Raw::connect(server).await;
        let mut held = Vec::new();
        for _ in 0..8 {
            let bytes = [declared(1, 64 << 10), vec![0; 65_000]].concat();
            held.push(raw.request(&bytes).await);
        }
        Box::new((raw, held)) as Held
    })
}

/// As many streams as there may be, each with a byte.
fn slow_streams(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let raw = Raw::connect(server).await;
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(raw.request(&[1]).await);
        }
        Box::new((raw, held)) as Held
    })
}

/// Fields that are short on the wire, in headers and in trailers.
fn fields(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let raw = Raw::connect(server).await;
        let bomb = frame(1, &[vec![0, 0], vec![0xc0 | 31; 65_000]].concat());
        let bombs = [bomb.clone(), [get(), frame(0, b"x"), bomb].concat()];
        for bytes in bombs.iter().cycle().take(20) {
            let (mut send, mut recv) = raw.request(bytes).await;
            let _ = send.finish();
            let _ = within(20, "an end of the request", recv.read_to_end(1 << 20)).await;
        }
        Box::new(raw) as Held
    })
}

/// Pieces of streams with holes between them (RUSTSEC-2026-0185).
fn holes(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let attack = move || {
            let mut quic = Quic::connect(server);
            let mut offsets = (1_u64..120_000).step_by(2);
            loop {
                let frames: Vec<u8> =
                    offsets.by_ref().take(150).flat_map(|at| stream(0, at, b"x")).collect();
                if frames.is_empty() {
                    break;
                }
                quic.send(Space::Data, &frames);
                // Not faster than the kernel's buffer is emptied.
                if !quic.lives() && quic.closed.is_some() {
                    break;
                }
            }
            // quinn has a bound on pieces and ends the connection there.
            assert_eq!(quic.closed, Some((1, false)), "it ends with INTERNAL_ERROR");
            quic
        };
        let quic = tokio::task::spawn_blocking(attack).await.unwrap();
        Box::new(quic) as Held
    })
}

/// Large answers to a client that lets the server send, and acknowledges nothing.
fn unacknowledged(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let attack = move || {
            // No window for answers at first, so that they do not flood our own socket.
            let mut hello = Hello::default();
            hello.parameters.retain(|(id, _)| *id != 0x05);
            let mut quic = Quic::connect_with(server, &hello);
            let mut asked = 0;
            'asking: while asked < 100 {
                // This client knows no loss, so it says everything again when nothing comes. The server
                // waits longer each time for a client that acknowledges nothing.
                let mut tries = 0;
                while !quic.within(Duration::from_millis(250), |quic| quic.streams > asked) {
                    assert!(quic.closed.is_none(), "credit: {:?}", quic.closed);
                    tries += 1;
                    if tries > 20 && asked >= 16 {
                        break 'asking;
                    }
                    assert!(tries < 100, "no credit for a stream");
                    (0..asked).for_each(|n| quic.send(Space::Data, &stream(4 * n, 0, &large())));
                }
                quic.send(Space::Data, &stream(4 * asked, 0, &large()));
                asked += 1;
            }
            // From here on nothing is read.
            let wide = [vec![0x10], varint(1 << 40)].concat();
            quic.send(Space::Data, &wide);
            for number in 0..asked {
                let window = [vec![0x11], varint(4 * number), varint(1 << 40)].concat();
                quic.send(Space::Data, &window);
            }
            quic
        };
        let quic = tokio::task::spawn_blocking(attack).await.unwrap();
        Box::new(quic) as Held
    })
}

/// An HTTP/2 header section in as many frames as are taken.
fn unfinished_headers_2(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let mut raw = Raw2::connect(server).await;
        let field = raw2::fields(&[("x", &"y".repeat(16_000))]);
        let mut bytes = raw2::frame(raw2::HEADERS, 0, 1, &raw2::request("GET", "/"));
        for _ in 0..4 {
            bytes.extend(raw2::frame(raw2::CONTINUATION, 0, 1, &field));
        }
        let _ = raw.send(&bytes).await;
        Box::new(raw) as Held
    })
}

/// A hundred large answers to a client without a window.
fn closed_windows(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(large_answers(server, 0))
}

/// The same with a window that lets every stream begin.
fn small_windows(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(large_answers(server, 1))
}

/// The same with a window that is wide and a socket that is not read.
fn unread(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(large_answers(server, 0x7fff_ffff))
}

async fn large_answers(server: SocketAddr, window: u32) -> Held {
    let mut raw = Raw2::connect_with(server, &[(4, window)]).await;
    if window > 1 {
        let increment = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
        raw.send(&raw2::frame(raw2::WINDOW_UPDATE, 0, 0, &increment)).await.unwrap();
    }
    let head = raw2::request("GET", "/large");
    for number in 0..100 {
        let flags = raw2::END_HEADERS | raw2::END_STREAM;
        raw.send(&raw2::frame(raw2::HEADERS, flags, 1 + 2 * number, &head)).await.unwrap();
    }
    Box::new(raw)
}

/// HTTP/1.1 requests whose answers nobody reads.
fn pipelined(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let mut stream = http1(server).await;
        let request = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000);
        // The server stops to read once its answers wait.
        let _ = tokio::time::timeout(Duration::from_millis(500), async {
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.flush().await;
        })
        .await;
        Box::new(stream) as Held
    })
}

/// An HTTP/1.1 header that never ends.
fn unfinished_headers_1(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let mut stream = http1(server).await;
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "y".repeat(60_000));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        Box::new(stream) as Held
    })
}

/// A TLS record that declares much, before anything was agreed.
fn unfinished_hello(server: SocketAddr) -> Pin<Box<dyn Future<Output = Held> + Send>> {
    Box::pin(async move {
        let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
        let mut bytes = Vec::new();
        for _ in 0..8 {
            bytes.extend([0x16, 3, 1, 0x3f, 0xff]);
            bytes.extend([1, 0xff, 0xff, 0xff]);
            bytes.resize(bytes.len() + 0x3fff - 4, 7);
        }
        let _ = stream.write_all(&bytes).await;
        let mut answer = [0; 64];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer));
        let _ = read.await;
        Box::new(stream) as Held
    })
}

async fn http1(server: SocketAddr) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let client = Client::new(&[b"http/1.1"]).wants_x509();
    client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap()
}

/// A server with the same file, as a URL.
async fn upstream() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let large = axum::body::Bytes::from(vec![7; LARGE_BYTES]);
    let router = axum::Router::new().route("/large", axum::routing::get(|| async { large }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Waits until the memory of the program no longer grows; gives it.
pub async fn settled(server: &Server) -> u64 {
    let mut last = server.status_bytes("VmRSS");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = server.status_bytes("VmRSS");
        if now <= last + (1 << 18) {
            return now;
        }
        last = now;
    }
    panic!("the program's memory grows without end: {last} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_takes_no_more_than_its_share() {
    let attacks: [(&str, Attack); 15] = [
        ("h3 headers unfinished", unfinished_headers),
        ("h3 streams slow", slow_streams),
        ("h3 fields that inflate", fields),
        ("QUIC streams with holes", holes),
        ("h3 answers not acknowledged", unacknowledged),
        ("h2 headers unfinished", unfinished_headers_2),
        ("h2 windows closed", closed_windows),
        ("h2 windows of a byte", small_windows),
        ("h2 answers unread", unread),
        ("h1 answers unread", pipelined),
        ("h1 headers unfinished", unfinished_headers_1),
        ("TLS hellos unfinished", unfinished_hello),
        ("proxy, h3 answers not acknowledged", unacknowledged),
        ("proxy, h2 windows of a byte", small_windows),
        ("proxy, h2 answers unread", unread),
    ];
    let many = count(8, 60);
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let root = machine.state().parent().unwrap().join("www");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("large"), vec![7; LARGE_BYTES]).unwrap();
    let upstream = upstream().await;
    let (mut report, mut wrong) = (Vec::new(), Vec::new());
    for (what, attack) in attacks {
        let server = match what.starts_with("proxy") {
            true => machine.serve_with(&["--proxy", &upstream]),
            false => machine.serve_with(&["--root", root.to_str().unwrap()]),
        };
        let address: SocketAddr = server.address().parse().unwrap();
        // Each answer of a proxy is a connection of its own to the upstream, whose kernel buffers 4 MB for
        // it: some thousand use up what this machine has for TCP.
        let connections = if what.starts_with("proxy") { 8 } else { many };
        // One connection, so that what all share is there.
        drop(attack(address).await);
        let before = settled(&server).await;
        let mut growth = Vec::new();
        for wave in 1..=2_u64 {
            let held = join_all((0..connections).map(|_| attack(address))).await;
            settled(&server).await;
            let most = server.status_bytes("VmHWM").saturating_sub(before);
            // The connections of an earlier wave may live until their idle timeout.
            let each = most / (connections as u64 * wave);
            if each > MOST_BYTES {
                wrong.push(format!("{what}: {each} bytes each, wave {wave}"));
            }
            growth.push(most);
            drop(held);
        }
        let client = Client::new(&[]).wants_x509();
        let request = endpoint_tests::http::get("localhost", "/large");
        let answer = endpoint_tests::http::fetch(
            http::Version::HTTP_3,
            address,
            "localhost",
            &client,
            request,
        )
        .await
        .unwrap();
        assert_eq!(answer.body.len(), LARGE_BYTES, "{what}: an honest client is served");
        let kib = |bytes: u64| bytes / 1024 / connections as u64;
        report.push(format!("{what} {} then {} KiB", kib(growth[0]), kib(growth[1])));
    }
    assert!(wrong.is_empty(), "{}; {}", wrong.join("; "), report.join("; "));
    println!(
        "acceptance: {many} attackers' connections (8 before a proxy) of {} kinds, twice; growth of the program for each of \
         the first {many}, at most {} KiB: {}",
        report.len(),
        MOST_BYTES >> 10,
        report.join("; ")
    );
}
