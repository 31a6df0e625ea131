//! The program's web server: a folder, an upstream, sites, plain HTTP.

use std::{fs, net::SocketAddr, path::PathBuf};

use axum::body::Bytes;
use endpoint_tests::{
    http::{Answer, VERSIONS, connect, fetch, get},
    machine::{Machine, Server},
    node::identity,
    ports::free_address,
    wire::{Client, Shown},
    within,
};
use http::{Request, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{trailers, upstream::Upstream};

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"))
}

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

fn address(server: &Server) -> SocketAddr {
    server.address().parse().unwrap()
}

/// A folder beside the state with these files, and a secret beside it.
fn folder(machine: &Machine, files: &[(&str, &[u8])]) -> PathBuf {
    let root = machine.state().parent().unwrap().join("www");
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    root
}

async fn ask(version: Version, server: &Server, request: Request<Bytes>) -> Answer {
    fetch(version, address(server), "localhost", &browser(), request).await.unwrap()
}

fn with(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_served_as_files_are() {
    let machine = machine();
    let text = "text ".repeat(1000);
    let root = folder(
        &machine,
        &[
            ("index.html", b"<h1>hi</h1>"),
            ("a.txt", text.as_bytes()),
            ("sub/b.css", b"body{}"),
            ("pre.js", b"plain"),
            ("pre.js.gz", b"zipped"),
            (".hidden", b"secret"),
            (".well-known/x", b"known"),
        ],
    );
    let server = machine.serve_with(&["--root", root.to_str().unwrap()]);
    for version in VERSIONS {
        let get = |path: &str| get("localhost", path);
        let index = ask(version, &server, get("/")).await;
        assert_eq!((index.status.as_u16(), index.text().as_str()), (200, "<h1>hi</h1>"));
        assert!(index.field("content-type").starts_with("text/html"));
        assert_eq!(index.field("x-content-type-options"), "nosniff");
        let part = ask(version, &server, with(get("/a.txt"), "range", "bytes=5-8")).await;
        assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "text"));
        assert_eq!(part.field("content-range"), "bytes 5-8/5000");
        let tag = index.field("etag").to_owned();
        let again = ask(version, &server, with(get("/"), "if-none-match", &tag)).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
        let squeezed = ask(version, &server, with(get("/a.txt"), "accept-encoding", "gzip")).await;
        assert_eq!(squeezed.field("content-encoding"), "gzip");
        assert!(squeezed.body.len() < 500, "{}", squeezed.body.len());
        let kept = ask(version, &server, with(get("/pre.js"), "accept-encoding", "gzip")).await;
        assert_eq!((kept.text().as_str(), kept.field("content-encoding")), ("zipped", "gzip"));
        assert_eq!(ask(version, &server, get("/pre.js")).await.text(), "plain");
        assert_eq!(ask(version, &server, get("/.hidden")).await.status, StatusCode::NOT_FOUND);
        assert_eq!(ask(version, &server, get("/.well-known/x")).await.text(), "known");
        assert!(ask(version, &server, get("/sub/")).await.text().contains("b.css"));
        let gone = ask(version, &server, get("/none")).await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND);
        assert!(gone.text().contains(gone.field("x-request-id")), "{gone:?}");
        let mut post = get("/");
        *post.method_mut() = http::Method::POST;
        let refused = ask(version, &server, post).await;
        assert_eq!((refused.status.as_u16(), refused.field("allow")), (405, "GET, HEAD"));
        let mut head = get("/a.txt");
        *head.method_mut() = http::Method::HEAD;
        let head = ask(version, &server, head).await;
        assert_eq!((head.field("content-length"), head.body.len()), ("5000", 0));
    }
}

