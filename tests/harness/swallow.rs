//! What stands between a TCP client and a server, and from some moment on swallows all bytes.
//!
//! Both sides' kernels go on acknowledging, as they do behind a proxy whose own other side is gone.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinHandle,
};

/// A relay that can be made to swallow; it ends when dropped.
#[derive(Debug)]
pub struct Swallow {
    addr: SocketAddr,
    swallows: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Swallow {
    /// Listens on loopback and passes on to `server`.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (swallows, told) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, told.clone()));
                tokio::spawn(pass(from_server, to_client, told.clone()));
            }
        });
        Self { addr, swallows, accepting }
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on nothing comes through, ends neither.
    pub fn swallow(&self) {
        self.swallows.send_replace(true);
    }
}

impl Drop for Swallow {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallows: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !*swallows.borrow() && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    if *swallows.borrow() {
        // Its end is swallowed too, until the test is over.
        std::future::pending::<()>().await;
    }
}
