//! What a socket gives to addresses that are not proven, and what is proof.

use super::*;

/// Notes the length of each datagram that leaves.
#[derive(Debug, Default)]
struct Wire(Mutex<Vec<usize>>);

impl AsyncUdpSocket for Wire {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        unreachable!("nobody waits")
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let all = transmit.contents.len();
        let segments = transmit.contents.chunks(transmit.segment_size.unwrap_or(all));
        self.0.lock().unwrap().extend(segments.map(<[u8]>::len));
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(at(4433))
    }
}

fn counted() -> (Arc<Counted>, Arc<Wire>) {
    let wire = Arc::new(Wire::default());
    (Counted::new(Arc::clone(&wire) as _), wire)
}

fn at(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// A datagram of `length` bytes with a long header for connection `id`.
fn long(id: [u8; 8], length: usize) -> Vec<u8> {
    let mut datagram = vec![0xc0, 0, 0, 0, 1, 8];
    datagram.extend(id);
    datagram.resize(length, 0);
    datagram
}

/// What leaves of `bytes` for `to`, in datagrams of `segment`.
fn sent(
    socket: &(Arc<Counted>, Arc<Wire>),
    to: SocketAddr,
    bytes: usize,
    segment: usize,
) -> Vec<usize> {
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents: &vec![0; bytes],
        segment_size: (segment < bytes).then_some(segment),
        src_ip: None,
    };
    socket.0.try_send(&transmit).unwrap();
    std::mem::take(&mut *socket.1.0.lock().unwrap())
}

fn came(socket: &(Arc<Counted>, Arc<Wire>), from: SocketAddr, datagram: &[u8]) -> Vec<usize> {
    let waited = socket.0.came(from, datagram);
    socket.0.send(waited);
    std::mem::take(&mut *socket.1.0.lock().unwrap())
}

#[test]
fn gives_three_bytes_for_one_and_the_rest_when_there_is_room() {
    let socket = counted();
    assert!(came(&socket, at(1), &long([1; 8], 1250)).is_empty());
    let _unproven = socket.0.unproven(at(1), &[1; 8]);
    assert_eq!(sent(&socket, at(1), 4 * 1200, 1200), [1200; 3], "3750 in all");
    assert_eq!(sent(&socket, at(1), 100, 100), [100]);
    assert_eq!(sent(&socket, at(2), 2400, 1200), [1200; 2], "to somebody else");
    assert!(came(&socket, at(1), &[0x40; 1250]).is_empty(), "not of a handshake");
    assert_eq!(came(&socket, at(1), &long([2; 8], 1250)), [1200], "the one that waited");
    assert_eq!(sent(&socket, at(1), 5 * 1300, 1300), [1300; 2], "3750 + 3750 - 3700 - 1200");
}

#[test]
fn counts_every_datagram_of_a_first_flight_and_no_other_flights() {
    let socket = counted();
    for _ in 0..2 {
        came(&socket, at(1), &long([1; 8], 1200));
        came(&socket, at(2), &long([1; 8], 1200));
    }
    let _unproven = socket.0.unproven(at(1), &[1; 8]);
    assert_eq!(sent(&socket, at(1), 9 * 1200, 1200), [1200; 6]);
    // What was not heard, or is forgotten, is the least that it can have been.
    let _other = socket.0.unproven(at(3), &[3; 8]);
    assert_eq!(sent(&socket, at(3), 9 * 1200, 1200), [1200; 3]);
    // The flight was counted; another handshake of the address has one of its own.
    let _again = socket.0.unproven(at(1), &[1; 8]);
    assert_eq!(sent(&socket, at(1), 9 * 1200, 1200), [1200; 3]);
}

#[tokio::test(start_paused = true)]
async fn counts_until_the_address_is_proven_and_a_while_after_a_failure() {
    let socket = counted();
    let (fails, shakes) = (socket.0.unproven(at(1), &[1]), socket.0.unproven(at(2), &[2]));
    assert_eq!(sent(&socket, at(2), 4 * 1200, 1200), [1200; 3]);
    shakes.proven();
    assert_eq!(std::mem::take(&mut *socket.1.0.lock().unwrap()), [1200], "it waited");
    assert_eq!(sent(&socket, at(2), 9 * 1200, 1200), [1200; 9]);
    assert_eq!(sent(&socket, at(1), 3 * 1200, 1200), [1200; 3]);
    drop(fails);
    assert!(sent(&socket, at(1), 1200, 1200).is_empty(), "its last words");
    tokio::time::advance(LINGERS).await;
    let _next = socket.0.unproven(at(3), &[3]);
    assert_eq!(socket.0.books().accounts.len(), 1);
    assert_eq!(sent(&socket, at(1), 1200, 1200), [1200]);
}

#[test]
fn strangers_that_are_not_admitted_leave_nothing() {
    let socket = counted();
    for port in 0..10_000 {
        came(&socket, at(port), &long(u64::from(port).to_be_bytes(), 1200));
        came(&socket, at(port), &[0xc0; 3]);
        came(&socket, at(port), &[0xc0, 0, 0, 0, 1, 200, 1, 2]);
    }
    let books = socket.0.books();
    assert_eq!((books.heard.len(), books.accounts.len()), (HEARD, 0));
}

/// A packet of the Handshake level for `id`, or one of ours that names `id` as its source.
fn handshake(id: [u8; 20]) -> Vec<u8> {
    [&[0xe0, 0, 0, 0, 1, 20][..], &id, &[0; 40]].concat()
}

fn ours(id: [u8; 20], length: usize) -> Vec<u8> {
    let mut datagram = [&[0xc0, 0, 0, 0, 1, 2, 7, 7, 20][..], &id].concat();
    datagram.resize(length, 0);
    datagram
}

#[test]
fn a_packet_of_the_handshake_level_that_names_an_id_of_ours_is_proof() {
    let socket = counted();
    let _unproven = socket.0.unproven(at(1), &[1; 8]);
    let send = |contents: &[u8]| {
        let (destination, ecn, segment_size, src_ip) = (at(1), None, None, None);
        let transmit = Transmit { destination, ecn, contents, segment_size, src_ip };
        socket.0.try_send(&transmit).unwrap();
    };
    send(&ours([9; 20], 1100));
    // Whoever asks for a version chooses the id that the answer comes from.
    let mut versions = ours([8; 20], 100);
    versions[1..5].fill(0);
    send(&versions);
    socket.1.0.lock().unwrap().clear();
    assert_eq!(sent(&socket, at(1), 4 * 1200, 1200), [1200; 2], "as much went before");
    let initial = [&[0xc0, 0, 0, 0, 1, 20][..], &[9; 20], &[0; 14]].concat();
    for (datagram, what) in [
        (handshake([8; 20]), "an id of nobody, or of another connection"),
        (initial, "not of that level: anybody who saw the first packet may write one"),
    ] {
        assert!(came(&socket, at(1), &datagram).is_empty(), "{what}");
        assert!(sent(&socket, at(1), 1200, 1200).is_empty(), "{what}");
    }
    assert!(came(&socket, at(2), &handshake([9; 20])).is_empty(), "from elsewhere");
    assert_eq!(came(&socket, at(1), &handshake([9; 20])), [1200], "the one that waited");
    assert_eq!(sent(&socket, at(1), 9 * 1200, 1200), [1200; 9]);
}