/// A raw request over TLS, for paths that no client library sends.
async fn raw(server: &Server, target: &str) -> String {
    let client = browser().offering(&[b"http/1.1"]);
    let mut stream = client.dial_tcp("127.0.0.1", address(server), "localhost", b"").await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(10, "an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_folder() {
    let machine = machine();
    let root = folder(&machine, &[("index.html", b"in"), ("sub/x", b"in")]);
    let canary = "canary-outside-of-the-root";
    fs::write(root.parent().unwrap().join("secret"), canary).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    let server = machine.serve_with(&["--root", root.to_str().unwrap()]);
    let parts = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "..%2f",
        "..%5c",
        "..\\",
        "%252e%252e",
        "....",
        "sub",
        "link",
        "up",
        "%00",
        ".",
        "",
        "%c0%ae%c0%ae",
        "..;",
        "sub/..",
    ];
    let mut state = 7_u64;
    let mut next = |below: usize| {
        // A linear congruential generator: the same paths each time.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let count = endpoint_tests::count(400, 5000);
    let mut http3 =
        connect(Version::HTTP_3, address(&server), "localhost", &browser()).await.unwrap();
    for number in 0..count {
        let mut path = String::new();
        for _ in 0..=next(5) {
            path.push('/');
            path.push_str(parts[next(parts.len())]);
        }
        path.push_str(["/secret", "/../secret", "/etc/passwd", "secret", ""][next(5)]);
        if number % 4 == 0 {
            let answer = raw(&server, &path).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
            assert!(!answer.contains(canary) && !answer.contains("root:"), "{path}: {answer}");
        } else if let Ok(uri) = format!("https://localhost{path}").parse::<http::Uri>() {
            let request = Request::get(uri).body(Bytes::new()).unwrap();
            if let Ok(answer) = http3.send(request).await {
                let text = answer.text();
                assert!(!text.contains(canary) && !text.contains("root:"), "{path}: {text}");
            }
        }
    }
    println!("acceptance: {count} generated paths, the file outside never read");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_handshake_and_request_belong_to_one_site() {
    let machine = machine();
    let config = "[[site]]\nnames = [\"localhost\", \"a.example\"]\n\
                  [[site]]\nnames = [\"b.example\"]\nredirect = \"https://elsewhere.example\"\n\
                  [[site]]\nnames = [\"*.c.example\"]\n";
    let file = machine.state().parent().unwrap().join("sites.toml");
    fs::write(&file, config).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    // SNI, host, status for a browser, status for a raw-key peer.
    let rows = [
        ("localhost", "localhost", 200, 200),
        ("localhost", "a.example", 200, 200),
        ("a.example", "localhost", 200, 200),
        ("localhost", "A.EXAMPLE.", 200, 200),
        ("localhost", "a.example:4433", 200, 200),
        ("localhost", "b.example", 421, 308),
        ("b.example", "b.example", 308, 308),
        ("b.example", "localhost", 421, 200),
        ("x.c.example", "x.c.example", 200, 200),
        ("x.c.example", "y.c.example", 200, 200),
        ("x.c.example", "c.example", 421, 421),
        ("x.c.example", "x.y.c.example", 421, 421),
        ("unknown.example", "unknown.example", 421, 421),
        ("unknown.example", "localhost", 200, 200),
        ("localhost", "127.0.0.1", 421, 200),
        ("localhost", "evil.test", 421, 421),
    ];
    let peer = Client::new(&[]).showing(Shown::raw(3));
    for version in VERSIONS {
        for (sni, host, of_browser, of_peer) in rows {
            for (client, expected) in [(browser(), of_browser), (peer.clone(), of_peer)] {
                let answer = fetch(version, address(&server), sni, &client, get(host, "/")).await;
                let status = answer.map(|answer| answer.status.as_u16());
                assert_eq!(status, Ok(expected), "{version:?} {sni} {host}");
            }
        }
    }
    println!("acceptance: {} pairs of SNI and host over 3 versions, browser and peer", rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_learns_who_asks_and_nobody_can_forge_it() {
    let upstream = Upstream::start();
    let machine = machine();
    let key = identity(5).fingerprint().to_string();
    let add = ["trust", "add", &key, "--option", "name=bob", "--option", "scope=ops"];
    assert_eq!(machine.run(&add).code(), 0);
    let server = machine.serve_with(&["--proxy", &format!("http://{}", upstream.address)]);
    let peer = Client::new(&[]).showing(Shown::raw(5));
    let forged = [
        "endpoint-peer",
        "endpoint_peer",
        "endpoint-peer-name",
        "endpoint-peer_name",
        "endpoint_peer_name",
        "endpoint-peer-scope",
        "endpoint_peer_scope",
        "endpoint-peer-x",
    ];
    let mut cells = 0;
    for version in VERSIONS {
        for name in forged {
            for (client, known) in [(browser(), false), (peer.clone(), true)] {
                let mut request = get("localhost", "/x?y=1");
                request.headers_mut().append(name, "forged".parse().unwrap());
                request.headers_mut().append(name, "forged again".parse().unwrap());
                request.headers_mut().insert("x-forwarded-for", "forged".parse().unwrap());
                request.headers_mut().insert("x-real-ip", "forged".parse().unwrap());
                request.headers_mut().insert("forwarded", "for=forged".parse().unwrap());
                if version == Version::HTTP_11 {
                    let tricks = "keep-alive, endpoint-peer, endpoint-peer-name, x-forwarded-for";
                    request.headers_mut().insert("connection", tricks.parse().unwrap());
                }
                let answer =
                    fetch(version, address(&server), "localhost", &client, request).await.unwrap();
                let text = answer.text();
                assert!(text.starts_with("GET /x?y=1\n"), "{text}");
                assert!(!text.contains("forged"), "{version:?} {name}: {text}");
                assert_eq!(text.contains(&format!("endpoint-peer: {key}\n")), known, "{text}");
                assert_eq!(text.contains("endpoint-peer-name: bob\n"), known, "{text}");
                assert_eq!(text.contains("endpoint-peer-scope: ops\n"), known, "{text}");
                assert!(text.contains("x-forwarded-for: 127.0.0.1\n"), "{text}");
                assert!(text.contains("x-forwarded-proto: https\n"), "{text}");
                assert!(text.contains("x-request-id: "), "{text}");
                cells += 1;
            }
        }
        // Trailers are read by many servers as if they were header fields.
        let forging = trailers::forged(version, address(&server)).await;
        assert!(!forging.contains("forged"), "{version:?}: {forging}");
    }
    println!(
        "acceptance: {cells} requests with forged fields, 0 forged identities at the upstream"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_is_told_as_such() {
    let upstream = Upstream::start();
    let machine = machine();
    let file = machine.state().parent().unwrap().join("proxy.toml");
    let config = format!(
        "[[site]]\nnames = [\"localhost\"]\nproxy = [\"http://{}\"]\n\
         [[site.route]]\npath = \"/hangs\"\ntimeout = \"300ms\"\n\
         [[site.route]]\npath = \"/small\"\nbody_limit = \"8B\"\n",
        upstream.address
    );
    fs::write(&file, config).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    for version in VERSIONS {
        let mut connection =
            connect(version, address(&server), "localhost", &browser()).await.unwrap();
        let (status, mut half) = connection.begin(get("localhost", "/breaks")).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{version:?}");
        assert_eq!(within(10, "half", half.next()).await.unwrap().unwrap(), "half");
        upstream.breaks.notify_one();
        let broken = within(10, "the break", half.next()).await;
        assert!(matches!(broken, Some(Err(_))), "{version:?}: {broken:?}");
        let late = ask(version, &server, get("localhost", "/hangs")).await;
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT, "{version:?}");
        assert!(late.text().contains("300ms") && late.text().contains(late.field("x-request-id")));
        let post = |body: &'static [u8]| {
            Request::post("https://localhost/small").body(Bytes::from_static(body)).unwrap()
        };
        assert_eq!(ask(version, &server, post(b"12345678")).await.status, StatusCode::OK);
        let large = ask(version, &server, post(b"123456789")).await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "{version:?}");
        assert!(large.text().contains("8 bytes"), "{large:?}");
    }
    upstream.end().await;
    for version in VERSIONS {
        let answer = ask(version, &server, get("localhost", "/x")).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{version:?}");
        assert!(answer.text().contains(answer.field("x-request-id")), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_reaches_sites_by_name_and_the_status_page_by_its_own() {
    let machine = machine();
    let server = machine.serve();
    let url = server.ready["urls"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
    let plain: SocketAddr =
        url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let port = plain.port();
    let ask = |target: String, host: Option<String>, more: &'static str| async move {
        let mut stream = tokio::net::TcpStream::connect(plain).await.unwrap();
        let host = host.map(|host| format!("Host: {host}\r\n")).unwrap_or_default();
        let request = format!("{target} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = within(10, "an answer", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    // Target, host, further fields; the status, and a word of the body.
    let own = format!("127.0.0.1:{port}");
    let rows: Vec<(String, Option<String>, &str, u16, &str)> = vec![
        ("GET /".into(), Some(own.clone()), "", 200, "fingerprint"),
        ("GET /".into(), Some(format!("localhost:{port}")), "", 200, "fingerprint"),
        ("GET /".into(), Some(format!("[::1]:{port}")), "", 200, "fingerprint"),
        ("GET /".into(), Some("endpoint.localhost".into()), "", 200, "fingerprint"),
        ("GET /metrics".into(), Some(own.clone()), "", 200, "endpoint_handshakes_total"),
        ("GET /status.json".into(), Some(own.clone()), "", 200, "\"certificates\""),
        ("GET http://localhost/".into(), Some("localhost".into()), "", 200, "It works"),
        (
            "GET http://endpoint.localhost/".into(),
            Some("endpoint.localhost".into()),
            "",
            200,
            "fingerprint",
        ),
        ("GET /".into(), Some("localhost".into()), "", 200, "It works"),
        ("GET /".into(), Some("evil.test".into()), "", 421, "not served"),
        ("GET /".into(), Some("127.0.0.1.nip.io".into()), "", 421, "not served"),
        ("GET /".into(), Some("127.0.0.1".into()), "", 421, "not served"),
        ("GET /".into(), Some(format!("127.0.0.1:{}", port ^ 1)), "", 421, "not served"),
        ("GET /".into(), Some(format!("evil.test:{port}")), "", 421, "not served"),
        ("GET http://evil.test/".into(), Some("evil.test".into()), "", 421, "not served"),
        ("GET http://evil.test/".into(), Some(own.clone()), "", 400, ""),
        ("GET /".into(), None, "", 400, ""),
        ("GET /".into(), Some(own.clone()), "Host: evil.test\r\n", 400, ""),
        ("CONNECT evil.test:443".into(), Some("evil.test:443".into()), "", 405, ""),
        ("CONNECT 127.0.0.1:22".into(), Some("127.0.0.1:22".into()), "", 405, ""),
        ("POST /".into(), Some(own.clone()), "Content-Length: 0\r\n", 405, ""),
        ("GET /events".into(), Some(own.clone()), "Sec-Fetch-Site: cross-site\r\n", 403, ""),
        ("GET /".into(), Some(own.clone()), "Sec-Fetch-Site: same-site\r\n", 403, ""),
        ("GET /".into(), Some(own.clone()), "Origin: http://evil.test\r\n", 403, ""),
        ("GET /".into(), Some(own.clone()), "Sec-Fetch-Site: none\r\n", 200, "fingerprint"),
    ];
    let count = rows.len();
    for (target, host, more, status, word) in rows {
        let answer = ask(target.clone(), host.clone(), more).await;
        let told = answer.get(9..12).unwrap_or("none");
        assert_eq!(told, status.to_string(), "{target} {host:?} {more:?}: {answer}");
        assert!(answer.contains(word), "{target} {host:?}: {answer}");
    }
    println!("acceptance: {count} targets and hosts on the loopback listener");
    // A command under the listener; its exit code is its own.
    let curl = |words: &[&str]| machine.run(&[&["run", "--"], words].concat()).code();
    assert_eq!(curl(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(curl(&["sh", "-c", "kill -9 $$"]), 137);
    assert_eq!(curl(&["/none/such"]), 127);
    assert_eq!(curl(&["/"]), 126);
    let check = format!("test \"$http_proxy\" = http://{plain} && test -z \"$NO_PROXY$ALL_PROXY\"");
    assert_eq!(curl(&["sh", "-c", &check]), 0);
    server.running.signal(rustix::process::Signal::TERM);
    assert_eq!(server.running.end().code(), 0);
    assert_eq!(curl(&["true"]), 125);
}

#[tokio::test(flavor = "multi_thread")]
async fn port_80_redirects_configured_names_and_nothing_else() {
    let machine = machine();
    let free = free_address();
    let file = machine.state().parent().unwrap().join("plain.toml");
    let config = format!(
        "plain_listen = [\"{free}\"]\nloopback_http = \"off\"\n[[site]]\nnames = [\"localhost\", \"*.a.example\"]\n"
    );
    fs::write(&file, config).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    assert_eq!(server.ready["urls"].as_array().unwrap().len(), 1);
    let port = server.port();
    for (host, path, expected) in [
        ("localhost", "/x?y", format!("https://localhost:{port}/x?y")),
        ("LOCALHOST:80", "//evil.test/", format!("https://localhost:{port}//evil.test/")),
        ("b.a.example", "/", format!("https://b.a.example:{port}/")),
        ("evil.test", "/", String::new()),
        ("127.0.0.1", "/", String::new()),
    ] {
        let mut stream = tokio::net::TcpStream::connect(free).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(10, "an answer", stream.read_to_string(&mut answer)).await.unwrap();
        let location = answer.lines().find_map(|line| line.strip_prefix("location: "));
        assert_eq!(location.unwrap_or_default(), expected, "{host} {path}: {answer}");
        let status = if expected.is_empty() { "421" } else { "308" };
        assert_eq!(answer.get(9..12), Some(status), "{host} {path}: {answer}");
    }
}
