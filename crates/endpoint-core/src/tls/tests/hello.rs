//! Right and wrong hellos, byte by byte.

use proptest::prelude::*;

use crate::tls::hello::{Alert, Hello, MAX_HELLO_BYTES, Protocols, parse, whole_length};

/// Builds hellos, right and wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Builder(Vec<(u16, Vec<u8>)>);

impl Builder {
    pub(crate) fn with(mut self, kind: u16, content: &[u8]) -> Self {
        self.0.push((kind, content.to_vec()));
        self
    }

    pub(crate) fn name(self, name: &[u8]) -> Self {
        let entry = [&[HOST_NAME], long(name).as_slice()].concat();
        self.with(SERVER_NAME, &long(&entry))
    }

    pub(crate) fn protocols(self, names: &[&[u8]]) -> Self {
        let list = names.iter().flat_map(|name| short(name)).collect::<Vec<_>>();
        self.with(ALPN, &long(&list))
    }

    pub(crate) fn server_types(self, types: &[u8]) -> Self {
        self.with(SERVER_CERTIFICATE_TYPE, &short(types))
    }

    pub(crate) fn client_types(self, types: &[u8]) -> Self {
        self.with(CLIENT_CERTIFICATE_TYPE, &short(types))
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let extensions = self
            .0
            .iter()
            .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &long(content)].concat())
            .collect::<Vec<_>>();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(short(&[]));
        body.extend(long(&[0x13, 0x01]));
        body.extend(short(&[0]));
        body.extend(long(&extensions));
        message(&body)
    }
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], body].concat()
}

fn short(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn names<'a>(hello: &Hello<'a>) -> Vec<&'a [u8]> {
    hello.protocols.unwrap().iter().collect()
}

#[test]
fn reads_the_four_fields() {
    let message = Builder::default()
        .with(0x0a0a, b"")
        .name(b"Host.Example.")
        .protocols(&[b"echo/1", b"h3"])
        .with(43, &[2, 3, 4])
        .server_types(&[2, 0])
        .client_types(&[2])
        .build();
    let hello = parse(&message).unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("host.example"));
    assert_eq!(names(&hello), [b"echo/1".as_slice(), b"h3"]);
    assert!(hello.takes_raw_server_key() && hello.shows_raw_client_key());
    assert_eq!(hello.server_types, Some(&[2, 0][..]));

    let message = Builder::default().build();
    assert_eq!(parse(&message).unwrap(), Hello::default());
    let message = Builder::default().name(b"192.0.2.1").build();
    assert_eq!(parse(&message).unwrap().server_name, None);
}

#[test]
fn reads_a_hello_of_before_extensions() {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    assert_eq!(parse(&message(&body)).unwrap(), Hello::default());
}

