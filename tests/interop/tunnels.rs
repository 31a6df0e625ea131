//! WebSocket through the proxy, and what happens to open tunnels when their peer is no longer trusted.

use std::time::{Duration, Instant};

use endpoint_tests::{
    count,
    exchange::Exchange,
    http::{VERSIONS, get},
    machine::{Machine, Server},
    node::identity,
    wire::{Client, Shown},
    within,
};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    machine,
    upstreams::{Upstream, address, browser, serve, word},
};

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

/// A WebSocket (RFC 6455), as a client has it.
struct Socket(TlsStream<TcpStream>);

impl Socket {
    /// Asks for one; the socket, or the head of the answer that refuses.
    async fn open(server: &Server, client: &Client) -> Result<Self, String> {
        let client = client.clone().offering(&[b"http/1.1"]);
        let dialled = client.dial_tcp("127.0.0.1", address(server), "localhost", b"");
        let mut stream = within(20, "a handshake", dialled).await.unwrap();
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = within(20, "a head", stream.read_u8()).await;
            head.push(byte.map_err(|error| error.to_string())?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        if !head.starts_with("http/1.1 101 ") {
            return Err(head);
        }
        // The value that RFC 6455 §1.3 works out for this key.
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        Ok(Self(stream))
    }

    async fn send(&mut self, first: u8, data: &[u8]) {
        let mut frame = vec![first];
        match u8::try_from(data.len()).ok().filter(|length| *length < 126) {
            Some(length) => frame.push(0x80 | length),
            None => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&MASK);
        frame.extend(data.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next frame, without a mask.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.0.read_u8().await.unwrap();
            let length = match self.0.read_u8().await.unwrap() {
                126 => usize::from(self.0.read_u16().await.unwrap()),
                length => usize::from(length),
            };
            let mut data = vec![0; length];
            self.0.read_exact(&mut data).await.unwrap();
            (first, data)
        };
        within(20, "a frame", read).await
    }

    /// Until nothing comes any more, properly or not.
    async fn until_end(&mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "nothing follows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_frames_both_ways_until_it_is_closed() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let server = serve(&machine, &upstream.url(), "");
    let mut socket = Socket::open(&server, &browser()).await.unwrap();
    let frames = count(200, 5000);
    for number in 0..frames {
        let data = format!("frame {number} ").repeat(number % 100 * 7);
        let kind = if number % 2 == 0 { TEXT } else { BINARY };
        socket.send(kind, data.as_bytes()).await;
        assert_eq!(socket.next().await, (kind, data.into_bytes()), "{number}");
    }
    // Many on their way at once, none lost, none twice, in order.
    for number in 0..50 {
        socket.send(TEXT, format!("{number}").as_bytes()).await;
    }
    for number in 0..50 {
        assert_eq!(socket.next().await, (TEXT, format!("{number}").into_bytes()));
    }
    // The upstream closes after it has answered a close frame.
    socket.send(CLOSE, b"\x03\xe8").await;
    assert_eq!(socket.next().await, (CLOSE, b"\x03\xe8".to_vec()));
    within(20, "the end", socket.until_end()).await;
    println!("acceptance: WebSocket through the proxy: {frames} frames each way, then closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_leaves_is_closed_at_the_upstream() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let server = serve(&machine, &upstream.url(), "");
    for version in VERSIONS {
        let asked = get("localhost", &format!("/leaves?{}", word(version))).map(|_| ());
        let mut answer =
            Exchange::begin(version, address(&server), &browser(), asked, false).await.unwrap();
        assert_eq!(answer.next().await, Some(Ok("hello".into())), "{version:?}");
        drop(answer);
        upstream.until(&format!("/left?{}", word(version))).await;
    }
    let mut socket = Socket::open(&server, &browser()).await.unwrap();
    socket.send(TEXT, b"hello").await;
    assert_eq!(socket.next().await, (TEXT, b"hello".to_vec()));
    drop(socket);
    upstream.until("/left-socket").await;
}

/// A route for peers, one of whom is trusted.
fn guarded(machine: &Machine, upstream: &Upstream, seed: u8) -> (Server, String) {
    let key = identity(seed).fingerprint().to_string();
    machine.json(&["trust", "add", &key]);
    let routes = "[[site.route]]\npath = \"/\"\naccess = \"peer\"\n";
    (serve(machine, &upstream.url(), routes), key)
}

/// The acceptance line: a second after the command that took the key out.
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_cut_when_its_peer_is_no_longer_trusted() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let (server, key) = guarded(&machine, &upstream, 5);
    let peer = Client::new(&[]).showing(Shown::raw(5));
    let refused = Socket::open(&server, &browser()).await.err().expect("a refusal");
    assert!(refused.starts_with("http/1.1 403 "), "{refused}");
    let mut slowest = Duration::ZERO;
    let rounds = count(3, 100);
    for _ in 0..rounds {
        let mut socket = Socket::open(&server, &peer).await.unwrap();
        socket.send(TEXT, b"hello").await;
        assert_eq!(socket.next().await, (TEXT, b"hello".to_vec()));
        machine.json(&["trust", "rm", &key]);
        let removed = Instant::now();
        within(20, "the cut", socket.until_end()).await;
        slowest = slowest.max(removed.elapsed());
        let refused = Socket::open(&server, &peer).await.err().expect("a refusal");
        assert!(refused.starts_with("http/1.1 403 "), "{refused}");
        machine.json(&["trust", "add", &key]);
    }
    assert!(slowest < SECOND, "{slowest:?}");
    println!(
        "acceptance: {rounds} WebSockets cut after `trust rm`, the slowest {slowest:?} after it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_is_cut_when_its_peer_is_no_longer_trusted() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let (server, key) = guarded(&machine, &upstream, 6);
    let peer = Client::new(&[]).showing(Shown::raw(6));
    let mut slowest = Duration::ZERO;
    let rounds = count(1, 30);
    for round in 0..rounds {
        for version in VERSIONS {
            let target = format!("/events?{round}{}", word(version));
            let asked = || get("localhost", &target).map(|_| ());
            let mut events =
                Exchange::begin(version, address(&server), &peer, asked(), false).await.unwrap();
            assert_eq!(events.status, StatusCode::OK);
            assert_eq!(events.next().await, Some(Ok("data: 0\n\n".into())), "{version:?}");
            machine.json(&["trust", "rm", &key]);
            let removed = Instant::now();
            let cut = events.next().await;
            slowest = slowest.max(removed.elapsed());
            assert!(matches!(&cut, Some(Err(_))), "{version:?}: a cut is no proper end: {cut:?}");
            // What the upstream makes from now on reaches nobody.
            upstream.next(&target).await;
            let again = Exchange::begin(version, address(&server), &peer, asked(), false).await;
            assert_eq!(again.unwrap().status, StatusCode::FORBIDDEN, "{version:?}");
            machine.json(&["trust", "add", &key]);
        }
    }
    assert!(slowest < SECOND, "{slowest:?}");
    let count = rounds * VERSIONS.len();
    println!(
        "acceptance: {count} event streams cut after `trust rm`, the slowest {slowest:?} after it"
    );
}
