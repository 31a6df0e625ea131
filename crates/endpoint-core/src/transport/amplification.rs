//! How much may an address get that nobody proved? Three bytes for each of its own.
//!
//! quinn begins another datagram as long as one byte of the three is left, so what it sends can be almost a
//! datagram more. Here the datagrams of handshakes whose address is unproven are counted at the socket, and
//! one that is too much is lost on purpose: quinn sends it again when the client has been heard of.
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
    net::SocketAddr,
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
    udp::{RecvMeta, Transmit},
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

/// What came from addresses that are not proven, and what went to them. One for each socket.
pub(crate) struct Ledger {
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

#[derive(Debug, Default)]
struct Account {
    received: u64,
    sent: u64,
    handshakes: usize,
    proven: bool,
    /// When the last of its handshakes ended.
    ended: Option<Instant>,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        let books = Books { heard: vec![Heard::default(); HEARD], accounts: HashMap::new() };
        Arc::new(Self {
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
        Unproven { ledger: Arc::clone(self), address, proven: false }
    }

    /// Notes what came. Only packets with a long header begin handshakes or carry them on; to count fewer
    /// bytes than came is safe.
    fn came(&self, from: SocketAddr, datagram: &[u8]) {
        let Some(id) = destination_of(datagram) else { return };
        let bytes = u64::try_from(datagram.len()).unwrap_or(0);
        let mark = self.mark(from, id);
        let mut books = self.books();
        if let Some(account) = books.accounts.get_mut(&from) {
            account.received += bytes;
        } else if let Some(heard) = books.heard_at(mark) {
            match heard.mark == mark {
                true => heard.bytes += bytes,
                false => *heard = Heard { mark, bytes },
            }
        }
    }

    /// How many of `bytes`, in datagrams of `segment`, may go to an address now. They count as gone.
    fn goes(&self, to: SocketAddr, bytes: usize, segment: usize) -> usize {
        if self.open.load(Ordering::Acquire) == 0 {
            return bytes;
        }
        let mut books = self.books();
        let Some(account) = books.accounts.get_mut(&to).filter(|account| !account.proven) else {
            return bytes;
        };
        let room = (account.received * FACTOR).saturating_sub(account.sent);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let fits = if bytes <= room { bytes } else { room - room % segment.max(1) };
        account.sent += u64::try_from(fits).unwrap_or(0);
        fits
    }

    fn ended(&self, address: SocketAddr, proven: bool) {
        let now = Instant::now();
        let mut books = self.books();
        let lingering = books.accounts.len() <= MAX_LINGERING;
        if let Some(account) = books.accounts.get_mut(&address) {
            account.proven |= proven;
            account.handshakes = account.handshakes.saturating_sub(1);
            if account.handshakes == 0 {
                account.ended = Some(now);
                if account.proven || !lingering {
                    books.accounts.remove(&address);
                }
            }
        }
        self.open.store(books.accounts.len(), Ordering::Release);
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
    fn is_over(&self, now: Instant) -> bool {
        self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= LINGERS)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("open", &self.open).finish_non_exhaustive()
    }
}

/// A handshake whose address is not proven.
#[derive(Debug)]
pub(crate) struct Unproven {
    ledger: Arc<Ledger>,
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
        self.ledger.ended(self.address, self.proven);
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

/// A socket that keeps to its [`Ledger`].
#[derive(Debug)]
pub(crate) struct Counted {
    socket: Arc<dyn AsyncUdpSocket>,
    ledger: Arc<Ledger>,
}

impl Counted {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { socket, ledger })
    }
}

impl AsyncUdpSocket for Counted {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let all = transmit.contents.len();
        let segment = transmit.segment_size.unwrap_or(all);
        let fits = self.ledger.goes(transmit.destination, all, segment);
        if fits == all {
            return self.socket.try_send(transmit);
        }
        // Lost, as far as quinn can see.
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
                self.ledger.came(meta.addr, datagram);
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

    #[test]
    fn gives_three_bytes_for_one_in_whole_datagrams() {
        let ledger = Ledger::new();
        ledger.came(at(1), &long([1; 8], 1250));
        let _unproven = ledger.unproven(at(1), &[1; 8]);
        assert_eq!(ledger.goes(at(1), 10 * 1200, 1200), 3600, "of 3750");
        assert_eq!(ledger.goes(at(1), 1200, 1200), 0);
        assert_eq!(ledger.goes(at(1), 100, 100), 100);
        assert_eq!(ledger.goes(at(2), 5000, 1200), 5000, "to somebody else");
        ledger.came(at(1), &long([2; 8], 1250));
        assert_eq!(ledger.goes(at(1), 5 * 1452, 1452), 2 * 1452);
    }

    #[test]
    fn counts_every_datagram_of_a_first_flight_and_no_other_flights() {
        let ledger = Ledger::new();
        for _ in 0..2 {
            ledger.came(at(1), &long([1; 8], 1200));
            ledger.came(at(2), &long([1; 8], 1200));
            ledger.came(at(1), &[0x40; 1200]);
        }
        let _unproven = ledger.unproven(at(1), &[1; 8]);
        assert_eq!(ledger.goes(at(1), 100_000, 1200), 7200);
        // What was not heard, or is forgotten, is the least that it can have been.
        let _other = ledger.unproven(at(3), &[3; 8]);
        assert_eq!(ledger.goes(at(3), 100_000, 1200), 3600);
        // The flight was counted; another handshake of the address has one of its own.
        let _again = ledger.unproven(at(1), &[1; 8]);
        assert_eq!(ledger.goes(at(1), 100_000, 1200), 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_until_the_address_is_proven_and_a_while_after_a_failure() {
        let ledger = Ledger::new();
        let (fails, shakes) = (ledger.unproven(at(1), &[1]), ledger.unproven(at(2), &[2]));
        shakes.proven();
        assert_eq!(ledger.goes(at(2), 100_000, 1200), 100_000);
        assert_eq!(ledger.goes(at(1), 100_000, 1200), 3600);
        drop(fails);
        assert_eq!(ledger.goes(at(1), 1200, 1200), 0, "its last words");
        tokio::time::advance(LINGERS).await;
        let _next = ledger.unproven(at(3), &[3]);
        assert_eq!(ledger.books().accounts.len(), 1);
        assert_eq!(ledger.goes(at(1), 1200, 1200), 1200);
    }

    #[test]
    fn strangers_that_are_not_admitted_leave_nothing() {
        let ledger = Ledger::new();
        for port in 0..10_000 {
            ledger.came(at(port), &long(u64::from(port).to_be_bytes(), 1200));
            ledger.came(at(port), &[0xc0; 3]);
            ledger.came(at(port), &[0xc0, 0, 0, 0, 1, 200, 1, 2]);
        }
        let books = ledger.books();
        assert_eq!((books.heard.len(), books.accounts.len()), (HEARD, 0));
    }
}
