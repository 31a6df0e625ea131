//! The waiting session, fed by hand.

use std::sync::LazyLock;

use proptest::prelude::*;
use quinn_proto::{
    ConnectionIdGenerator, RandomConnectionIdGenerator, Side, TransportError, TransportErrorCode,
    crypto::Session, transport_parameters::TransportParameters,
};
use rustls::{
    pki_types::ServerName,
    quic::{ClientConnection, Version},
};

use super::*;
use crate::{
    tls::{hello::Alert, session::without_bidi_credit},
    transport::varint,
};

/// Transport parameters with 100 bidirectional and 3 unidirectional streams.
fn parameters() -> TransportParameters {
    let mut bytes = vec![0x08, 2, 0x40, 100, 0x09, 1, 3, 0x04, 4, 0x80, 0x10, 0, 0];
    bytes.extend([0x00, 2, 0xaa, 0xbb, 0x0f, 1, 0xcc]);
    TransportParameters::read(Side::Client, &mut bytes.as_slice()).unwrap()
}

fn encoded(parameters: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    parameters.write(&mut bytes);
    bytes
}

/// The bytes of a post-quantum hello, as they come out of CRYPTO frames.
fn hello(client: &Client) -> Vec<u8> {
    let name = ServerName::try_from(client.name()).unwrap();
    let config = Arc::new(client.config().0);
    let mut parameters = Vec::new();
    parameters.extend([0x0f, 1, 0xdd]);
    let mut session = ClientConnection::new(config, Version::V1, name, parameters).unwrap();
    let mut bytes = Vec::new();
    assert!(session.write_hs(&mut bytes).is_none());
    bytes
}

fn waiting() -> Box<dyn Session> {
    static SERVER: LazyLock<Arc<TlsServer>> = LazyLock::new(server);
    SERVER.quic(Reach::Everywhere, RetirementRate::per_minute(16)).start_session(1, &parameters())
}

/// Feeds pieces; gives what became of them, and how many were read.
fn feed<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Option<Handshake>, TransportError> {
    let mut session = waiting();
    let mut announced = false;
    for piece in pieces {
        if !announced {
            assert!(session.is_handshaking());
            assert!(session.handshake_data().is_none());
            assert!(session.peer_identity().is_none());
            assert!(session.early_crypto().is_none());
            assert!(session.next_1rtt_keys().is_none());
            assert!(session.transport_parameters().unwrap().is_none());
            assert!(session.export_keying_material(&mut [0; 8], b"l", b"c").is_err());
            assert!(session.write_handshake(&mut Vec::new()).is_none());
        }
        announced |= session.read_handshake(piece)?;
    }
    let data =
        session.handshake_data().map(|data| data.downcast::<QuicHandshake>().unwrap().handshake);
    assert_eq!(announced, data.is_some());
    if announced {
        assert!(session.transport_parameters().unwrap().is_some());
        let mut flight = Vec::new();
        assert!(session.write_handshake(&mut flight).is_some());
    }
    Ok(data)
}

fn peer() -> Client {
    Client::new(KeyKind::Raw, &["echo/1"]).raw(CLIENT)
}

fn expected() -> Handshake {
    let profile = Profile { server: KeyKind::Raw, client: Some(KeyKind::Raw) };
    let server_name = Some("localhost".to_owned());
    Handshake { profile, alpn: alpn("echo/1"), server_name }
}

#[test]
fn chooses_the_same_for_a_hello_split_at_every_byte() {
    let hello = hello(&peer());
    assert!(hello.len() > 1200, "a post-quantum hello spans two packets");
    assert_eq!(feed(hello.chunks(1)).unwrap(), Some(expected()));
    for at in 0..=hello.len() {
        let (one, two) = hello.split_at(at);
        assert_eq!(feed([one, two]).unwrap(), Some(expected()), "split at {at}");
    }
    assert_eq!(feed([&hello[..hello.len() - 1]]).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn chooses_the_same_for_any_pieces(cuts in proptest::collection::vec(0..2000_usize, 0..9)) {
        let hello = hello(&peer());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(hello.len())).collect();
        cuts.extend([0, hello.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &hello[pair[0]..pair[1]]);
        prop_assert_eq!(feed(pieces).unwrap(), Some(expected()));
    }

    #[test]
    fn never_panics_on_bytes(pieces in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..80), 1..6)) {
        let _ = feed(pieces.iter().map(Vec::as_slice));
    }
}

#[test]
fn ends_with_the_alert_and_no_text_and_stays_ended() {
    let good = hello(&peer());
    let trailing = [&good[..], &[0]].concat();
    let large = [1, 0xff, 0xff, 0xff];
    for (bytes, alert) in [
        (&trailing[..], Alert::UNEXPECTED_MESSAGE),
        (&[2, 0, 0, 0], Alert::UNEXPECTED_MESSAGE),
        (&large, Alert::DECODE_ERROR),
        (&[1, 0, 0, 1, 7], Alert::DECODE_ERROR),
    ] {
        let mut session = waiting();
        let error = session.read_handshake(bytes).unwrap_err();
        assert_eq!(error.code, TransportErrorCode::crypto(alert.code()));
        assert_eq!(error.reason, "");
        assert!(session.read_handshake(&good).is_err(), "no second chance");
        assert!(session.handshake_data().is_none() && session.is_handshaking());
    }
    // What rustls refuses has no text either: here a hello without key shares.
    let bare = super::hello::Builder::default().protocols(&[b"h3"]);
    let bare = bare.name(b"localhost").build();
    let error = waiting().read_handshake(&bare).unwrap_err();
    assert_eq!(error.reason, "");
}

#[test]
fn tells_an_asked_client_of_no_bidirectional_streams_and_of_all_the_rest() {
    let before = encoded(&parameters());
    let after = encoded(&without_bidi_credit(&parameters()).unwrap());
    let id = |bytes: &[u8], id: u64| {
        let mut rest = bytes;
        let mut found = None;
        while let Some((next, after_id)) = varint(rest) {
            let (length, content) = varint(after_id).unwrap();
            let (content, after) = content.split_at(usize::try_from(length).unwrap());
            if next == id {
                found = Some(content.to_vec());
            }
            rest = after;
        }
        found
    };
    assert_eq!(id(&before, 0x08), Some(vec![0x40, 100]));
    assert_eq!(id(&after, 0x08), None, "absent means none (RFC 9000 §18.2)");
    for kept in [0x00, 0x04, 0x09, 0x0f] {
        assert_eq!(id(&after, kept), id(&before, kept), "{kept:#x}");
        assert!(id(&after, kept).is_some());
    }
}

#[test]
fn protects_initial_packets_before_and_after_the_choice_with_the_same_keys() {
    let id = RandomConnectionIdGenerator::default().generate_cid();
    let sample = |session: &dyn Session| {
        let keys = session.initial_keys(&id, Side::Server);
        let mut packet = vec![7; 64];
        keys.packet.local.encrypt(3, &mut packet, 20);
        packet
    };
    let mut session = waiting();
    let before = sample(session.as_ref());
    session.read_handshake(&hello(&peer())).unwrap();
    assert_eq!(before, sample(session.as_ref()));
}
