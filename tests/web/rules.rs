//! Rules of routes, and ways around them.

use std::{fs, net::SocketAddr};

use axum::{Router, body::Bytes, routing::get};
use endpoint_tests::{
    http::{VERSIONS, connect, fetch, get as asking},
    machine::Machine,
    wire::Client,
    within,
};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

/// A server behind the proxy: tells when `/hold` is asked, and answers everything else at once.
async fn upstream() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, asking) = mpsc::unbounded_channel();
    let hold = move || {
        let _ = asked.send(());
        std::future::pending::<&str>()
    };
    let told = |headers: http::HeaderMap| async move { format!("{headers:?}") };
    let router = Router::new()
        .route("/hold", get(hold))
        .route("/headers", get(told))
        .fallback(|| async { "reached" });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asking)
}

/// The program with one proxy site and these routes.
fn proxied(upstream: SocketAddr, routes: &str) -> (Machine, endpoint_tests::machine::Server) {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let file = machine.file("rules.toml");
    let site = format!("[[site]]\nnames = [\"localhost\"]\nproxy = [\"http://{upstream}\"]\n");
    fs::write(&file, site + routes).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    (machine, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_leads_around_its_rule() {
    let (upstream, _asked) = upstream().await;
    let (_machine, server) = proxied(
        upstream,
        "[[site.route]]\npath = \"/admin/\"\naccess = \"peer\"\n\
         [[site.route]]\npath = \"/closed\"\naccess = \"peer\"\n\
         [[site.route]]\npath = \"/closed/health\"\naccess = \"public\"\n\
         [[site.route]]\npath = \"/case\"\naccess = \"loopback\"\n\
         [[site.route]]\npath = \"/CASE\"\naccess = \"peer\"\n",
    );
    let address: SocketAddr = server.address().parse().unwrap();
    let refused = [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin/x",
        "/admin;v=1/x",
        "/admin%3bv=1/x",
        "/admin;/x",
        "/admin?x",
        "/ADMIN/x",
        "/Admin",
        "/closed/health;/x",
        "/closed/health%3b/x",
        "/closed;/health",
        "/CASE/x",
        "//admin/x",
        "/x/../admin/x",
        "/x/%2e%2e/admin/x",
        "/x/..;/admin/x",
        "/x/..%3b/admin/x",
        "/.;/admin/x",
        "/;/admin/x",
        "/x/..%2fadmin/x",
        "/x\\..\\admin\\x",
        "/admin%2fx",
        "/admin%00",
    ];
    for version in VERSIONS {
        for path in refused {
            let Ok(request) =
                http::Request::builder().uri(format!("https://localhost{path}")).body(Bytes::new())
            else {
                continue;
            };
            let answer = fetch(version, address, "localhost", &browser(), request).await;
            let Ok(answer) = answer else { continue };
            let status = answer.status;
            let no = status == StatusCode::FORBIDDEN || status == StatusCode::BAD_REQUEST;
            assert!(no, "{version:?} {path}: {status} {}", answer.text());
        }
        let open = asking("localhost", "/adm");
        let open = fetch(version, address, "localhost", &browser(), open).await.unwrap();
        assert_eq!(open.text(), "reached");
        for path in ["/closed/health", "/closed/health/x", "/case/x", "/adm;v=1"] {
            let open = asking("localhost", path);
            let open = fetch(version, address, "localhost", &browser(), open).await.unwrap();
            assert_eq!(open.text(), "reached", "{path}");
        }
        // What tells another target than the one that was judged.
        let mut request = asking("localhost", "/headers");
        for name in ["x-original-url", "x_rewrite_url"] {
            request.headers_mut().insert(name, "/admin/x".parse().unwrap());
        }
        let told = fetch(version, address, "localhost", &browser(), request).await.unwrap();
        assert!(!told.text().contains("/admin/x"), "{}", told.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_its_rule_under_every_name() {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let root = machine.state().parent().unwrap().join("www");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::create_dir_all(root.join("list")).unwrap();
    let files = [
        "sub/index.html",
        "secret.txt",
        "secret.txt.gz",
        "open.txt",
        "open.txt.gz",
        "backup.sql.gz",
        "list/a",
    ];
    for name in files {
        fs::write(root.join(name), "content").unwrap();
    }
    let file = machine.file("files.toml");
    let text = format!(
        "[[site]]\nnames = [\"localhost\"]\nroot = {root:?}\n\
         [[site.route]]\npath = \"/sub/index.html\"\naccess = \"peer\"\n\
         [[site.route]]\npath = \"/secret.txt\"\naccess = \"peer\"\n\
         [[site.route]]\npath = \"/backup.sql.gz\"\naccess = \"peer\"\n\
         [[site.route]]\npath = \"/list\"\naccess = \"peer\"\n\
         [[site.route]]\npath = \"/list/index.html\"\naccess = \"public\"\n"
    );
    let text = text.replace(
        "\n[[site.route]]\npath = \"/sub",
        "\nlisting = true\n[[site.route]]\npath = \"/sub",
    );
    fs::write(&file, text).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let address: SocketAddr = server.address().parse().unwrap();
    let status = async |path: &str| {
        let mut request = asking("localhost", path);
        request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        fetch(VERSIONS[0], address, "localhost", &browser(), request).await.unwrap().status
    };
    for path in [
        "/sub/index.html",
        "/sub/",
        "/secret.txt",
        "/secret.txt.gz",
        "/SECRET.txt",
        "/backup.sql.gz",
        "/backup.sql",
        "/list/",
        "/list/a",
    ] {
        assert_eq!(status(path).await, StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/open.txt", "/open.txt.gz"] {
        assert_eq!(status(path).await, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_added_only_to_what_did_not_change() {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let root = machine.state().parent().unwrap().join("www");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("f"), "0123456789").unwrap();
    let server = machine.serve_with(&["--root", root.to_str().unwrap()]);
    let address: SocketAddr = server.address().parse().unwrap();
    let ask = async |condition: Option<&str>| {
        let mut request = asking("localhost", "/f");
        request.headers_mut().insert("range", "bytes=2-3".parse().unwrap());
        if let Some(condition) = condition {
            request.headers_mut().insert("if-range", condition.parse().unwrap());
        }
        fetch(VERSIONS[1], address, "localhost", &browser(), request).await.unwrap()
    };
    let part = ask(None).await;
    assert_eq!((part.status, part.text().as_str()), (StatusCode::PARTIAL_CONTENT, "23"));
    let (date, tag) = (part.field("last-modified").to_owned(), part.field("etag").to_owned());
    assert_eq!(ask(Some(&date)).await.text(), "23");
    for other in [tag.as_str(), "\"something else\"", "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"] {
        let whole = ask(Some(other)).await;
        assert_eq!(
            (whole.status, whole.text().as_str()),
            (StatusCode::OK, "0123456789"),
            "{other}"
        );
    }
}

/// A proxied connection changes to WebSocket and to nothing else: another protocol could carry requests.
#[tokio::test(flavor = "multi_thread")]
async fn no_protocol_is_changed_to_but_websocket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let (seen, mut heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let asked = head.to_ascii_lowercase().contains("\r\nupgrade:");
                let _ = seen.send(head);
                let answer: &[u8] = match asked {
                    true => {
                        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                              sec-websocket-accept: x\r\n\r\n"
                    }
                    false => b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                };
                let _ = stream.write_all(answer).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let (_machine, server) = proxied(upstream, "");
    let address: SocketAddr = server.address().parse().unwrap();
    let rows = [
        ("websocket", true),
        ("WebSocket", true),
        ("h2c", false),
        ("x, h2c", false),
        ("websocket, h2c", false),
        ("websocket\r\nUpgrade: h2c", false),
        ("TLS/1.0", false),
    ];
    for (protocol, changed) in rows {
        let client = browser().offering(&[b"http/1.1"]);
        let mut stream = client.dial_tcp("127.0.0.1", address, "localhost", b"").await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\nProxy: x\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(20, "an answer", stream.read_exact(&mut answer)).await.unwrap();
        let expected = if changed { "HTTP/1.1 101" } else { "HTTP/1.1 200" };
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{protocol}");
        let head = heads.recv().await.unwrap().to_ascii_lowercase();
        assert_eq!(head.contains("\r\nupgrade: websocket\r\n"), changed, "{head}");
        assert!(!head.contains("http2-settings") && !head.contains("\r\nproxy:"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_changes_nothing_on_this_machine() {
    let (upstream, _asked) = upstream().await;
    let (_machine, server) = proxied(
        upstream,
        "[[site.route]]\npath = \"/api\"\ncors = [\"https://app.example\"]\n\
         [[site.route]]\npath = \"/local\"\naccess = \"loopback\"\n",
    );
    let urls = server.ready["urls"].as_array().unwrap();
    let plain = urls.last().unwrap().as_str().unwrap();
    let plain = plain.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (_, port) = plain.rsplit_once(':').unwrap();
    let rows: [(&str, &str, &str, u16); 7] = [
        ("POST", "/x", "", 200),
        ("POST", "/x", "Origin: https://evil.example\r\n", 403),
        ("POST", "/x", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("GET", "/x", "Sec-Fetch-Site: cross-site\r\n", 200),
        (
            "GET",
            "/x",
            "Sec-Fetch-Site: cross-site\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
            403,
        ),
        ("POST", "/x", "Sec-Fetch-Site: same-origin\r\n", 200),
        ("POST", "/api", "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n", 200),
    ];
    for (method, path, fields, status) in rows {
        let mut stream = tokio::net::TcpStream::connect(&plain).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: site.localhost:{port}\r\n{fields}Content-Length: 0\r\n\r\n"
        );
        let request = request.replace("site.localhost", "localhost.");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(20, "an answer", stream.read_exact(&mut answer)).await.unwrap();
        let expected = format!("HTTP/1.1 {status}");
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{method} {path} {fields}");
    }
    let mut request = http::Request::post("https://localhost/local").body(Bytes::new()).unwrap();
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    let address = server.address().parse().unwrap();
    let answer = fetch(VERSIONS[0], address, "localhost", &browser(), request).await.unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "a rule that trusts the machine's address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_answers_so_many_requests_at_one_time_and_says_so() {
    let (upstream, mut asked) = upstream().await;
    let (_machine, server) = proxied(upstream, "[[site.route]]\npath = \"/hold\"\nrequests = 2\n");
    let address: SocketAddr = server.address().parse().unwrap();
    let mut held = Vec::new();
    for version in &VERSIONS[..2] {
        let mut connection = connect(*version, address, "localhost", &browser()).await.unwrap();
        held.push(tokio::spawn(async move {
            connection.send(asking("localhost", "/hold")).await.map(|answer| answer.status)
        }));
        within(20, "the upstream is asked", asked.recv()).await.unwrap();
    }
    for version in VERSIONS {
        let request = asking("localhost", "/hold");
        let answer = fetch(version, address, "localhost", &browser(), request).await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{version:?}");
        assert_eq!(answer.field("retry-after"), "1");
        assert!(answer.text().contains("2 requests at one time"), "{}", answer.text());
        let other = asking("localhost", "/x");
        let other = fetch(version, address, "localhost", &browser(), other).await.unwrap();
        assert_eq!(other.text(), "reached");
    }
    held.iter().for_each(tokio::task::JoinHandle::abort);
}
