//! What a site is served on, and what the program says of it.

use std::{fs, net::SocketAddr};

use endpoint_tests::{
    http::{VERSIONS, fetch, get},
    machine::{Machine, Server},
    ports::free_address,
    wire::{Client, Shown},
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"))
}

/// The program with this configuration.
fn serve(machine: &Machine, config: &str) -> Server {
    fs::write(machine.file("endpoint.toml"), config).unwrap();
    machine.serve()
}

fn urls(server: &Server) -> Vec<&str> {
    let urls = server.ready["urls"].as_array().unwrap();
    urls.iter().map(|url| url.as_str().unwrap()).collect()
}

/// The answer to one request over plain HTTP.
async fn plain(address: SocketAddr, path: &str, host: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(10, "an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_a_certificate_is_served_on_loopback_alone() {
    let machine = machine();
    let free = free_address();
    // The one without a certificate first: it must not become the default.
    let config = format!(
        "plain_listen = [\"{free}\"]\nloopback_http = \"127.0.0.1:0\"\n\
         [[site]]\nnames = [\"off.example\", \"x.c.example\"]\ncertificate = \"off\"\n\
         [[site]]\nnames = [\"localhost\"]\n[[site]]\nnames = [\"*.c.example\"]\n"
    );
    let server = serve(&machine, &config);
    let address: SocketAddr = server.address().parse().unwrap();
    // SNI, host, status for a browser, status for a raw-key peer.
    let rows = [
        ("off.example", "off.example", 421, 421),
        ("localhost", "off.example", 421, 421),
        ("off.example", "localhost", 200, 200),
        ("x.c.example", "x.c.example", 421, 421),
        ("x.c.example", "y.c.example", 200, 200),
        ("localhost", "localhost", 200, 200),
        ("localhost", "127.0.0.1", 421, 200),
    ];
    let peer = Client::new(&[]).showing(Shown::raw(3));
    for version in VERSIONS {
        for (sni, host, of_browser, of_peer) in rows {
            let browser = Client::new(&[]).wants_x509();
            for (client, expected) in [(browser, of_browser), (peer.clone(), of_peer)] {
                let answer = fetch(version, address, sni, &client, get(host, "/")).await;
                let status = answer.map(|answer| answer.status.as_u16());
                assert_eq!(status, Ok(expected), "{version:?} {sni} {host}");
            }
        }
    }
    let told = urls(&server);
    let [site, loopback] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*site, format!("https://localhost:{}/", server.port()));
    assert_eq!(status(&plain(free, "/", "off.example").await), "421");
    assert_eq!(status(&plain(free, "/", "x.c.example").await), "421");
    assert_eq!(status(&plain(free, "/", "y.c.example").await), "308");
    let loopback = loopback.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    assert_eq!(status(&plain(loopback, "/", "off.example").await), "200");
    println!("acceptance: a site without a certificate: 421 over 3 versions, no URL, no redirect");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_listeners_tell_where_they_are() {
    let machine = machine();
    let config = "plain_listen = [\"127.0.0.1:0\"]\n[[site]]\nnames = [\"localhost\"]\n";
    let server = serve(&machine, config);
    let status = machine.json(&["status"]);
    let plain_listen = status["plain_listen"][0].as_str().unwrap();
    assert_eq!(self::status(&plain(plain_listen.parse().unwrap(), "/", "localhost").await), "308");
    let screen = machine.run(&["status"]).out;
    let page = status["loopback_http"].as_str().unwrap();
    assert!(screen.contains(&format!("redirect     http://{plain_listen}/\n")), "{screen}");
    assert!(screen.contains(&format!("status page  http://{page}/\n")), "{screen}");
    // Nothing on this listener names a request that has no name.
    let refused = plain(page.parse().unwrap(), "/none", page).await;
    assert!(refused.contains("\r\n\r\nnot found\n"), "{refused}");
    let metrics = plain(page.parse().unwrap(), "/metrics", page).await;
    for line in [
        "endpoint_connections{alpn=\"h3\",carrier=\"quic\"} 0\n",
        "endpoint_connections{alpn=\"echo/1\",carrier=\"tcp\"} 0\n",
        "# HELP endpoint_arrivals first packets and TCP connections that arrived\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    server.running.signal(rustix::process::Signal::TERM);
    let said = server.running.end();
    assert!(said.err.contains(&format!("redirect     http://{plain_listen}/\n")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_sites_five_pages_are_told() {
    let machine = machine();
    let site =
        |n: usize| format!("[[site]]\nnames = [\"*.w{n}\", \"s{n}.example\", \"t{n}.example\"]\n");
    let server = serve(&machine, &(0..7).map(site).collect::<String>());
    let told = urls(&server);
    let page = |n: usize| format!("https://s{n}.example:{}/", server.port());
    assert_eq!(told[..5], (0..5).map(page).collect::<Vec<_>>());
    assert!(told.len() == 6 && told[5].starts_with("http://127.0.0.1:"), "{told:?}");
    server.running.signal(rustix::process::Signal::TERM);
    let said = server.running.end();
    assert_eq!(said.err.matches("page         https://").count(), 5, "{said:?}");
    assert!(said.err.contains("             and 2 more\n"), "{said:?}");
}

#[test]
fn an_upstream_that_is_one_of_our_listeners_is_refused() {
    let machine = machine();
    let (plain, loopback) = (free_address(), free_address());
    for (upstream, more) in [
        (format!("http://{plain}"), ""),
        (format!("http://localhost:{}", loopback.port()), ""),
        (format!("h2c://{loopback}"), ""),
        (format!("http://127.0.0.2:{}", plain.port()), "any"),
    ] {
        let plain = match more {
            "any" => format!("0.0.0.0:{}", plain.port()),
            _ => plain.to_string(),
        };
        let config = format!(
            "plain_listen = [\"{plain}\"]\nloopback_http = \"{loopback}\"\n\
             [[site]]\nnames = [\"localhost\"]\nproxy = [\"{upstream}\"]\n"
        );
        fs::write(machine.file("endpoint.toml"), config).unwrap();
        for words in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
            let said = machine.run(words);
            assert_eq!(said.code(), 2, "{upstream} {words:?}: {said:?}");
            assert!(said.err.contains("is this endpoint itself"), "{upstream} {words:?}: {said:?}");
        }
    }
}

#[test]
fn a_configuration_is_checked_as_it_is_served() {
    let machine = machine();
    for (config, says) in [
        ("listen = [\"127.0.0.1:443\"]\nplain_listen = [\"127.0.0.1:443\"]\n", "`plain_listen`"),
        ("listen = [\"0.0.0.0:8443\"]\nloopback_http = \"127.0.0.1:8443\"\n", "`loopback_http`"),
        ("plain_listen = [\"[::]:8080\"]\nloopback_http = \"127.0.0.1:8080\"\n", "`loopback_http`"),
        ("loopback_http = \"127.0.0.1:4433\"\n", "`loopback_http`"),
        ("[[site]]\nnames = [\"a\"]\nroot = \"/nowhere/at/all\"\n", "/nowhere/at/all"),
        ("[[site]]\nnames = [\"a\"]\nproxy = \"http://127.0.0.1:4433\"\n", "this endpoint itself"),
    ] {
        fs::write(machine.file("endpoint.toml"), config).unwrap();
        for words in [&["config", "check"][..], &["serve"]] {
            let said = machine.run(words);
            assert_eq!(said.code(), 2, "{words:?} {config}: {said:?}");
            assert!(said.err.contains(says), "{words:?} {config}: {said:?}");
        }
    }
}
