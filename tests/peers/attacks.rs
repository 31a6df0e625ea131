//! Attacks on identity. Each is also made on a stand-in that lacks the one defence, where it must
//! succeed: otherwise its failure here would show nothing.

mod race;

use std::{net::SocketAddr, time::Duration};

use data_encoding::HEXLOWER;
use endpoint_tests::{
    count,
    node::{self, Server},
    wire::{self, Client, Shown},
};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use endpoint_tests::weak::{Form, Weak, Weakness};

const VICTIM: u8 = 2;
const THIEF: u8 = 9;

fn victim() -> String {
    format!("{}\n", node::identity(VICTIM).fingerprint())
}

/// Asks for one echo as a peer; what goes wrong, in words.
async fn asks(client: &Client, server: SocketAddr) -> Result<quinn::Connection, String> {
    asks_as(client, server, "localhost").await
}

async fn asks_as(
    client: &Client,
    server: SocketAddr,
    name: &str,
) -> Result<quinn::Connection, String> {
    let socket = wire::socket();
    let attempt = async {
        let connection = client.dial(&socket, server, name).await.map_err(|e| e.to_string())?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| e.to_string())?;
        send.write_all(b"hello").await.map_err(|e| e.to_string())?;
        send.finish().map_err(|e| e.to_string())?;
        match recv.read_to_end(64).await {
            Ok(bytes) if bytes == b"hello" => Ok(connection),
            Ok(bytes) => Err(format!("{bytes:?}")),
            Err(error) => Err(format!("{error}: {:?}", connection.closed().await)),
        }
    };
    timeout(Duration::from_secs(15), attempt).await.unwrap_or_else(|_| Err("silence".to_owned()))
}

fn gullible(form: Form) -> Weakness {
    Weakness { server_raw: true, asks: Some(form), checks_signature: false, tickets: false }
}

/// Makes every attack on the endpoint, which must refuse each before a handler runs, and on the stand-in,
/// which must fall for each.
async fn refused_here_and_taken_there(attacks: Vec<(String, Shown)>, weakness: Weakness) {
    let server = Server::start(&victim()).await;
    let weak = Weak::start(weakness).await;
    for (name, shown) in attacks {
        let leaf = shown.chain[0].to_vec();
        let client = Client::new(&[node::PEER]).showing(shown);
        let outcome = asks(&client, server.addr()).await;
        assert!(outcome.is_err(), "{name}: the endpoint was taken in");
        let outcome = asks(&client, weak.addr()).await;
        assert!(outcome.is_ok(), "{name}: not even the stand-in was taken in: {outcome:?}");
        assert_eq!(weak.seen().last().unwrap().leaf.as_ref(), Some(&leaf), "{name}");
    }
    assert_eq!(server.calls(), 0);
    // It was not deaf: the honest victim is served.
    let honest = Client::new(&[node::PEER]).showing(Shown::raw(VICTIM));
    asks(&honest, server.addr()).await.expect("the victim itself is served");
}

