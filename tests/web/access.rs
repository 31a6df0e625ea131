//! Routes that ask for more than the connection does.

use endpoint_tests::{
    http::{VERSIONS, connect, fetch, get},
    node::identity,
    wire::{Client, Shown},
    within,
};
use http::StatusCode;

use crate::site::Site;

fn line(n: u8, options: &str) -> String {
    format!("{options} {}\n", identity(n).fingerprint())
}

/// Every identity at every route over every version: the status that the rule says, and no handler call
/// without it.
#[tokio::test]
async fn requests_are_judged_by_their_route() {
    let peers = [
        line(2, ""),
        line(3, "scope=\"ops\""),
        line(4, "from=\"192.0.2.0/24\""),
        line(5, "expires=\"2020-01-01T00:00:00Z\""),
        line(6, "alpn=\"echo/1\""),
    ];
    let site = Site::start(&peers.concat()).await;
    let shown = |n| Client::new(&[]).showing(Shown::raw(n));
    // Who; whether peer routes let it in; whether the scope's does.
    let clients = [
        ("browser", Client::new(&[]).wants_x509(), false, false),
        ("keyless peer", Client::new(&[]), false, false),
        ("granted", shown(2), true, false),
        ("granted, name and key", shown(2).wants_x509(), true, false),
        ("with scope", shown(3), true, true),
        ("elsewhere", shown(4), false, false),
        ("expired", shown(5), false, false),
        ("other protocol", shown(6), false, false),
        ("unknown", shown(7), false, false),
        // A key in a certificate is an ambient credential: never asked for beside HTTP.
        ("certificate", Client::new(&[]).showing(Shown::x509(2)).wants_x509(), false, false),
    ];
    let (mut cells, mut served) = (0, 0);
    for version in VERSIONS {
        for (who, client, peer, scoped) in &clients {
            let routes =
                [("/public", true), ("/loopback", true), ("/peer", *peer), ("/scoped", *scoped)];
            for (route, allowed) in routes {
                let before = site.calls();
                let answer =
                    fetch(version, site.addr(), "localhost", client, get("localhost", route)).await;
                let status = answer.map(|answer| answer.status);
                let expected = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
                assert_eq!(status, Ok(expected), "{who} {route} {version:?}");
                assert_eq!(site.calls() - before, usize::from(allowed), "{who} {route}");
                cells += 1;
                served += usize::from(allowed);
            }
        }
    }
    println!("acceptance: {cells} cells over h3, h2 and h1: {served} served, 0 unauthorised");
}

#[tokio::test]
async fn a_revocation_cuts_off_what_is_being_answered() {
    for version in VERSIONS {
        let site = Site::start(&line(2, "")).await;
        let client = Client::new(&[]).showing(Shown::raw(2));
        let mut connection = connect(version, site.addr(), "localhost", &client).await.unwrap();
        let request = get("localhost", "/peer/events");
        let (status, mut events) = within(10, "the head", connection.begin(request)).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{version:?}");
        let first = within(10, "the first event", events.next()).await;
        assert_eq!(first.unwrap().unwrap(), "data: 1\n\n", "{version:?}");
        site.trust("").await;
        let cut = within(1, "the cut", events.next()).await;
        assert!(matches!(cut, Some(Err(_))), "{version:?}: {cut:?}");
        // The connection was open to everybody; its next request is judged anew.
        if version != http::Version::HTTP_11 {
            let again = connection.send(get("localhost", "/peer")).await.unwrap();
            assert_eq!(again.status, StatusCode::FORBIDDEN, "{version:?}");
            let public = connection.send(get("localhost", "/")).await.unwrap();
            assert_eq!(public.status, StatusCode::OK, "{version:?}");
        }
    }
}
