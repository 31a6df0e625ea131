//! How much may an address get that nobody proved? Three bytes for each of its own.
//!
//! quinn begins another datagram as long as one byte of the three is left, so what it sends can be almost a
//! datagram more. Here the datagrams of handshakes whose address is unproven are counted at the socket, and
//! one that is too much waits until the client has been heard of again. That ends with the first packet of the
//! Handshake level which names a connection id that was sent to the address: nobody can name it who has not read
//! that (RFC 9000 §8.1), and from there on quinn counts no more, and takes what is lost here for lost on the way.
//! Not here: who is admitted at all (`admission`).
//!
//! Always true: between the first packet of an unproven address and the proof of it, no more than three times
//! what came from it goes to it; what is not known to have come counts as not come; a source that
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
/// Connection ids of ours that an address is told while it shakes hands; each handshake has one.
const IDS: usize = 8;
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
    /// Ids of ours that were sent to it.
    told: Vec<Box<[u8]>>,
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
            if is_of_handshake_level(datagram) && account.told.iter().any(|told| **told == *id) {
                account.proven = true;
                return account.waits.take();
            }
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
        account.tell(source_of(transmit.contents));
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

    /// Notes the id of ours that a datagram to it names.
    fn tell(&mut self, id: Option<&[u8]>) {
        let Some(id) = id.filter(|id| !id.is_empty() && self.told.len() < IDS) else { return };
        if self.told.iter().all(|told| **told != *id) {
            self.told.push(id.into());
        }
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
    Some(ids_of(datagram)?.0)
}

/// The source connection id of a packet that shakes hands. Not that of a version negotiation: whoever made us write
/// it has chosen it (RFC 9000 §17.2.1).
fn source_of(datagram: &[u8]) -> Option<&[u8]> {
    let [first, version @ ..] = datagram.first_chunk::<5>()?;
    // Initial and Handshake, no Retry.
    if *version == [0; 4] || first & 0x10 != 0 {
        return None;
    }
    let (length, rest) = ids_of(datagram)?.1.split_first()?;
    rest.get(..usize::from(*length))
}

/// The destination connection id of one, and what follows it.
fn ids_of(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let (length, rest) = rest.get(4..)?.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Whether the first packet of a datagram is one (RFC 9000 §17.2.4).
fn is_of_handshake_level(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xb0 == 0xa0)
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
#[path = "amplification_tests.rs"]
mod tests;
