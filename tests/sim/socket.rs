//! The sockets of the made-up network: what is on its way to one, and when it is due.

use std::{
    collections::BinaryHeap,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::network::Net;

/// Datagrams on their way to one socket.
#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    /// The host is gone: nothing comes out of it any more.
    dead: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    datagrams: BinaryHeap<Due>,
    reader: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Ordered so that the heap gives the earliest first.
pub struct Due {
    pub at: Instant,
    pub number: u64,
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Inbox {
    pub fn push(&self, due: Due) {
        let mut waiting = self.waiting.lock().expect("a lock");
        waiting.datagrams.push(due);
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A socket of a made-up network.
pub struct Socket {
    net: Net,
    local: SocketAddr,
    inbox: Arc<Inbox>,
}

impl Socket {
    pub fn new(net: Net, local: SocketAddr, inbox: Arc<Inbox>) -> Self {
        Self { net, local, inbox }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.inbox.dead.load(Ordering::SeqCst) {
            self.net.send(self.local, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = self.inbox.waiting.lock().expect("a lock");
        waiting.reader = Some(cx.waker().clone());
        if self.inbox.dead.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        loop {
            let mut received = 0;
            while received < buffers.len()
                && waiting.datagrams.peek().is_some_and(|due| due.at <= Instant::now())
            {
                let Some(Due { from, bytes, .. }) = waiting.datagrams.pop() else { break };
                buffers[received][..bytes.len()].copy_from_slice(&bytes);
                metas[received] = RecvMeta {
                    addr: from,
                    len: bytes.len(),
                    stride: bytes.len(),
                    ecn: None,
                    dst_ip: Some(self.local.ip()),
                };
                received += 1;
            }
            if received > 0 {
                return Poll::Ready(Ok(received));
            }
            let Some(at) = waiting.datagrams.peek().map(|due| due.at) else { return Poll::Pending };
            let timer = waiting.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            timer.as_mut().reset(at);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.close(self.local, &self.inbox);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.local)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