async fn stolen(form: Form, shown: Shown) {
    let server = Server::start(&victim()).await;
    let tries = count(200, 10_000);
    let taken: usize = stream::iter(0..tries)
        .map(|_| {
            let client = Client::new(&[node::PEER]).showing(shown.clone().signed_by(THIEF));
            let address = server.addr();
            async move { usize::from(asks(&client, address).await.is_ok()) }
        })
        .buffer_unordered(16)
        .fold(0, |sum, taken| async move { sum + taken })
        .await;
    println!("acceptance: {tries} tries with a stolen key ({form:?}), {taken} accepted");
    assert_eq!((taken, server.calls()), (0, 0));
    let attack = vec![("stolen".to_owned(), shown.signed_by(THIEF))];
    refused_here_and_taken_there(attack, gullible(form)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_victims_raw_key_signed_for_by_another_key_is_refused() {
    stolen(Form::Raw, Shown::raw(VICTIM)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_victims_certificate_signed_for_by_another_key_is_refused() {
    stolen(Form::X509, Shown::x509(VICTIM)).await;
}

#[tokio::test]
async fn a_raw_key_sent_as_a_certificate_is_refused() {
    let shown = Shown::x509(VICTIM).chain(vec![wire::spki(VICTIM)]);
    refused_here_and_taken_there(vec![("spki".to_owned(), shown)], gullible(Form::X509)).await;
}

#[tokio::test]
async fn a_certificate_sent_as_a_raw_key_is_refused() {
    let shown = Shown::raw(VICTIM).chain(vec![wire::certificate(VICTIM).to_vec()]);
    refused_here_and_taken_there(vec![("x509".to_owned(), shown)], gullible(Form::Raw)).await;
}

/// The eight points of small order in their one encoding each ("Taming the many EdDSAs", table 1).
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
];

fn point(hex: &str) -> [u8; 32] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

/// The certificate of key 2 with another point in the place of its key.
fn certificate_of(point: &[u8; 32]) -> Vec<u8> {
    let mut der = wire::certificate(VICTIM).to_vec();
    let key = wire::spki(VICTIM);
    let at = der.windows(key.len()).position(|window| window == key).expect("the key");
    der[at + 12..at + 44].copy_from_slice(point);
    der
}

#[tokio::test]
async fn a_signature_that_nobody_made_is_refused_with_every_point_of_small_order() {
    let server = Server::start(&victim()).await;
    let careless = Weakness { checks_signature: true, ..gullible(Form::Raw) };
    let careless = Weak::start(careless).await;
    // R the neutral element and s = 0: true for every message where the order of the key divides the
    // challenge, so for one message in one, two, four or eight.
    let mut signature = vec![0; 64];
    signature[0] = 1;
    for hex in SMALL_ORDER {
        let spki = wire::spki_of(&point(hex));
        let raw = Shown::raw(VICTIM).chain(vec![spki]).forging(signature.clone());
        let raw = Client::new(&[node::PUBLIC]).showing(raw);
        let mut forged = 0;
        for _ in 0..count(60, 200) {
            let outcome = asks(&raw, server.addr()).await;
            assert!(outcome.is_err(), "{hex} was taken for a key");
            forged += usize::from(forged == 0 && asks(&raw, careless.addr()).await.is_ok());
        }
        assert_eq!(forged, 1, "{hex}: the stand-in, which checks the signature alone, held out");
        let inside = Shown::x509(VICTIM).chain(vec![certificate_of(&point(hex))]);
        let inside = Client::new(&[node::PEER]).showing(inside.forging(signature.clone()));
        for _ in 0..16 {
            let outcome = asks(&inside, server.addr()).await.expect_err("refused");
            assert!(!outcome.contains("closed by peer: 1"), "judged, not refused: {outcome}");
        }
    }
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn second_encodings_of_a_point_are_refused() {
    // y from p to 2^255 - 1, with either sign.
    let mut attacks = Vec::new();
    for low in 0xed..=0xff_u8 {
        for high in [0x7f, 0xff] {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (low, high);
            let shown = Shown::raw(VICTIM).chain(vec![wire::spki_of(&point)]);
            attacks.push((HEXLOWER.encode(&point), shown));
        }
    }
    for hex in [
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        let shown = Shown::raw(VICTIM).chain(vec![wire::spki_of(&point(hex))]);
        attacks.push((hex.to_owned(), shown));
    }
    refused_here_and_taken_there(attacks, gullible(Form::Raw)).await;
}

#[tokio::test]
async fn malformed_public_keys_are_refused() {
    let good = wire::spki(VICTIM);
    let mut corpus: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, tail) in
        [("a zero", vec![0]), ("an empty sequence", vec![0x30, 0]), ("itself", good.clone())]
    {
        corpus.push((format!("followed by {name}"), [good.clone(), tail].concat()));
    }
    for length in [1, 11, 12, 43] {
        corpus.push((format!("cut to {length}"), good[..length].to_vec()));
    }
    for at in 0..12 {
        for bit in [0, 3, 7] {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            corpus.push((format!("bit {bit} of byte {at} turned"), bad));
        }
    }
    let key = &good[12..];
    let mut form = |name: &str, head: &[u8]| corpus.push((name.to_owned(), [head, key].concat()));
    form("X25519's name", &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 3, 0x21, 0]);
    form("Ed448's name", &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x71, 3, 0x21, 0]);
    form("NULL parameters", &[0x30, 0x2c, 0x30, 7, 6, 3, 0x2b, 0x65, 0x70, 5, 0, 3, 0x21, 0]);
    form("a long length", &[0x30, 0x81, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);
    form("no length", &[0x30, 0x80, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0]);
    form("an octet string", &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x21, 0]);
    form("the bare key", &[]);
    let attacks = corpus
        .into_iter()
        .map(|(name, spki)| (name, Shown::raw(VICTIM).chain(vec![spki])))
        .collect();
    refused_here_and_taken_there(attacks, gullible(Form::Raw)).await;
}

#[tokio::test]
async fn long_chains_are_refused() {
    let leaf = wire::certificate(VICTIM).to_vec();
    let hundred = vec![leaf.clone(); 100];
    // rustls itself takes no message of 64 KiB; this is the heaviest that it takes.
    let heavy = vec![0; 0xffff - leaf.len() - 32];
    let attacks = vec![
        ("100 certificates".to_owned(), Shown::x509(VICTIM).chain(hundred)),
        ("all but 64 KiB".to_owned(), Shown::x509(VICTIM).chain(vec![leaf, heavy])),
        (
            "two raw keys".to_owned(),
            Shown::raw(VICTIM).chain(vec![wire::spki(VICTIM), wire::spki(VICTIM)]),
        ),
    ];
    let server = Server::start(&victim()).await;
    for (name, shown) in attacks {
        let form = if shown.raw { Form::Raw } else { Form::X509 };
        let weak = Weak::start(Weakness { checks_signature: true, ..gullible(form) }).await;
        let client = Client::new(&[node::PEER]).showing(shown);
        assert!(asks(&client, server.addr()).await.is_err(), "{name}");
        // The possession of the key is honestly proven: the length alone is refused.
        asks(&client, weak.addr()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(server.calls(), 0);
}

/// Resumes with early data if the tickets let it; whether the server took it, and whether it answered.
async fn resumes_early(client: &Client, server: SocketAddr) -> (bool, bool) {
    let socket = wire::socket();
    match client.begin(&socket, server, "localhost").into_0rtt() {
        Ok((connection, accepted)) => {
            let (mut send, mut recv) = connection.open_bi().await.expect("early streams");
            send.write_all(b"hello").await.expect("early data");
            send.finish().expect("early data");
            let answer = timeout(Duration::from_secs(15), recv.read_to_end(64)).await;
            let taken = accepted.await;
            (taken, matches!(answer, Ok(Ok(bytes)) if bytes == b"hello"))
        }
        Err(connecting) => {
            let _ = connecting.await;
            (false, false)
        }
    }
}

#[tokio::test]
async fn a_revoked_key_gets_nothing_by_a_full_handshake_a_ticket_or_early_data() {
    let client = || Client::new(&[node::PEER]).showing(Shown::raw(VICTIM)).resuming();

    let server = Server::start(&victim()).await;
    let (full, ticket, early) = (client(), client(), client());
    for before in [&ticket, &early] {
        asks(before, server.addr()).await.expect("served while authorised");
        assert_eq!(before.tickets.received(), 0, "no tickets where a key is asked for");
    }
    // Tickets of the same key with early data, from a server that is generous with them.
    let generous = Weakness { checks_signature: true, tickets: true, ..gullible(Form::Raw) };
    let weak = Weak::start(generous).await;
    for before in [&ticket, &early] {
        asks(before, weak.addr()).await.expect("served");
        assert!(before.tickets.received() > 0);
    }
    let calls = server.calls();
    server.trust("").await;
    for client in [&full, &ticket] {
        let refused = asks(client, server.addr()).await.expect_err("refused");
        assert!(refused.contains("closed by peer: 1"), "{refused}");
        assert!(client.was_full());
    }
    assert_eq!(ticket.tickets.offered(), 1, "the ticket was offered");
    assert_eq!(resumes_early(&early, server.addr()).await, (false, false));
    assert_eq!(early.tickets.offered(), 1, "the ticket was offered");
    assert_eq!(server.calls(), calls);

    // The stand-in gives tickets though it asks for keys: rustls takes the key from the ticket and asks
    // nobody.
    let (full, ticket, early) = (client(), client(), client());
    for before in [&ticket, &early] {
        asks(before, weak.addr()).await.expect("served");
    }
    weak.revoke();
    assert!(asks(&full, weak.addr()).await.is_err());
    asks(&ticket, weak.addr()).await.expect("the revoked key resumes");
    assert_eq!(resumes_early(&early, weak.addr()).await, (true, true), "without a round trip, too");
    let last = weak.seen().pop().unwrap();
    assert!(last.early);
    assert_eq!(last.leaf, Some(wire::spki(VICTIM)));
}

#[tokio::test]
async fn a_ticket_resumes_only_where_it_came_from() {
    let server = Server::start(&victim()).await;
    let address = server.addr();
    let fresh = || Client::new(&[node::PUBLIC]).wants_x509().resuming();
    let primed = async || {
        let client = fresh();
        asks(&client, address).await.expect("a public handler");
        assert!(client.tickets.received() > 0);
        client
    };

    let same = primed().await;
    asks(&same, address).await.expect("a public handler");
    assert!(!same.was_full(), "resumes at home");

    let other_protocol = primed().await.offering(&[node::LOOPBACK]);
    asks(&other_protocol, address).await.expect("served by a full handshake");
    assert!(other_protocol.was_full());

    let other_name = primed().await;
    asks_as(&other_name, address, "web.example").await.expect("served by a full handshake");
    assert!(other_name.was_full());

    let mut other_profile = primed().await;
    other_profile.server_raw = true;
    asks(&other_profile, address).await.expect("served by a full handshake");
    assert!(other_profile.was_full());

    let mut with_key = primed().await.showing(Shown::raw(VICTIM));
    asks(&with_key, address).await.expect("served by a full handshake");
    assert!(with_key.was_full());
    with_key = primed().await.showing(Shown::raw(VICTIM)).offering(&[node::PEER]);
    asks(&with_key, address).await.expect("served by a full handshake");
    assert!(with_key.was_full());

    // A keyless client's ticket under a peer's protocol.
    let climbs = primed().await.offering(&[node::PEER]);
    assert!(asks(&climbs, address).await.is_err());
    assert!(climbs.was_full());

    let other_carrier = primed().await;
    let link = other_carrier.dial_tcp("127.0.0.1", address, "localhost", b"").await;
    assert!(link.is_ok() && other_carrier.was_full());

    for client in [&other_protocol, &other_name, &other_profile, &with_key, &climbs, &other_carrier]
    {
        assert!(client.tickets.offered() > 0, "the ticket was offered");
    }

    // One store for all protocols: rustls itself lets a ticket climb from one to the other.
    let weakness =
        Weakness { server_raw: false, asks: None, checks_signature: true, tickets: true };
    let weak = Weak::start(weakness).await;
    let climbs = fresh();
    asks(&climbs, weak.addr()).await.expect("served");
    let climbs = climbs.offering(&[node::PEER]);
    asks(&climbs, weak.addr()).await.expect("served");
    assert!(!climbs.was_full());
}

#[tokio::test]
async fn a_proof_made_for_a_machine_in_the_middle_is_worth_nothing_to_the_server() {
    // The victim dials the machine, which shows its own key and asks the victim for a proof.
    let middle = Weak::start(Weakness { checks_signature: true, ..gullible(Form::Raw) }).await;
    let server = Server::start(&victim()).await;
    let believing = Weak::start(gullible(Form::Raw)).await;
    for _ in 0..count(20, 200) {
        let dials = Client::new(&[node::PEER]).showing(Shown::raw(VICTIM));
        asks(&dials, middle.addr()).await.expect("the victim suspects nothing");
        let proof = middle.signatures().pop().expect("a CertificateVerify");
        let machine = Client::new(&[node::PEER]).showing(Shown::raw(VICTIM).forging(proof));
        // The proof is over the handshake with the machine (RFC 8446 §4.4.3), and this is another.
        assert!(asks(&machine, server.addr()).await.is_err());
        asks(&machine, believing.addr()).await.expect("the stand-in believes it");
    }
    assert_eq!(server.calls(), 0);
}
