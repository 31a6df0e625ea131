//! How much may an address get that nobody proved? Three bytes for each of its own.
//!
//! quinn begins another datagram as long as one byte of the three is left, so what it sends can be almost a
//! datagram more. Here the datagrams of handshakes whose address is unproven are counted at the socket, and
//! one that is too much waits until the client has been heard of again.
//! Not here: who is admitted at all (`admission`).
//!
//! Always true: between the first packet of an unproven address and the end of its handshake, no more than
//! three times what came from it goes to it; what is not known to have come counts as not come; a source that
//! was not admitted leaves nothing but a place in a table of fixed size.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::time::Instant;

//= https://www.rfc-editor.org/rfc/rfc9000#section-8.1
//# Prior to validating the client address, servers MUST NOT send more than three times as many bytes as the
//# number of bytes they have received.
const FACTOR: u64 = 3;
/// The least that a datagram with a client's first packet has (RFC 9000 §14.1).
const LEAST_FIRST_BYTES: u64 = 1200;
/// First flights that are remembered until they are admitted or others take their place.
const HEARD: usize = 1024;
/// How long a failed handshake is still counted: its last words may go out after it.
const LINGERS: Duration = Duration::from_secs(3);
/// Failed handshakes that are counted so at one time.
const MAX_LINGERING: usize = 1024;

/// A socket that gives addresses which are not proven no more than they may have.
pub(crate) struct Counted {
    socket: Arc<dyn AsyncUdpSocket>,
    books: Mutex<Books>,
    /// Addresses that are being counted, for a look without the lock.
    open: AtomicUsize,
    hashes: RandomState,
}

struct Books {
    heard: Vec<Heard>,
    accounts: HashMap<SocketAddr, Account>,
}

/// The datagrams of one first flight that nobody has admitted yet.
#[derive(Clone, Copy, Default)]
struct Heard {
    /// Of the address and of the connection id that the client chose.
    mark: u64,
    bytes: u64,
}

#[derive(Default)]
struct Account {
    received: u64,
    sent: u64,
    handshakes: usize,
    proven: bool,
    /// When the last of its handshakes ended.
    ended: Option<Instant>,
    /// The one datagram that quinn began although it did not fit.
    waits: Option<Datagram>,
}

/// A datagram that is to be sent.
struct Datagram {
    to: SocketAddr,
    from: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    bytes: Box<[u8]>,
}

