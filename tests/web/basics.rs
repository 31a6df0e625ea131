//! One service over three versions: what a client of each sees.

use bytes::Bytes;
use endpoint_tests::{
    http::{VERSIONS, connect, fetch, get},
    wire::{Client, Shown},
};
use http::{Request, StatusCode, Version};

use crate::site::Site;

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(format!("https://localhost{path}")).body(body.into()).unwrap()
}

#[tokio::test]
async fn every_version_gets_the_same_bytes() {
    let site = Site::start("").await;
    for version in VERSIONS {
        let mut connection = connect(version, site.addr(), "localhost", &browser()).await.unwrap();
        // Several requests on one connection.
        for _ in 0..3 {
            let answer = connection.send(get("localhost", "/")).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "Hello, World!"));
            assert_eq!(answer.field("content-length"), "13", "{version:?}");
            assert!(answer.field("date").ends_with(" GMT"), "{version:?}");
            let alt_svc = if version == Version::HTTP_3 { "" } else { "h3=\":443\"; ma=86400" };
            assert_eq!(answer.field("alt-svc"), alt_svc, "{version:?}");
        }
    }
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let site = Site::start("").await;
    let large = Bytes::from(vec![7_u8; 3 << 20]);
    for version in VERSIONS {
        let mut connection = connect(version, site.addr(), "localhost", &browser()).await.unwrap();
        let echoed = connection.send(post("/echo", &b"ping"[..])).await.unwrap();
        assert_eq!(echoed.text(), "ping", "{version:?}");
        let counted = connection.send(post("/length", large.clone())).await.unwrap();
        assert_eq!(counted.text(), large.len().to_string(), "{version:?}");
        // axum's own limit for `Bytes` is 2 MB: an early answer to a body that goes on.
        let refused = connection.send(post("/echo", large.clone())).await;
        let status = refused.map(|answer| answer.status);
        assert!(
            matches!(status, Ok(StatusCode::PAYLOAD_TOO_LARGE)) || version == Version::HTTP_11,
            "{version:?}: {status:?}"
        );
    }
}

#[tokio::test]
async fn trailers_arrive() {
    let site = Site::start("").await;
    for version in VERSIONS {
        let mut request = get("localhost", "/trailers");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = fetch(version, site.addr(), "localhost", &browser(), request).await.unwrap();
        assert_eq!(answer.text(), "body", "{version:?}");
        // HTTP/1.1 sends them only where `trailer` announced them.
        if version != Version::HTTP_11 {
            assert_eq!(answer.trailers.unwrap().get("x-sum").unwrap(), "42", "{version:?}");
        }
    }
}

#[tokio::test]
async fn half_an_answer_never_looks_whole() {
    let site = Site::start("").await;
    for version in VERSIONS {
        let answer =
            fetch(version, site.addr(), "localhost", &browser(), get("localhost", "/fails")).await;
        assert!(answer.is_err(), "{version:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_request() {
    let site = Site::start("").await;
    for version in VERSIONS {
        let mut connection = connect(version, site.addr(), "localhost", &browser()).await.unwrap();
        let failed = connection.send(get("localhost", "/panics")).await;
        let status = failed.map(|answer| answer.status);
        assert!(
            matches!(status, Err(_) | Ok(StatusCode::INTERNAL_SERVER_ERROR)),
            "{version:?}: {status:?}"
        );
        if version == Version::HTTP_11 {
            connection = connect(version, site.addr(), "localhost", &browser()).await.unwrap();
        }
        let answer = connection.send(get("localhost", "/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{version:?}");
    }
}

#[tokio::test]
async fn a_raw_key_is_known_to_the_handler() {
    let site = Site::start("").await;
    let peer = Client::new(&[]).showing(Shown::raw(5));
    let key = endpoint_tests::node::identity(5).fingerprint().to_string();
    for version in VERSIONS {
        let who = |client: Client| {
            let addr = site.addr();
            async move {
                fetch(version, addr, "localhost", &client, get("localhost", "/who"))
                    .await
                    .unwrap()
                    .text()
            }
        };
        assert_eq!(who(peer.clone()).await, key, "{version:?}");
        assert_eq!(who(peer.clone().wants_x509()).await, key, "{version:?}");
        assert_eq!(who(Client::new(&[])).await, "nobody", "{version:?}");
        assert_eq!(who(browser()).await, "nobody", "{version:?}");
    }
}

#[tokio::test]
async fn malformed_requests_reach_no_handler() {
    let site = Site::start("").await;
    // hyper's client drops such a `te` itself.
    for (version, name, value) in [
        (Version::HTTP_3, "te", "gzip"),
        (Version::HTTP_3, "host", "other"),
        (Version::HTTP_2, "host", "other"),
    ] {
        {
            let mut connection =
                connect(version, site.addr(), "localhost", &browser()).await.unwrap();
            let mut request = get("localhost", "/public");
            request.headers_mut().insert(name, value.parse().unwrap());
            let status = connection.send(request).await.map(|answer| answer.status);
            assert!(
                matches!(status, Err(_) | Ok(StatusCode::BAD_REQUEST)),
                "{version:?} {name}: {status:?}"
            );
        }
    }
    assert_eq!(site.calls(), 0);
}
