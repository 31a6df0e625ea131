//! The proxy before real upstreams: parts that come one by one, and servers that sleep, die or are not there.
//!
//! Python and Node stand behind it; which request reached them how often, they say themselves.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use endpoint_tests::{
    count,
    exchange::Exchange,
    http::{Answer, Failure, VERSIONS, connect, fetch, get},
    machine::{Machine, Running, Server},
    ports::free_address,
    sha256,
    wire::Client,
    within,
};
use http::{Method, Request, StatusCode, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::machine;

/// Longer than anything here takes, and far less than a request that hangs.
const BOUND: Duration = Duration::from_secs(20);

/// `upstream.py`, and where it listens.
pub struct Upstream {
    _running: Running,
    address: String,
}

impl Upstream {
    pub fn tcp() -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("foreign/upstream.py")]);
        let mut running = Running::start(python);
        let address = format!("127.0.0.1:{}", running.line().expect("a port"));
        Self { _running: running, address }
    }

    fn unix(path: &Path) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("foreign/upstream.py")]).arg(path);
        let mut running = Running::start(python);
        assert_eq!(running.line().as_deref(), Some("0"), "{running:?}");
        Self { _running: running, address: String::new() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks it past the proxy.
    async fn ask(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    /// Waits until it has noted something under a target.
    pub async fn until(&self, target: &str) {
        let noted = async {
            while self.seen(target).await == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(20, target, noted).await;
    }

    /// How often a target reached it.
    async fn seen(&self, target: &str) -> usize {
        self.ask(&format!("/seen{target}")).await.parse().unwrap()
    }

    /// Lets what waits under a target go on.
    pub async fn next(&self, target: &str) {
        self.ask(&format!("/next{target}")).await;
    }
}

pub fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

pub fn address(server: &Server) -> SocketAddr {
    server.address().parse().unwrap()
}

/// A server with one site before `upstream`, and routes of that site.
pub fn serve(machine: &Machine, upstream: &str, routes: &str) -> Server {
    let file = machine.state().parent().unwrap().join("proxy.toml");
    let config = format!(
        "loopback_http = \"off\"\n[[site]]\nnames = [\"localhost\"]\nproxy = \"{upstream}\"\n{routes}"
    );
    std::fs::write(&file, config).unwrap();
    machine.serve_with(&["--config", file.to_str().unwrap()])
}

fn request(method: Method, path: &str, body: &'static [u8]) -> Request<Bytes> {
    let mut request = get("localhost", path);
    *request.method_mut() = method;
    *request.body_mut() = Bytes::from_static(body);
    request
}

/// A version as a word of a query.
pub fn word(version: Version) -> String {
    format!("{version:?}").replace('/', "-")
}

async fn ask(
    version: Version,
    server: &Server,
    request: Request<Bytes>,
) -> Result<Answer, Failure> {
    let began = Instant::now();
    let what = format!("{version:?} {} {}", request.method(), request.uri());
    let answer = fetch(version, address(server), "localhost", &browser(), request).await;
    assert!(began.elapsed() < BOUND, "{what} took {:?}", began.elapsed());
    answer
}

/// The answer of a proxy that got none: the status, and the number under which the log has it.
fn assert_told(answer: &Answer, status: StatusCode, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    let id = answer.field("x-request-id");
    assert!(!id.is_empty() && answer.text().contains(id), "{what}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let server = serve(&machine, &upstream.url(), "");
    for version in VERSIONS {
        let target = format!("/events?{}", word(version));
        let request = get("localhost", &target).map(|_| ());
        let mut events =
            Exchange::begin(version, address(&server), &browser(), request, false).await.unwrap();
        assert_eq!(events.headers["content-type"], "text/event-stream");
        for number in 0..5 {
            // The next one is made after this one has arrived.
            let event = events.next().await.expect("an event").unwrap();
            assert_eq!(event, format!("data: {number}\n\n"), "{version:?}");
            upstream.next(&target).await;
        }
        assert_eq!(events.next().await, None, "{version:?}");
    }
    println!("acceptance: Server-Sent Events through the proxy: 15 of 15 alone, over 3 versions");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_part_by_part_both_ways_at_once() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let server = serve(&machine, &upstream.url(), "");
    let parts = count(20, 500);
    for version in VERSIONS {
        let mut asked = get("localhost", "/echo").map(|_| ());
        *asked.method_mut() = Method::POST;
        let mut echo =
            Exchange::begin(version, address(&server), &browser(), asked, true).await.unwrap();
        for number in 0..parts {
            // The next one is sent after this one has come back.
            let part = format!("part {number} ").repeat(number % 50 + 1);
            echo.send(part.clone()).await;
            let mut back = Vec::new();
            while back.len() < part.len() {
                back.extend_from_slice(&echo.next().await.expect("a part").unwrap());
            }
            assert_eq!(String::from_utf8(back).unwrap(), part, "{version:?}");
        }
        echo.end();
        assert_eq!(echo.next().await, None, "{version:?}");
    }
    println!("acceptance: chunks through the proxy: {parts} each way in lockstep, over 3 versions");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_or_sleeps_is_told_as_such_and_asked_once() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let routes = "[[site.route]]\npath = \"/slow\"\ntimeout = \"200ms\"\n";
    let server = serve(&machine, &upstream.url(), routes);
    let large: &'static [u8] = Box::leak(vec![b'x'; 1 << 20].into_boxed_slice());
    // Path; the status, or none where the answer had begun and has to break off.
    let rows = [
        ("/slow", Some(StatusCode::GATEWAY_TIMEOUT)),
        ("/dies/early", Some(StatusCode::BAD_GATEWAY)),
        ("/dies/before", Some(StatusCode::BAD_GATEWAY)),
        ("/dies/header", Some(StatusCode::BAD_GATEWAY)),
        ("/dies/body", None),
        ("/dies/chunk", None),
    ];
    let mut requests = 0;
    for version in VERSIONS {
        for (path, status) in rows {
            for (method, body) in
                [(Method::GET, &b""[..]), (Method::POST, b"x"), (Method::POST, large)]
            {
                let target = format!("{path}?{requests}");
                let what = format!("{version:?} {method} {target} {}", body.len());
                let answer = ask(version, &server, request(method, &target, body)).await;
                match (status, answer) {
                    (Some(status), Ok(answer)) => assert_told(&answer, status, &what),
                    (None, Err(_)) => {}
                    (_, other) => panic!("{what}: {other:?}"),
                }
                assert_eq!(upstream.seen(&target).await, 1, "{what}");
                requests += 1;
            }
        }
    }
    println!(
        "acceptance: {requests} requests to a dying or sleeping upstream, each reached it once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_happen_twice_is_sent_again_and_only_on_a_dead_connection() {
    let (upstream, machine) = (Upstream::tcp(), machine());
    let server = serve(&machine, &upstream.url(), "");
    let tries = count(100, 1000);
    for version in VERSIONS {
        let mut client = connect(version, address(&server), "localhost", &browser()).await.unwrap();
        for (method, body) in [(Method::GET, &b""[..]), (Method::POST, b"pay"), (Method::PUT, b"x")]
        {
            // A kept connection is there soon after its answer has ended, so a few tries find one.
            let mut dead = 0;
            for number in 0..tries {
                let fine = client.send(request(Method::GET, "/fine", b"")).await.unwrap();
                assert_eq!(fine.text(), "GET /fine");
                let target = format!("/dies-when-kept?{}{method}{number}", word(version));
                let answer = client.send(request(method.clone(), &target, body)).await.unwrap();
                let seen = upstream.seen(&target).await;
                match (&method, answer.status) {
                    (_, StatusCode::OK) if seen == 1 => continue,
                    (&Method::GET, StatusCode::OK) => assert_eq!(seen, 2, "{version:?} {target}"),
                    (_, status) => {
                        assert_ne!(method, Method::GET);
                        assert_told(&answer, StatusCode::BAD_GATEWAY, &target);
                        assert_eq!((status, seen), (StatusCode::BAD_GATEWAY, 1), "{target}");
                    }
                }
                dead += 1;
                if dead == 3 && !endpoint_tests::long() {
                    break;
                }
            }
            assert!(dead >= 3, "{version:?} {method}: {dead} of {tries} on a kept connection");
        }
    }
    println!("acceptance: POST and PUT never sent twice, GET again only on a dead kept connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_upstream_is_told_by_502() {
    let machine = machine();
    let free = free_address();
    let gone = machine.state().parent().unwrap().join("gone.sock");
    for upstream in
        [format!("http://{free}"), format!("h2c://{free}"), format!("unix:{}", gone.display())]
    {
        let server = serve(&machine, &upstream, "");
        for version in VERSIONS {
            for method in [Method::GET, Method::POST] {
                let what = format!("{upstream} {version:?} {method}");
                let answer = ask(version, &server, request(method, "/x", b"")).await.unwrap();
                assert_told(&answer, StatusCode::BAD_GATEWAY, &what);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_reached_over_a_unix_socket() {
    let machine = machine();
    let socket = machine.state().parent().unwrap().join("app.sock");
    let _upstream = Upstream::unix(&socket);
    let server = serve(&machine, &format!("unix:{}", socket.display()), "");
    for version in VERSIONS {
        // A request without a body has none there either, whatever carried it here.
        let bare = ask(version, &server, request(Method::GET, "/fields", b"")).await.unwrap();
        let fields = bare.text().to_ascii_lowercase();
        assert!(fields.contains("via: ") && !fields.contains("transfer-encoding"), "{fields}");
        let answer = ask(version, &server, request(Method::POST, "/x", b"body")).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "POST /x"));
        let echo = ask(version, &server, request(Method::PUT, "/echo", b"body")).await.unwrap();
        assert_eq!(echo.text(), "body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_of_node_is_spoken_to_in_http2_on_one_connection() {
    let mut node = Command::new("node");
    node.args(["-e", include_str!("foreign/h2c.js")]);
    let mut node = Running::start(node);
    let port = node.line().expect("a port");
    let machine = machine();
    let server = serve(&machine, &format!("h2c://127.0.0.1:{port}"), "");
    let large: &'static [u8] = Box::leak(vec![7; 3 << 20].into_boxed_slice());
    for version in VERSIONS {
        let mut asked = tokio::task::JoinSet::new();
        let server = address(&server);
        let first =
            fetch(version, server, "localhost", &browser(), get("localhost", "/first")).await;
        assert_eq!(first.unwrap().status, StatusCode::OK);
        for number in 0..8 {
            let body = if number % 2 == 0 { large } else { b"" };
            let method = if number % 2 == 0 { Method::POST } else { Method::GET };
            asked.spawn(async move {
                let path = format!("/at?{number}");
                let asked = request(method.clone(), &path, body);
                let answer = fetch(version, server, "localhost", &browser(), asked).await.unwrap();
                let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(told["method"], method.as_str(), "{told}");
                assert_eq!(told["path"], path.as_str(), "{told}");
                assert_eq!(told["authority"], "localhost", "{told}");
                assert_eq!(told["digest"], sha256(body).as_str(), "{told}");
                assert_eq!(told["sessions"], 1, "{told}");
            });
        }
        while let Some(done) = asked.join_next().await {
            done.unwrap();
        }
        let asked = request(Method::POST, "/resets", b"x");
        let reset = fetch(version, server, "localhost", &browser(), asked).await.unwrap();
        assert_told(&reset, StatusCode::BAD_GATEWAY, "a stream that was reset");
    }
    node.end_input();
    println!("acceptance: Node over h2c: one connection, bodies right, over 3 versions");
}
