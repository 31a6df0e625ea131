//! Silence in each phase and over each protocol outlasts no deadline.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Endpoint, Limits, TlsIdentity,
    handler::{Echo, Ping},
    http::{PlainOptions, serve_plain},
};
use endpoint_tests::{node::identity, until, within};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    ALONE,
    kinds::{Held, Kind, Stage},
    tolerance,
};

const FIRST_BYTE: Duration = Duration::from_millis(1000);
const HANDSHAKE: Duration = Duration::from_millis(2000);
const FIRST_REQUEST: Duration = Duration::from_millis(1200);
const IDLE: Duration = Duration::from_millis(1500);
/// Longer than any of these; whatever ends at one of them is not there any more.
const MORE: Duration = Duration::from_secs(1);
/// How much sooner than its deadline a silence may end, because the client's clock starts later than the server's.
fn early() -> Duration {
    Duration::from_millis(if endpoint_tests::long() { 500 } else { 900 })
}
/// Far away.
const OFF: Duration = Duration::from_secs(3600);

fn short() -> Limits {
    Limits::default()
        .first_byte_deadline(FIRST_BYTE)
        .handshake_deadline(HANDSHAKE)
        .first_request_deadline(FIRST_REQUEST)
        .stranger_idle(IDLE)
}

fn off() -> Limits {
    Limits::default()
        .first_byte_deadline(OFF)
        .handshake_deadline(OFF)
        .first_request_deadline(OFF)
        .stranger_idle(OFF)
        .request_header_deadline(OFF)
}

/// A server of all protocols that strangers reach, with `limits`.
pub async fn server(limits: Limits) -> Endpoint {
    let answer = "an answer of some bytes";
    Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .server_name("localhost", TlsIdentity::SelfSigned)
        .limits(limits)
        .http(Access::Public, Router::new().route("/", get(move || async move { answer })))
        .handle(Alpn::ECHO_1, Access::Public, Echo)
        .handle(Alpn::PING_1, Access::Public, Ping)
        .discover()
        .authorized(AuthorizedPeers::from_text(&identity(2).fingerprint().to_string()).unwrap())
        .drain_deadline(Duration::from_secs(4))
        .bind()
        .await
        .unwrap()
}

async fn all(server: SocketAddr) -> Vec<(Kind, Stage, Held)> {
    let opened = Kind::ALL.map(|(kind, stage)| {
        Box::pin(async move {
            (kind, stage, within(20, &format!("{kind:?}"), kind.open(server, None)).await)
        })
    });
    join_all(opened).await
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_outlasts_no_deadline() {
    let _alone = ALONE.lock().await;
    let endpoint = server(short()).await;
    let address = endpoint.local_addrs()[0];
    let opened = Kind::ALL.map(|(kind, stage)| {
        Box::pin(async move {
            let Held { since, end } = kind.open(address, None).await;
            let limit = match stage {
                Stage::Byte => FIRST_BYTE,
                Stage::Handshake => HANDSHAKE,
                Stage::Request => FIRST_REQUEST,
                Stage::Idle => IDLE,
            };
            if kind != Kind::QuicHelloOnly {
                within(20, &format!("the end of {kind:?}"), end).await;
            }
            (kind, limit, since.elapsed())
        })
    });
    let ends = join_all(opened).await;
    let ends: Vec<_> = ends.into_iter().filter(|(kind, ..)| *kind != Kind::QuicHelloOnly).collect();
    let wrong: Vec<_> = ends
        .iter()
        .filter(|(_, limit, lasted)| *lasted > *limit + tolerance() || *lasted + early() < *limit)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    until("nobody is left", || endpoint.connections().is_empty()).await;
    // Byte and handshake, over TCP, and the one over QUIC.
    until("handshakes failed", || endpoint.counters().handshake_failures == 5).await;
    let late = ends.iter().map(|(_, limit, lasted)| lasted.saturating_sub(*limit)).max();
    println!(
        "acceptance: silence over {} pairs of phase and protocol ended, the latest {:?} after its \
         deadline; and one more, which is counted",
        ends.len(),
        late.unwrap_or_default()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_deadlines_silence_lives_on() {
    let _alone = ALONE.lock().await;
    let endpoint = server(off()).await;
    let mut held = all(endpoint.local_addrs()[0]).await;
    // Longer than any may last where the deadlines hold.
    tokio::time::sleep(HANDSHAKE + IDLE + tolerance()).await;
    for (kind, _, held) in &mut held {
        let ended = futures_util::FutureExt::now_or_never(&mut held.end);
        assert!(ended.is_none(), "{kind:?} ended all the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_grant_may_be_silent() {
    let _alone = ALONE.lock().await;
    let endpoint = server(short()).await;
    let address = endpoint.local_addrs()[0];
    let kinds = [Kind::EchoNoStream, Kind::EchoSilentStream, Kind::PingSilentStream, Kind::EchoTcp];
    let opened =
        kinds.map(|kind| Box::pin(async move { (kind, kind.open(address, Some(2)).await) }));
    let mut held = join_all(opened).await;
    tokio::time::sleep(FIRST_REQUEST + IDLE + MORE).await;
    for (kind, held) in &mut held {
        let ended = futures_util::FutureExt::now_or_never(&mut held.end);
        assert!(ended.is_none(), "{kind:?} ended");
    }
    assert_eq!(endpoint.connections().len(), kinds.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_listeners_have_the_same_deadlines() {
    let _alone = ALONE.lock().await;
    for (limits, ends) in [(short(), true), (off(), false)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let (options, never) = (PlainOptions::default(), std::future::pending());
        let serving = serve_plain(listener, router, &options, &limits, never).unwrap();
        let serving = tokio::spawn(serving);
        let patience = IDLE + if ends { tolerance() } else { MORE };
        let begun: [&[u8]; 3] = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"];
        let lasts = begun.map(|begun| {
            Box::pin(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let since = Instant::now();
                stream.write_all(begun).await.unwrap();
                let reading = async {
                    let mut read = Vec::new();
                    let _ = stream.read_to_end(&mut read).await;
                };
                let ended = tokio::time::timeout(patience, reading).await;
                ended.is_ok().then(|| since.elapsed())
            })
        });
        for (begun, lasted) in begun.iter().zip(join_all(lasts).await) {
            assert_eq!(lasted.is_some(), ends, "{begun:?}: {lasted:?}");
        }
        serving.abort();
    }
}