#[test]
fn refuses_each_fault_with_its_alert() {
    let b = Builder::default;
    let many: Vec<&[u8]> = vec![b"a"; 129];
    let mut crowd = b();
    for kind in 0..129 {
        crowd = crowd.with(0x1000 + kind, b"");
    }
    let decode = Alert::DECODE_ERROR;
    let illegal = Alert::ILLEGAL_PARAMETER;
    let faults = [
        (b().protocols(&[]).build(), decode),
        (b().protocols(&[b""]).build(), decode),
        (b().protocols(&[b"a", b""]).build(), decode),
        (b().protocols(&many).build(), illegal),
        (b().with(ALPN, b"").build(), decode),
        (b().with(ALPN, &[0, 2, 1, b'a', 0]).build(), decode),
        (b().with(ALPN, &[0, 3, 1, b'a', 9]).build(), decode),
        (b().server_types(&[]).build(), decode),
        (b().client_types(&[]).build(), decode),
        (b().with(SERVER_CERTIFICATE_TYPE, &[1, 2, 2]).build(), decode),
        (b().with(CLIENT_CERTIFICATE_TYPE, &[2, 2]).build(), decode),
        (b().with(SERVER_NAME, b"").build(), decode),
        (b().with(SERVER_NAME, &[0, 0]).build(), decode),
        (b().with(SERVER_NAME, &[0, 4, 1, 0, 1, b'a']).build(), illegal),
        (b().with(SERVER_NAME, &[0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b']).build(), illegal),
        (b().with(SERVER_NAME, &[0, 4, 0, 0, 1, b'a', 0]).build(), decode),
        (b().name(b"a b").build(), illegal),
        (b().name(b"a\x1b[1m").build(), illegal),
        (b().name(b"").build(), illegal),
        (b().name(b"a.example").name(b"b.example").build(), illegal),
        (b().with(0x4242, b"").with(0x4242, b"x").build(), illegal),
        (b().client_types(&[2]).client_types(&[0]).build(), illegal),
        (crowd.build(), illegal),
        ([b().build(), vec![0]].concat(), Alert::UNEXPECTED_MESSAGE),
        (vec![2, 0, 0, 0], Alert::UNEXPECTED_MESSAGE),
        (vec![1, 0, 0, 0], decode),
        (vec![1, 1, 0, 0], decode),
        (vec![], decode),
    ];
    for (message, alert) in faults {
        assert_eq!(parse(&message), Err(alert), "{}", message.escape_ascii());
    }
}

#[test]
fn refuses_every_cut() {
    let whole = Builder::default().name(b"a.example").protocols(&[b"h3"]).build();
    for cut in 0..whole.len() {
        assert_eq!(parse(&whole[..cut]), Err(Alert::DECODE_ERROR), "cut at {cut}");
        // And where the header agrees with the cut. One cut leaves a hello without extensions.
        let Some(body) = whole[..cut].get(HEADER_BYTES..) else { continue };
        let without_extensions = body.len() == 2 + 32 + 1 + 4 + 2;
        assert_eq!(parse(&message(body)).is_ok(), without_extensions, "cut at {cut}");
    }
}

#[test]
fn bounds_what_it_waits_for() {
    assert_eq!(whole_length(&[]), Ok(None));
    assert_eq!(whole_length(&[1, 0, 1]), Ok(None));
    assert_eq!(whole_length(&[1, 0, 1, 0]), Ok(Some(260)));
    assert_eq!(whole_length(&[1, 0, 0xff, 0xfc]), Ok(Some(MAX_HELLO_BYTES)));
    assert_eq!(whole_length(&[1, 0, 0xff, 0xfd]), Err(Alert::DECODE_ERROR));
    assert_eq!(whole_length(&[1, 0xff, 0xff, 0xff]), Err(Alert::DECODE_ERROR));
    assert_eq!(whole_length(&[2]), Err(Alert::UNEXPECTED_MESSAGE));
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
        let _ = parse(&message(&bytes));
        let _ = Protocols::new(&bytes).map(|list| list.iter().count());
    }

    #[test]
    fn reads_back_what_was_built(
        host in "[a-z][a-z0-9]{0,20}(\\.[a-z][a-z0-9]{0,20}){0,3}",
        offered in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..30), 1..8),
        types in proptest::collection::vec(any::<u8>(), 1..5),
    ) {
        let list = offered.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let message = Builder::default()
            .client_types(&types).protocols(&list).name(host.as_bytes()).build();
        let hello = parse(&message).unwrap();
        prop_assert_eq!(names(&hello), list);
        prop_assert_eq!(hello.server_name, Some(host));
        prop_assert_eq!(hello.client_types, Some(&types[..]));
        prop_assert_eq!(hello.server_types, None);
    }
}

/// A plain loop beside the fuzz target: mutations of a good hello, the same ones each time.
#[test]
fn survives_a_hundred_thousand_mutations() {
    let good = Builder::default()
        .name(b"host.example")
        .protocols(&[b"echo/1", b"h3"])
        .server_types(&[2])
        .client_types(&[2])
        .build();
    let seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut state = seed;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 32).unwrap() % below
    };
    for _ in 0..100_000 {
        let mut bad = good.clone();
        for _ in 0..=next(4) {
            let at = next(bad.len());
            match next(3) {
                0 => bad[at] = u8::try_from(next(256)).unwrap(),
                1 => bad.truncate(at.max(1)),
                _ => bad.insert(at, u8::try_from(next(256)).unwrap()),
            }
        }
        if let Ok(hello) = parse(&bad) {
            let some = |list: Protocols<'_>| list.iter().count() > 0;
            assert!(hello.protocols.is_none_or(some), "seed {seed:#x}");
        }
    }
}

const CLIENT_HELLO: u8 = 1;
const HEADER_BYTES: usize = 4;
const HOST_NAME: u8 = 0;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const CLIENT_CERTIFICATE_TYPE: u16 = 19;
const SERVER_CERTIFICATE_TYPE: u16 = 20;
