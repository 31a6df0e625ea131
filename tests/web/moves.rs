//! Rules of routes and forwarded fields, for requests that come with a forged address, from a moved peer, or
//! by way of a proxy.

use std::{fs, net::SocketAddr, time::Duration};

use endpoint_tests::{
    forge::Forge,
    http::{Answer, Connection, VERSIONS, fetch, get, over_quic},
    machine::{Machine, Server},
    node::identity,
    until,
    wire::{self, Client, Shown},
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::Upstream;

const HOME: &str = "127.0.0.2";
const INSIDE: &str = "127.0.0.3";

/// The program with one proxy site and these routes; identity 5 is let in from `INSIDE`.
fn serving(upstream: &Upstream, routes: &str) -> (Machine, Server, SocketAddr) {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let key = identity(5).fingerprint().to_string();
    let from = format!("from={INSIDE}");
    assert_eq!(machine.run(&["trust", "add", &key, "--option", &from]).code(), 0);
    let file = machine.file("moves.toml");
    let site =
        format!("[[site]]\nnames = [\"localhost\"]\nproxy = [\"http://{}\"]\n", upstream.address);
    fs::write(&file, site + routes).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let address = server.address().parse().unwrap();
    (machine, server, address)
}

/// Identity 5 over HTTP/3 through a relay.
async fn dial(server: SocketAddr, hosts: &[(&str, bool)]) -> (Forge, Connection) {
    let forge = Forge::before(server, hosts).await;
    let client = Client::new(&[b"h3"]).showing(Shown::raw(5));
    let socket = wire::socket();
    let quinn = client.dial(&socket, forge.addr(), "localhost").await.unwrap();
    (forge, over_quic(socket, quinn).await.unwrap())
}

/// Sends a request whose packets leave from the second host, which never reads. Its answer is read when the
/// client is back at the first.
async fn forged(
    forge: &Forge,
    connection: &mut Connection,
    request: http::Request<bytes::Bytes>,
) -> Answer {
    let before = forge.heard(1);
    forge.leave_from(&[1]);
    let back = async {
        until("the server answers to the forged address", || forge.heard(1) > before).await;
        forge.leave_from(&[0]);
    };
    let (answer, ()) = tokio::join!(within(20, "an answer", connection.send(request)), back);
    answer.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_address_opens_no_route_and_a_moved_peer_finds_it_open() {
    let upstream = Upstream::start();
    let peers = "[[site.route]]\npath = \"/peers\"\naccess = \"peer\"\n";
    let (_machine, _server, address) = serving(&upstream, peers);
    let ask = || get("localhost", "/peers");
    let (relay, mut connection) = dial(address, &[(HOME, true), (INSIDE, false)]).await;
    assert_eq!(connection.send(ask()).await.unwrap().status, 403);
    for _ in 0..3 {
        let answer = forged(&relay, &mut connection, ask()).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
    }
    // Who shakes hands from inside is let in: the rule is no refusal of everybody.
    let (_relay, mut connection) = dial(address, &[(INSIDE, true)]).await;
    assert_eq!(connection.send(ask()).await.unwrap().status, 200);

    let (relay, mut connection) = dial(address, &[(HOME, true), (INSIDE, true)]).await;
    relay.leave_from(&[1]);
    let open = async {
        loop {
            let answer = connection.send(ask()).await.unwrap();
            if answer.status == 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = within(10, "the new address is proven", open).await;
    let told = format!("x-forwarded-for: {INSIDE}\n");
    assert!(answer.text().contains(&told), "{}", answer.text());
    relay.leave_from(&[0]);
    assert_eq!(connection.send(ask()).await.unwrap().status, 403, "it went away again");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_told_the_address_that_answered() {
    let upstream = Upstream::start();
    let trusting = format!("[[site.route]]\npath = \"/\"\ntrusted_proxies = [\"{INSIDE}\"]\n");
    let (_machine, _server, address) = serving(&upstream, &trusting);
    let ask = || {
        let mut request = get("localhost", "/x");
        request.headers_mut().insert("x-forwarded-for", "10.9.9.9".parse().unwrap());
        request.headers_mut().insert("forwarded", "for=10.9.9.9".parse().unwrap());
        request
    };
    let (_relay, mut connection) = dial(address, &[(INSIDE, true)]).await;
    let text = connection.send(ask()).await.unwrap().text();
    assert!(text.contains("x-forwarded-for: 10.9.9.9, 127.0.0.3\n"), "{text}");
    let (relay, mut connection) = dial(address, &[(HOME, true), (INSIDE, false)]).await;
    // The server takes nothing from elsewhere before hands are shaken.
    assert_eq!(connection.send(get("localhost", "/x")).await.unwrap().status, 200);
    for _ in 0..3 {
        let text = forged(&relay, &mut connection, ask()).await.text();
        assert!(text.contains("x-forwarded-for: 127.0.0.2\n"), "{text}");
        assert!(text.contains("x-real-ip: 127.0.0.2\n"), "{text}");
        assert!(!text.contains("10.9.9.9") && !text.contains(INSIDE), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_passed_on_is_not_from_this_machine_unless_a_trusted_one_says_so() {
    let upstream = Upstream::start();
    let routes = "[[site.route]]\npath = \"/local\"\naccess = \"loopback\"\n\
                  [[site.route]]\npath = \"/trusting\"\naccess = \"loopback\"\n\
                  trusted_proxies = [\"127.0.0.1\"]\n";
    let (_machine, server, address) = serving(&upstream, routes);
    type Row = (&'static [(&'static str, &'static str)], u16, u16);
    let rows: [Row; 8] = [
        (&[], 200, 200),
        (&[("x-forwarded-for", "192.0.2.1")], 403, 403),
        (&[("x-forwarded-for", "127.0.0.1")], 403, 200),
        (&[("x-forwarded-for", "127.0.0.1, 192.0.2.1")], 403, 403),
        (&[("x_forwarded_for", "127.0.0.1")], 403, 403),
        (&[("x_real_ip", "192.0.2.1")], 403, 403),
        (&[("forwarded", "for=127.0.0.1")], 403, 200),
        (&[("x-real-ip", "127.0.0.1"), ("cf-connecting-ip", "192.0.2.1")], 403, 403),
    ];
    let browser = Client::new(&[]).wants_x509();
    let plain = server.ready["loopback_http"].as_str().map(str::to_owned);
    let plain: SocketAddr = plain.unwrap_or_else(|| status_address(&server)).parse().unwrap();
    for (fields, local, trusting) in rows {
        for version in VERSIONS {
            for (path, expected) in [("/local", local), ("/trusting", trusting)] {
                let mut request = get("localhost", path);
                for (name, value) in fields {
                    request.headers_mut().insert(*name, value.parse().unwrap());
                }
                let answer = fetch(version, address, "localhost", &browser, request).await.unwrap();
                assert_eq!(answer.status.as_u16(), expected, "{version:?} {path} {fields:?}");
            }
        }
        // The status page has no proxy that it trusts.
        let expected = if fields.is_empty() { 200 } else { 403 };
        let lines: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = tokio::net::TcpStream::connect(plain).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {plain}\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(20, "an answer", stream.read_exact(&mut answer)).await.unwrap();
        let expected = format!("HTTP/1.1 {expected}");
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{fields:?}");
    }
}

/// The address of the status page, from what the program printed.
fn status_address(server: &Server) -> String {
    let urls = server.ready["urls"].as_array().unwrap();
    let plain = urls.last().unwrap().as_str().unwrap();
    plain.trim_start_matches("http://").trim_end_matches('/').to_owned()
}
