//! Does the death of each part have the end that it should?

use tokio::time::timeout;

use super::*;
use crate::{Access, Alpn, AuthorizedPeers, Identity, handler::Echo};

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

async fn bound() -> Endpoint {
    let peers = AuthorizedPeers::from_text(&format!("{}\n", identity(2).fingerprint())).unwrap();
    Endpoint::builder(identity(1))
        .listen("127.0.0.1:0".parse().unwrap())
        .authorized(peers)
        .handle(Alpn::ECHO_1, Access::default(), Echo)
        .bind()
        .await
        .unwrap()
}

/// Makes a part of the endpoint panic and waits until its supervisor has said so.
async fn kill(endpoint: &Endpoint, part: Part) {
    let mut events = endpoint.events();
    endpoint.0.shared.deaths.cause(part);
    let told = async {
        loop {
            if let Event::PartFailed { part: died, reason } = events.recv().await.unwrap() {
                assert_eq!(reason, "it panicked: a test wanted it\\n");
                return died;
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(10), told).await.unwrap(), part);
}

async fn dial(endpoint: &Endpoint) -> Result<crate::Connection, crate::ConnectError> {
    let (key, at) = (endpoint.fingerprint(), endpoint.local_addrs()[0]);
    let target: crate::Target = format!("peer://{}@{at}", key.hex()).parse().unwrap();
    let dialler = Endpoint::builder(identity(2)).bind().await.unwrap();
    dialler.connect(&target, Alpn::ECHO_1).await
}

#[tokio::test]
async fn the_death_of_the_watch_lets_nobody_in_and_ends_who_is_there() {
    let endpoint = bound().await;
    let live = dial(&endpoint).await.unwrap();
    let alarms = endpoint.counters().trust_alarms;
    kill(&endpoint, Part::TrustWatch).await;
    timeout(Duration::from_secs(10), live.closed()).await.unwrap();
    assert!(dial(&endpoint).await.is_err());
    let counters = endpoint.counters();
    assert_eq!((counters.task_failures, counters.trust_alarms), (1, alarms + 1));
    // A reload does not bring back what nobody watches.
    assert_eq!(endpoint.reload().await.grants, 0);
    let problems = endpoint.0.shared.peers.problems();
    assert!(problems[0].contains("so nobody is let in; restart the program"), "{problems:?}");
}

/// The twin: a task that nobody supervises dies without a word.
#[tokio::test]
async fn without_a_supervisor_the_set_outlives_its_watch() {
    let endpoint = bound().await;
    let shared = Arc::clone(&endpoint.0.shared);
    let unwatched = tokio::spawn(async move {
        tokio::select! {
            () = shared.deaths.of(Part::CertificateHelper) => {}
            () = std::future::pending() => {}
        }
    });
    endpoint.0.shared.deaths.cause(Part::CertificateHelper);
    assert!(unwatched.await.unwrap_err().is_panic());
    assert!(dial(&endpoint).await.is_ok());
    assert_eq!(endpoint.counters().task_failures, 0);
}

/// Kills the loop that accepts on a carrier.
async fn ends_the_endpoint(part: Part) {
    let endpoint = bound().await;
    let live = dial(&endpoint).await.unwrap();
    kill(&endpoint, part).await;
    let failure = timeout(Duration::from_secs(10), endpoint.failed()).await.unwrap();
    assert_eq!(failure.part, part);
    assert!(failure.to_string().contains("connections ended: it panicked"), "{failure}");
    timeout(Duration::from_secs(10), live.closed()).await.unwrap();
}

#[tokio::test]
async fn the_death_of_the_loop_that_accepts_quic_ends_the_endpoint() {
    ends_the_endpoint(Part::AcceptQuic).await;
}

#[cfg(feature = "tcp")]
mod over_tcp {
    use super::*;

    #[tokio::test]
    async fn the_death_of_the_loop_that_accepts_tcp_ends_the_endpoint() {
        ends_the_endpoint(Part::AcceptTcp).await;
    }
}

#[tokio::test]
async fn the_driver_and_the_pacing_begin_anew() {
    let endpoint = bound().await;
    for part in [Part::Admission, Part::Certificates, Part::Pacing] {
        for _ in 0..2 {
            // The second waits for the part to be there again.
            kill(&endpoint, part).await;
        }
    }
    let live = dial(&endpoint).await.unwrap();
    assert_eq!(endpoint.revoke(&identity(2).fingerprint()), Some(1));
    timeout(Duration::from_secs(10), live.closed()).await.unwrap();
    assert_eq!(endpoint.counters().task_failures, 6);
}

#[tokio::test]
async fn an_endpoint_that_is_shut_down_has_no_dead_parts() {
    let endpoint = bound().await;
    let mut events = endpoint.events();
    endpoint.shutdown().await;
    // Every part is over when the endpoint alone holds what they held.
    let over = async {
        while Arc::strong_count(&endpoint.0.shared) > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), over).await.unwrap();
    assert_eq!(endpoint.counters().task_failures, 0);
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::PartFailed { .. }), "{event:?}");
    }
    assert!(endpoint.failed().now_or_never().is_none());
}

#[tokio::test]
async fn nothing_is_left_of_an_endpoint_that_ended() {
    let endpoint = bound().await;
    let shared = Arc::downgrade(&endpoint.0.shared);
    endpoint.shutdown().await;
    drop(endpoint);
    let gone = async {
        while shared.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
}
