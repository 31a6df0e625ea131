//! The MUSTs of RFC 9000 and RFC 9001 that end a connection, each with its code.
//!
//! About what h3spec asks of a server, and more. Where quinn goes on instead, the row is in a table of its own,
//! with the reason why that is let be. CRYPTO in 0-RTT has no row: early data is never accepted, so nobody
//! has keys for it.

mod frames;
mod raw;

use std::net::SocketAddr;

use self::{
    frames::crypto,
    raw::{ID, Parameter},
};
pub use self::{
    frames::stream,
    raw::{Hello, Quic, Space},
};
use crate::raw::{server, varint};

use Space::{Data, Handshake, Initial};

const FLOW_CONTROL: u64 = 0x03;
const STREAM_LIMIT: u64 = 0x04;
const STREAM_STATE: u64 = 0x05;
const FINAL_SIZE: u64 = 0x06;
const ENCODING: u64 = 0x07;
const PARAMETER: u64 = 0x08;
const ID_LIMIT: u64 = 0x09;
const VIOLATION: u64 = 0x0a;
const BUFFER: u64 = 0x0d;
const MISSING_EXTENSION: u64 = 0x16d;
const NO_PROTOCOL: u64 = 0x178;
const UNEXPECTED_MESSAGE: u64 = 0x10a;

/// What a row does.
enum Do {
    /// Shakes hands with other transport parameters.
    Parameters(Vec<Parameter>),
    /// Shakes hands with another hello.
    Hello(Hello),
    /// Sends frames in a packet of this space, once it can; in bits of the first byte what should be 0.
    Frames(Space, Vec<u8>, u8),
    /// Sends these frames in packets of their own after the handshake.
    Packets(Vec<Vec<u8>>),
    /// Sends handshake bytes where the peer's next ones are read.
    Crypto(Space, Vec<u8>),
}

/// What it is; what it does; the code that the server closes with.
type Row = (&'static str, Do, u64);

fn run(server: SocketAddr, row: &Do) -> Option<(u64, bool)> {
    match row {
        Do::Parameters(parameters) => {
            let hello = Hello { parameters: parameters.clone(), ..Hello::default() };
            Quic::begin(server, &hello).close()
        }
        Do::Hello(hello) => Quic::begin(server, hello).close(),
        Do::Frames(space, frames, bits) => {
            let mut quic = reaches(server, *space);
            quic.send_with(*space, frames, *bits);
            quic.close()
        }
        Do::Packets(packets) => {
            let mut quic = Quic::connect(server);
            packets.iter().for_each(|frames| quic.send(Data, frames));
            quic.close()
        }
        Do::Crypto(space, bytes) => {
            let mut quic = reaches(server, *space);
            quic.send_crypto(*space, bytes);
            quic.close()
        }
    }
}

/// A connection with keys for this space, as little further as can be.
fn reaches(server: SocketAddr, space: Space) -> Quic {
    match space {
        Data => Quic::connect(server),
        _ => {
            let mut quic = Quic::begin(server, &Hello::default());
            assert!(quic.until(|quic| quic.has(space)), "no keys: {:?}", quic.closed);
            quic
        }
    }
}

/// Numbers, one after the other.
fn numbers(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|number| varint(*number)).collect()
}

/// A NEW_CONNECTION_ID frame.
fn new_id(sequence: u64, prior: u64, length: u8, fill: u8) -> Vec<u8> {
    let (id, token) = (vec![fill; length.into()], vec![fill.wrapping_add(100); 16]);
    [numbers(&[0x18, sequence, prior]), vec![length], id, token].concat()
}

