//! Ends of connections that are no fault of the handler: all but those of its own making.

use std::time::Duration;

use endpoint_core::Limits;
use endpoint_tests::{
    http::{Connection, VERSIONS, connect, get},
    until,
    wire::{self, Client},
    within,
};
use http::{StatusCode, Version};
use tokio::io::AsyncWriteExt;

use crate::site::Site;

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

async fn gone(site: &Site, how: &str) {
    until(how, || site.endpoint.connections().is_empty()).await;
    let counters = site.endpoint.counters();
    assert_eq!((counters.handler_errors, counters.handler_panics), (0, 0), "{how}");
}

/// A connection on which a request was answered.
async fn used(site: &Site, version: Version) -> Connection {
    let mut connection = connect(version, site.addr(), "localhost", &browser()).await.unwrap();
    let answer = connection.send(get("localhost", "/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    connection
}

#[tokio::test]
async fn a_client_that_has_what_it_wanted_is_no_failure() {
    let site = Site::start("").await;
    for version in VERSIONS {
        let connection = used(&site, version).await;
        if let Connection::Http3 { quinn, .. } = &connection {
            quinn.close(0x100_u32.into(), b"");
        }
        drop(connection);
        gone(&site, &format!("{version:?}, a polite end")).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_is_no_failure() {
    let site = Site::start("").await;
    for version in VERSIONS {
        let mut connection = used(&site, version).await;
        let quinn = match &connection {
            Connection::Http3 { quinn, .. } => Some(quinn.clone()),
            _ => None,
        };
        let before = site.waits();
        let asking = tokio::spawn(async move {
            let _ = connection.send(get("localhost", "/waits")).await;
        });
        until("the handler runs", || site.waits() > before).await;
        if let Some(quinn) = quinn {
            // A code that nobody knows.
            quinn.close(0x7777_u32.into(), b"\x1b[2Jgone\n");
        }
        asking.abort();
        gone(&site, &format!("{version:?}, an end in the middle")).await;
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_is_no_failure() {
    let limits = Limits::default().idle_timeout(Duration::from_millis(500));
    let site = Site::start_with("", limits).await;
    let server = site.addr();
    let silenced = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection =
                connect(Version::HTTP_3, server, "localhost", &browser()).await.unwrap();
            connection.send(get("localhost", "/")).await.unwrap();
            connection
        });
        // Nothing is left that could send a close.
        drop(runtime);
        drop(connection);
    });
    let joined = tokio::task::spawn_blocking(move || silenced.join());
    within(10, "the client", joined).await.unwrap().unwrap();
    assert_eq!(site.endpoint.counters().permitted, 1);
    gone(&site, "silence").await;
}

#[tokio::test]
async fn a_breach_by_the_client_is_no_failure_and_gets_its_code() {
    let site = Site::start("").await;
    let socket = wire::socket();
    // Of the client's first unidirectional stream: the code that it earns.
    let rows: [(&[u8], u64); 3] = [
        // SETTINGS with a setting that is reserved: H3_SETTINGS_ERROR.
        (&[0x00, 0x04, 0x02, 0x02, 0x00], 0x109),
        // DATA on the control stream.
        (&[0x00, 0x00, 0x01, 0x00], 0x10a),
        // A push stream from a client: H3_STREAM_CREATION_ERROR.
        (&[0x01, 0x00], 0x103),
    ];
    for (bytes, code) in rows {
        let client = browser().offering(&[b"h3"]);
        let quinn = client.dial(&socket, site.addr(), "localhost").await.unwrap();
        let mut send = quinn.open_uni().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let closed = within(10, "the server's close", quinn.closed()).await;
        assert_eq!(wire::close_code(&closed), Some(code), "{bytes:?}");
        gone(&site, "a breach").await;
    }
    for (alpn, served) in [(&b"h2"[..], 4), (b"http/1.1", 5)] {
        let client = browser().offering(&[alpn]);
        let mut stream = client.dial_tcp("127.0.0.1", site.addr(), "localhost", b"").await.unwrap();
        stream.write_all(b"\x00\xff no request \r\n\r\n").await.unwrap();
        until("the connection was served", || site.endpoint.counters().permitted == served).await;
        gone(&site, "garbage").await;
    }
}

#[tokio::test]
async fn an_end_of_ours_is_no_failure() {
    let site = Site::start("").await;
    let mut connections = Vec::new();
    for version in VERSIONS {
        connections.push(used(&site, version).await);
        // One on which nothing was asked yet.
        connections.push(connect(version, site.addr(), "localhost", &browser()).await.unwrap());
    }
    until("all are served", || site.endpoint.counters().permitted == 6).await;
    within(20, "the drain", site.endpoint.shutdown()).await;
    gone(&site, "a drain").await;
    assert_eq!(connections.len(), 6);
}
