//! A certificate for loopback only is seen from loopback only, whatever is tried.

use std::sync::Arc;

use rustls::{client::Resumption, server::ParsedCertificate};

use super::{resume::Ends, *};
use crate::facts::Carrier;

/// A shared bundle under one name and as the default, an ordinary certificate under another.
fn server(expected: bool) -> Arc<TlsServer> {
    let mut names = Names::default();
    if expected {
        names.expect_loopback();
    }
    names.insert(["a.example"], Served::X509(p256(&["a.example"]))).unwrap();
    let shared = Served::Loopback(p256(&["shared.example"]));
    names.insert(["shared.example", "*.shared.example"], shared.clone()).unwrap();
    names.set_default(shared);
    server_with(names, TcpMinimum::Tls12)
}

/// What a browser is shown: whether it is good for that name, or the alert.
fn shown(
    server: &TlsServer,
    reach: Reach,
    carrier: Carrier,
    name: Option<&'static str>,
) -> Result<&'static str, u8> {
    let alpn = if carrier == Carrier::Quic { "h3" } else { "h2" };
    let client = Client::new(KeyKind::X509, &[alpn]).sni(name);
    let config = Arc::new(client.config().0);
    let ends = Ends::shake_from(reach, server, &config, &client, carrier);
    let ends = ends.map_err(|alert| alert.code())?;
    let leaf = ends.client.peer_certificates().unwrap()[0].clone();
    let leaf = ParsedCertificate::try_from(&leaf).unwrap();
    let good = |name: &'static str| {
        rustls::client::verify_server_name(&leaf, &name.try_into().unwrap()).is_ok()
    };
    Ok(["a.example", "shared.example"].into_iter().find(|name| good(name)).unwrap())
}

#[test]
fn is_shown_within_the_machine_and_refused_beyond() {
    let server = server(true);
    const UNRECOGNIZED: Result<&str, u8> = Err(112);
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        for name in [Some("shared.example"), Some("x.shared.example"), Some("other.example"), None]
        {
            let inside = shown(&server, Reach::Loopback, carrier, name);
            assert_eq!(inside, Ok("shared.example"), "{carrier} {name:?}");
            let beyond = shown(&server, Reach::Everywhere, carrier, name);
            assert_eq!(beyond, UNRECOGNIZED, "{carrier} {name:?}");
        }
        for reach in [Reach::Loopback, Reach::Everywhere] {
            assert_eq!(shown(&server, reach, carrier, Some("a.example")), Ok("a.example"));
        }
    }
}

#[test]
fn is_shown_to_nobody_if_it_was_not_announced() {
    let server = server(false);
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        for reach in [Reach::Loopback, Reach::Everywhere] {
            assert!(shown(&server, reach, carrier, Some("a.example")).is_ok());
            assert_eq!(shown(&server, reach, carrier, Some("shared.example")), Err(112));
        }
    }
}

#[test]
fn a_ticket_from_within_is_of_no_use_beyond() {
    let server = server(true);
    for name in ["a.example", "shared.example"] {
        let client = Client::new(KeyKind::X509, &["h2"]).sni(Some(name));
        let mut config = client.config().0;
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let shake = |reach| Ends::shake_from(reach, &server, &config, &client, Carrier::Tcp);
        assert!(!shake(Reach::Loopback).unwrap().resumed());
        assert!(shake(Reach::Loopback).unwrap().resumed(), "within, it resumes");
        match shake(Reach::Everywhere) {
            Ok(ends) => assert!(name == "a.example" && !ends.resumed()),
            Err(alert) => assert!(name == "shared.example" && alert.code() == 112),
        }
    }
}

#[tokio::test]
async fn quinn_s_configurations_tell_them_apart() {
    let server = server(true);
    let client = Client::new(KeyKind::X509, &["h3"]).sni(Some("shared.example"));
    let shake = |reach| {
        shake(server.quic(reach, RetirementRate::per_minute(16)), client.config().0, client.name())
    };
    assert!(shake(Reach::Loopback).await.is_ok());
    assert_eq!(shake(Reach::Everywhere).await.err().unwrap().alert(), 112);
}