impl Counted {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        let books = Books { heard: vec![Heard::default(); HEARD], accounts: HashMap::new() };
        Arc::new(Self {
            socket,
            books: Mutex::new(books),
            open: AtomicUsize::new(0),
            hashes: RandomState::new(),
        })
    }

    /// Counts a handshake of `address`, whose first packet named the connection `id`, until what this gives
    /// is dropped. Called before the handshake is accepted: nothing may have gone to it yet.
    pub(crate) fn unproven(self: &Arc<Self>, address: SocketAddr, id: &[u8]) -> Unproven {
        let mark = self.mark(address, id);
        let now = Instant::now();
        let mut books = self.books();
        let heard = books.heard_at(mark).map_or(0, |heard| match heard.mark == mark {
            true => std::mem::take(&mut heard.bytes),
            false => 0,
        });
        books.accounts.retain(|_, account| !account.is_over(now));
        let account = books.accounts.entry(address).or_default();
        account.received += heard.max(LEAST_FIRST_BYTES);
        account.handshakes += 1;
        account.ended = None;
        self.open.store(books.accounts.len(), Ordering::Release);
        Unproven { socket: Arc::clone(self), address, proven: false }
    }

    /// Notes what came; gives a datagram for which there is room now. Only packets with a long header begin
    /// handshakes or carry them on; to count fewer bytes than came is safe.
    fn came(&self, from: SocketAddr, datagram: &[u8]) -> Option<Datagram> {
        let id = destination_of(datagram)?;
        let bytes = u64::try_from(datagram.len()).unwrap_or(0);
        let mark = self.mark(from, id);
        let mut books = self.books();
        if let Some(account) = books.accounts.get_mut(&from) {
            account.received += bytes;
            return account.fitting();
        }
        let heard = books.heard_at(mark)?;
        match heard.mark == mark {
            true => heard.bytes += bytes,
            false => *heard = Heard { mark, bytes },
        }
        None
    }

    /// How many bytes of a batch may go now; they count as gone. One datagram that does not fit waits, more
    /// are lost.
    fn goes(&self, transmit: &Transmit<'_>) -> usize {
        let all = transmit.contents.len();
        if self.open.load(Ordering::Acquire) == 0 {
            return all;
        }
        let mut books = self.books();
        let account = books.accounts.get_mut(&transmit.destination);
        let Some(account) = account.filter(|account| !account.proven) else { return all };
        let segment = transmit.segment_size.unwrap_or(all).max(1);
        let room = account.room();
        let fits = if all <= room { all } else { room - room % segment };
        account.sent += u64::try_from(fits).unwrap_or(0);
        if let Some(rest) = transmit.contents.get(fits..).filter(|rest| !rest.is_empty()) {
            let bytes = rest.get(..segment).unwrap_or(rest).into();
            account.waits.get_or_insert(Datagram {
                to: transmit.destination,
                from: transmit.src_ip,
                ecn: transmit.ecn,
                bytes,
            });
        }
        fits
    }

    fn ended(&self, address: SocketAddr, proven: bool) {
        let now = Instant::now();
        let mut books = self.books();
        let lingering = books.accounts.len() <= MAX_LINGERING;
        let mut waited = None;
        if let Some(account) = books.accounts.get_mut(&address) {
            account.proven |= proven;
            account.handshakes = account.handshakes.saturating_sub(1);
            if account.proven {
                waited = account.waits.take();
            }
            if account.handshakes == 0 {
                account.ended = Some(now);
                account.waits = None;
                if account.proven || !lingering {
                    books.accounts.remove(&address);
                }
            }
        }
        self.open.store(books.accounts.len(), Ordering::Release);
        drop(books);
        self.send(waited);
    }

    /// Sends what waited. Where the socket takes nothing it is lost, which quinn mends.
    fn send(&self, datagram: Option<Datagram>) {
        let Some(Datagram { to, from, ecn, bytes }) = datagram else { return };
        let _ = self.socket.try_send(&Transmit {
            destination: to,
            ecn,
            contents: &bytes,
            segment_size: None,
            src_ip: from,
        });
    }

    fn mark(&self, address: SocketAddr, id: &[u8]) -> u64 {
        self.hashes.hash_one((address, id))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn heard_at(&mut self, mark: u64) -> Option<&mut Heard> {
        let place = usize::try_from(mark % HEARD as u64).unwrap_or(0);
        self.heard.get_mut(place)
    }
}

impl Account {
    fn room(&self) -> usize {
        let room = (self.received * FACTOR).saturating_sub(self.sent);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// The datagram that waits, if it fits now; it counts as gone.
    fn fitting(&mut self) -> Option<Datagram> {
        let room = self.room();
        let datagram = self.waits.take_if(|datagram| datagram.bytes.len() <= room)?;
        self.sent += u64::try_from(datagram.bytes.len()).unwrap_or(0);
        Some(datagram)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= LINGERS)
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { socket, open, .. } = self;
        f.debug_struct("Counted")
            .field("socket", socket)
            .field("open", open)
            .finish_non_exhaustive()
    }
}

/// A handshake whose address is not proven.
#[derive(Debug)]
pub(crate) struct Unproven {
    socket: Arc<Counted>,
    address: SocketAddr,
    proven: bool,
}

impl Unproven {
    /// Hands are shaken, so the address has answered.
    pub(crate) fn proven(mut self) {
        self.proven = true;
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        self.socket.ended(self.address, self.proven);
    }
}

/// The destination connection id of a packet with a long header (RFC 8999 §5.1).
fn destination_of(datagram: &[u8]) -> Option<&[u8]> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let (length, rest) = rest.get(4..)?.split_first()?;
    rest.get(..usize::from(*length))
}

impl AsyncUdpSocket for Counted {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let fits = self.goes(transmit);
        if fits == transmit.contents.len() {
            return self.socket.try_send(transmit);
        }
        let Some(contents) = transmit.contents.get(..fits).filter(|some| !some.is_empty()) else {
            return Ok(());
        };
        let segment_size = transmit.segment_size.filter(|segment| *segment < fits);
        self.socket.try_send(&Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn,
            contents,
            segment_size,
            src_ip: transmit.src_ip,
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(cx, buffers, meta))?;
        for (buffer, meta) in buffers.iter().zip(meta.iter()).take(count) {
            let came = buffer.get(..meta.len).unwrap_or_default();
            for datagram in came.chunks(meta.stride.max(1)) {
                let waited = self.came(meta.addr, datagram);
                self.send(waited);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
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
}
