//! What stands here without feature `tcp`: a TCP link that cannot exist.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{RecvStream, SendStream};
use crate::{close::CloseCode, error::LinkError};

/// A TLS connection over TCP: there is none.
#[derive(Debug)]
pub(crate) enum TcpLink {}

impl TcpLink {
    pub(super) fn ask(&self) -> bool {
        match *self {}
    }

    pub(super) fn asked(&self) {
        match *self {}
    }

    pub(super) fn moved_at(&self) -> tokio::time::Instant {
        match *self {}
    }

    pub(super) fn remote(&self) -> SocketAddr {
        match *self {}
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        match *self {}
    }

    pub(super) fn take(&self) -> Option<(SendStream, RecvStream)> {
        match *self {}
    }

    pub(super) fn close(&self, _code: CloseCode) {
        match *self {}
    }

    pub(super) async fn closed(&self) -> LinkError {
        match *self {}
    }
}

/// The sending direction of a TCP link: there is none.
pub(super) enum TcpSend {}

impl AsyncWrite for TcpSend {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}

/// The receiving direction of a TCP link: there is none.
pub(super) enum TcpRecv {}

impl AsyncRead for TcpRecv {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }
}
