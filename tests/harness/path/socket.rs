//! UDP sockets with the marks that IP carries.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};

/// A UDP socket that sees congestion marks.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// Whence, how marked, and what.
pub(super) type Received = (SocketAddr, Option<EcnCodepoint>, Vec<u8>);

impl Socket {
    pub(super) fn bind(ip: IpAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        // What the machine gives is enough: a path may lose.
        let _ = socket.set_recv_buffer_size(1 << 20);
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(ip, 0).into())?;
        let socket = std::net::UdpSocket::from(socket);
        Ok(Self { state: UdpSocketState::new((&socket).into())?, io: UdpSocket::from_std(socket)? })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.io.local_addr().expect("an address")
    }

    /// Waits for datagrams. A server that is away shows as an error of the next call; that is no end.
    pub(super) async fn receive(&self) -> Vec<Received> {
        let mut buffer = vec![0; 64 * 1024];
        let mut metas = [RecvMeta::default()];
        let received = self
            .io
            .async_io(Interest::READABLE, || {
                let mut buffers = [io::IoSliceMut::new(&mut buffer)];
                self.state.recv((&self.io).into(), &mut buffers, &mut metas)
            })
            .await;
        let [meta] = metas;
        match received {
            Ok(_) => buffer[..meta.len]
                .chunks(meta.stride.max(1))
                .map(|bytes| (meta.addr, meta.ecn, bytes.to_vec()))
                .collect(),
            Err(_) => Vec::new(),
        }
    }

    pub(super) fn send(&self, to: SocketAddr, ecn: Option<EcnCodepoint>, bytes: &[u8]) {
        let transmit =
            Transmit { destination: to, ecn, contents: bytes, segment_size: None, src_ip: None };
        // A full buffer loses the datagram, as any path may. Not through the runtime, which does not know a
        // new socket as writable at first.
        let _ = self.state.try_send((&self.io).into(), &transmit);
    }
}