fn parameters() -> Vec<Row> {
    let without = |id: u64| {
        Hello::default()
            .parameters
            .into_iter()
            .filter(|(other, _)| *other != id)
            .collect::<Vec<_>>()
    };
    let with = |id: u64, value: Vec<u8>| [without(id), vec![(id, value)]].concat();
    let number = |id: u64, value: u64| with(id, varint(value));
    let twice = [without(0x20), vec![(0x04, varint(1)), (0x04, varint(1))]].concat();
    let preferred =
        [vec![127, 0, 0, 1, 1, 1], vec![0; 18], vec![4, 1, 2, 3, 4], vec![7; 16]].concat();
    let bad = PARAMETER;
    let rows = vec![
        ("9000 18.2 original_destination_connection_id", with(0x00, ID.to_vec()), bad),
        ("9000 18.2 stateless_reset_token", with(0x02, vec![7; 16]), bad),
        ("9000 18.2 preferred_address", with(0x0d, preferred), bad),
        ("9000 18.2 retry_source_connection_id", with(0x10, ID.to_vec()), bad),
        ("9000 18.2 max_udp_payload_size below 1200", number(0x03, 1_199), bad),
        ("9000 18.2 ack_delay_exponent above 20", number(0x0a, 21), bad),
        ("9000 18.2 max_ack_delay of 2^14", number(0x0b, 1 << 14), bad),
        ("9000 18.2 active_connection_id_limit below 2", number(0x0e, 1), bad),
        ("9000 4.6 initial_max_streams_bidi above 2^60", number(0x08, (1 << 60) + 1), bad),
        ("9000 4.6 initial_max_streams_uni above 2^60", number(0x09, (1 << 60) + 1), bad),
        ("9000 7.3 no initial_source_connection_id", without(0x0f), bad),
        ("9000 7.3 initial_source_connection_id of another", with(0x0f, b"somebody".to_vec()), bad),
        ("9000 7.4 a parameter twice", twice, bad),
        ("9000 18 an integer longer than its value", with(0x01, vec![0, 0]), bad),
        ("9000 18 an integer that is cut", with(0x01, vec![0x40]), bad),
        ("9000 18.2 disable_active_migration with a value", with(0x0c, vec![1]), bad),
        ("9000 18.2 a connection id of 21 bytes", with(0x0f, vec![1; 21]), bad),
    ];
    rows.into_iter()
        .map(|(what, parameters, code)| (what, Do::Parameters(parameters), code))
        .collect()
}

fn tls() -> Vec<Row> {
    let hello = |alpn: Vec<&'static [u8]>| Do::Hello(Hello { alpn, ..Hello::default() });
    let edited = |edit| Do::Hello(Hello { edit, ..Hello::default() });
    let unexpected = UNEXPECTED_MESSAGE;
    vec![
        ("9001 8.1 no ALPN", hello(vec![]), NO_PROTOCOL),
        ("9001 8.1 an ALPN that nobody serves", hello(vec![b"none/1"]), NO_PROTOCOL),
        ("9001 8.2 no quic_transport_parameters", edited(without_parameters), MISSING_EXTENSION),
        ("9001 4.2 TLS 1.2 only", edited(old), 0x146),
        ("9001 6 KeyUpdate", Do::Crypto(Data, vec![24, 0, 0, 1, 0]), unexpected),
        ("9001 8.3 EndOfEarlyData", Do::Crypto(Handshake, vec![5, 0, 0, 0]), unexpected),
        (
            "8446 4.6.1 NewSessionTicket of a client",
            Do::Crypto(Data, vec![4, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 7, 0, 0]),
            unexpected,
        ),
        ("8446 4 Finished in place of a hello", edited(|_| vec![20, 0, 0, 1, 0]), unexpected),
        (
            "8446 4 a cut hello",
            edited(|hello| [vec![1, 0, 0, 40], hello[4..44].to_vec()].concat()),
            0x132,
        ),
        (
            "8446 4.4.4 a wrong Finished",
            Do::Crypto(Handshake, [vec![20, 0, 0, 48], vec![7; 48]].concat()),
            0x133,
        ),
    ]
}

