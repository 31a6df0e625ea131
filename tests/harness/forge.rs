//! A UDP relay that lets a client's datagrams leave from whichever loopback address the test says: one that
//! reads what the server sends there, or one that never does, as if its address were forged.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// A relay on a free port of 127.0.0.1. Datagrams leave from its first host until the test says otherwise.
#[derive(Debug)]
pub struct Forge {
    front: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    front: Arc<UdpSocket>,
    hosts: Vec<Host>,
    /// The hosts that datagrams leave from, in turn.
    turns: Mutex<Vec<usize>>,
    sent: AtomicUsize,
    client: Mutex<Option<SocketAddr>>,
}

#[derive(Debug)]
struct Host {
    socket: UdpSocket,
    reads: bool,
    heard: AtomicUsize,
}

impl Forge {
    /// Stands before `server`; each host is an address of loopback, and whether what comes there is read.
    pub async fn before(server: SocketAddr, hosts: &[(&str, bool)]) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"));
        let mut sockets = Vec::new();
        for (host, reads) in hosts {
            let socket = UdpSocket::bind((*host, 0)).await.expect("an address of loopback");
            socket.connect(server).await.expect("the server's address");
            sockets.push(Host { socket, reads: *reads, heard: AtomicUsize::new(0) });
        }
        let at = front.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            front,
            hosts: sockets,
            turns: Mutex::new(vec![0]),
            sent: AtomicUsize::new(0),
            client: Mutex::new(None),
        });
        let mut tasks = vec![tokio::spawn(out(Arc::clone(&shared)))];
        for host in 0..hosts.len() {
            tasks.push(tokio::spawn(back(Arc::clone(&shared), host)));
        }
        Self { front: at, shared, tasks }
    }

    /// Where the client dials.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.front
    }

    /// Datagrams leave from these hosts from now on, in turn.
    pub fn leave_from(&self, hosts: &[usize]) {
        *lock(&self.shared.turns) = hosts.to_vec();
    }

    /// Datagrams that the server sent to a host.
    #[must_use]
    pub fn heard(&self, host: usize) -> usize {
        self.shared.hosts[host].heard.load(Ordering::SeqCst)
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn out(shared: Arc<Shared>) {
    let mut datagram = vec![0; 65536];
    loop {
        let Ok((length, client)) = shared.front.recv_from(&mut datagram).await else { continue };
        *lock(&shared.client) = Some(client);
        let turn = shared.sent.fetch_add(1, Ordering::SeqCst);
        let host = {
            let turns = lock(&shared.turns);
            turns[turn % turns.len()]
        };
        let _ = shared.hosts[host].socket.send(&datagram[..length]).await;
    }
}

async fn back(shared: Arc<Shared>, host: usize) {
    let Host { socket, reads, heard } = &shared.hosts[host];
    let mut datagram = vec![0; 65536];
    loop {
        let Ok(length) = socket.recv(&mut datagram).await else { continue };
        heard.fetch_add(1, Ordering::SeqCst);
        let client = *lock(&shared.client);
        if let Some(client) = client.filter(|_| *reads) {
            let _ = shared.front.send_to(&datagram[..length], client).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