/// The hello without extension 57.
fn without_parameters(hello: Vec<u8>) -> Vec<u8> {
    edit_extension(hello, 57, |_| None)
}

/// The hello with TLS 1.2 as its only version.
fn old(hello: Vec<u8>) -> Vec<u8> {
    edit_extension(hello, 43, |_| Some(vec![2, 3, 3]))
}

/// Changes the extension of this number, or takes it out.
fn edit_extension(hello: Vec<u8>, id: u16, edit: fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let length = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + length(at);
    at += 1 + usize::from(hello[at]);
    let head = &hello[4..at];
    let mut extensions = Vec::new();
    let mut place = at + 2;
    while place < hello.len() {
        let size = length(place + 2);
        let value = &hello[place + 4..place + 4 + size];
        let found = length(place) == usize::from(id);
        let value = if found { edit(value) } else { Some(value.to_vec()) };
        if let Some(value) = value {
            extensions.extend_from_slice(&hello[place..place + 2]);
            extensions.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
            extensions.extend(value);
        }
        place += 4 + size;
    }
    let size = u16::try_from(extensions.len()).unwrap().to_be_bytes();
    let body = [head, &size, &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

fn packets() -> Vec<Row> {
    let violation = VIOLATION;
    let stream = numbers(&[0x0a, 0, 1]);
    let in_space = |space, frames: &[u8]| Do::Frames(space, frames.to_vec(), 0);
    let ping = |space, bits| Do::Frames(space, vec![1], bits);
    let another_id = new_id(1, 0, 8, 1);
    vec![
        ("9000 17.2 reserved bits in Initial", ping(Initial, 0x0c), violation),
        ("9000 17.2 reserved bits in Handshake", ping(Handshake, 0x0c), violation),
        ("9000 17.3.1 reserved bits in 1-RTT", ping(Data, 0x18), violation),
        ("9000 12.4 no frames in Initial", in_space(Initial, &[]), violation),
        ("9000 12.4 no frames in Handshake", in_space(Handshake, &[]), violation),
        ("9000 12.4 no frames in 1-RTT", in_space(Data, &[]), violation),
        (
            "9000 12.5 STREAM in Initial",
            in_space(Initial, &[&stream[..], b"x"].concat()),
            violation,
        ),
        (
            "9000 12.5 STREAM in Handshake",
            in_space(Handshake, &[&stream[..], b"x"].concat()),
            violation,
        ),
        ("9000 12.5 RESET_STREAM in Handshake", in_space(Handshake, &[4, 0, 0, 0]), violation),
        ("9000 12.5 MAX_DATA in Initial", in_space(Initial, &[0x10, 1]), violation),
        ("9000 12.5 MAX_STREAMS in Handshake", in_space(Handshake, &[0x12, 1]), violation),
        ("9000 12.5 NEW_CONNECTION_ID in Initial", in_space(Initial, &another_id), violation),
        (
            "9000 12.5 PATH_CHALLENGE in Handshake",
            in_space(Handshake, &[0x1a, 1, 2, 3, 4, 5, 6, 7, 8]),
            violation,
        ),
        ("9000 12.5 NEW_TOKEN in Handshake", in_space(Handshake, &[7, 1, 1]), violation),
        ("9000 12.5 HANDSHAKE_DONE in Handshake", in_space(Handshake, &[0x1e]), violation),
        ("9000 12.5 DATAGRAM in Handshake", in_space(Handshake, &[0x31, 1, 1]), violation),
        (
            "9000 13.1 ACK of what was not sent, Initial",
            in_space(Initial, &[2, 40, 0, 0, 0]),
            violation,
        ),
        ("9000 12.4 an unknown frame in Initial", in_space(Initial, &[0x21]), ENCODING),
        ("9000 12.4 an unknown frame in Handshake", in_space(Handshake, &[0x21]), ENCODING),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn frames() -> Vec<Row> {
    let one = |all: &[u64]| Do::Packets(vec![numbers(all)]);
    let raw = |bytes: &[u8]| Do::Packets(vec![bytes.to_vec()]);
    let both = |first: &[u64], second: &[u64]| Do::Packets(vec![numbers(first), numbers(second)]);
    let many_ids = (1..20).map(|n| new_id(n.into(), 0, 8, n)).collect();
    let far = 4 * 5_000;
    let huge = (1 << 62) - 1;
    let (state, encoding, violation) = (STREAM_STATE, ENCODING, VIOLATION);
    let (limit, flow) = (STREAM_LIMIT, FLOW_CONTROL);
    vec![
        ("9000 12.4 an unknown frame", one(&[0x21]), encoding),
        ("9000 12.4 an unknown frame of two bytes", one(&[0x1234]), encoding),
        ("9000 12.4 a cut frame", raw(&[0x10]), encoding),
        ("9000 19.8 STREAM on ours of both ways", one(&[0x0a, 1, 0]), state),
        ("9000 19.8 STREAM on ours of one way", one(&[0x0a, 3, 0]), state),
        ("9000 19.4 RESET_STREAM on ours of one way", one(&[4, 3, 0, 0]), state),
        ("9000 19.4 RESET_STREAM on ours not begun", one(&[4, 1, 0, 0]), state),
        ("9000 19.5 STOP_SENDING on theirs of one way", one(&[5, 2, 0]), state),
        ("9000 19.5 STOP_SENDING on ours not begun", one(&[5, 1, 0]), state),
        ("9000 19.5 STOP_SENDING on ours of one way not begun", one(&[5, 83, 0]), state),
        ("9000 19.10 MAX_STREAM_DATA on theirs of one way", one(&[0x11, 2, 9]), state),
        ("9000 19.10 MAX_STREAM_DATA on ours not begun", one(&[0x11, 1, 9]), state),
        ("9000 19.13 STREAM_DATA_BLOCKED on ours of one way", one(&[0x15, 3, 9]), state),
        ("9000 4.6 STREAM beyond the limit", one(&[0x0a, far, 0]), limit),
        ("9000 4.6 STREAM of one way beyond the limit", one(&[0x0a, far + 2, 0]), limit),
        ("9000 4.6 RESET_STREAM beyond the limit", one(&[4, far, 0, 0]), limit),
        ("9000 4.6 MAX_STREAM_DATA beyond the limit", one(&[0x11, far, 9]), limit),
        ("9000 4.1 STREAM beyond its window", one(&[0x0e, 0, 10 << 20, 0]), flow),
        ("9000 4.1 RESET_STREAM beyond its window", one(&[4, 0, 0, 10 << 20]), flow),
        (
            "9000 19.8 STREAM beyond 2^62",
            raw(&[numbers(&[0x0e, 0, huge, 4]), vec![1; 4]].concat()),
            // Or FRAME_ENCODING_ERROR: the RFC lets an endpoint choose.
            flow,
        ),
        ("9000 4.5 data after the end", both(&[0x0f, 0, 5, 0], &[0x0e, 0, 10, 0]), FINAL_SIZE),
        ("9000 4.5 another end", both(&[0x0f, 0, 5, 0], &[0x0f, 0, 6, 0]), FINAL_SIZE),
        ("9000 4.5 a reset before the end", both(&[0x0f, 0, 5, 0], &[4, 0, 0, 3]), FINAL_SIZE),
        ("9000 19.11 MAX_STREAMS above 2^60", one(&[0x12, (1 << 60) + 1]), encoding),
        ("9000 19.11 MAX_STREAMS of one way above 2^60", one(&[0x13, (1 << 60) + 1]), encoding),
        ("9000 19.14 STREAMS_BLOCKED above 2^60", one(&[0x16, (1 << 60) + 1]), encoding),
        ("9000 19.14 STREAMS_BLOCKED of one way above 2^60", one(&[0x17, (1 << 60) + 1]), encoding),
        ("9000 19.15 an id of no bytes", raw(&new_id(1, 0, 0, 1)), encoding),
        ("9000 19.15 an id of 21 bytes", raw(&new_id(1, 0, 21, 1)), encoding),
        ("9000 19.15 retire_prior_to beyond its number", raw(&new_id(1, 2, 8, 1)), encoding),
        ("9000 5.1.1 more ids than the limit", Do::Packets(many_ids), ID_LIMIT),
        ("9000 19.16 an id retired that was not given", one(&[0x19, 90]), violation),
        ("9000 19.7 NEW_TOKEN of a client", raw(&[7, 1, 1]), violation),
        ("9000 19.20 HANDSHAKE_DONE of a client", raw(&[0x1e]), violation),
        ("9000 13.1 ACK of what was not sent", one(&[2, 4_000, 0, 0, 0]), violation),
        ("9000 19.3.1 an ACK range below 0", one(&[2, 1, 0, 0, 5]), encoding),
        ("9000 19.6 CRYPTO beyond the buffer", raw(&crypto(1 << 20, b"x")), BUFFER),
        (
            "9000 19.6 CRYPTO beyond 2^62",
            raw(&[numbers(&[6, huge, 1]), vec![1]].concat()),
            // Or FRAME_ENCODING_ERROR: the RFC lets an endpoint choose.
            BUFFER,
        ),
    ]
}

/// Where quinn 0.11.19 goes on although the RFC has a code: what, the packets, why that is let be.
fn deviations() -> Vec<(&'static str, Vec<Vec<u8>>, &'static str)> {
    let far = 4 * 5_000;
    vec![
        (
            "9000 4.6 STOP_SENDING beyond the limit",
            vec![numbers(&[5, far, 0])],
            "nothing is made for it: it is about a stream that is not there",
        ),
        (
            "9000 4.6 STREAM_DATA_BLOCKED beyond the limit",
            vec![numbers(&[0x15, far, 9])],
            "nothing is made for it: the frame is only advice",
        ),
        (
            "9000 4.5 an end before what came",
            vec![[numbers(&[0x0e, 0, 9, 1]), vec![7]].concat(), numbers(&[0x0f, 0, 3, 0])],
            "the RFC only advises (SHOULD); the stream ends at the end that it was told",
        ),
        (
            "9000 19.15 one number for two connection ids",
            vec![new_id(1, 0, 8, 1), new_id(1, 0, 8, 2)],
            "the RFC lets an endpoint end the connection (MAY); the first one stays",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn breaches_of_quic_close_the_connection_with_their_code() {
    let endpoint = server().await;
    let address = endpoint.local_addrs()[0];
    let tables = [parameters(), tls(), packets(), frames()];
    let rows: Vec<Row> = tables.into_iter().flatten().collect();
    let (count, deviations) = (rows.len(), deviations());
    let told: Vec<String> =
        deviations.iter().map(|(what, _, why)| format!("{what}: {why}")).collect();
    let wrong = tokio::task::spawn_blocking(move || {
        let mut wrong = Vec::new();
        for (what, row, expected) in &rows {
            // A packet may be lost, and this client sends nothing again.
            let closed = run(address, row).or_else(|| run(address, row));
            if closed != Some((*expected, false)) {
                wrong.push(format!("{what}: {closed:x?}, not {expected:x?}"));
            }
        }
        for (what, packets, _) in &deviations {
            let mut quic = Quic::connect(address);
            packets.iter().for_each(|frames| quic.send(Data, frames));
            if !quic.lives() {
                wrong.push(format!("{what}: no longer a deviation, {:x?}", quic.closed));
            }
        }
        wrong
    });
    let wrong = wrong.await.unwrap();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    println!(
        "acceptance: {count} breaches of RFC 9000 and RFC 9001, each with its code; {} that quinn \
         passes over:\n  {}",
        told.len(),
        told.join("\n  ")
    );
}
