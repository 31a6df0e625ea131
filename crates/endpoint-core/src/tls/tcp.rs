//! How are hands shaken over TCP?
//!
//! The twin of `session`: waits for the hello, makes the same choice, and goes on with what was
//! chosen. The caller sets the deadline.

use std::{io, sync::Arc};

use rustls::{
    pki_types::ServerName,
    server::{Acceptor, ClientHello},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server::TlsStream};

use crate::{
    alpn::Alpn,
    facts::{Carrier, PeerKey, Reach},
};

use super::{
    Choice, Handshake, PeerKeyError, TlsServer, choose,
    client::Dial,
    hello::{self, Alert, Hello, Protocols},
    proven_key, server,
};

/// Shakes hands with a client on `stream`.
///
/// # Errors
/// [`TcpTlsError`]; a client that was refused has been sent its alert.
pub(crate) async fn accept_tcp<S>(
    server: &Arc<TlsServer>,
    reach: Reach,
    stream: S,
) -> Result<(TlsStream<S>, Handshake, PeerKey), TcpTlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let choice = match chosen(server, &start.client_hello(), reach) {
        Ok(Asked::Chosen(choice)) => Ok(choice),
        Ok(Asked::Challenge(name)) => challenge(server, &name).await,
        Err(alert) => Err(alert),
    };
    let Choice { handshake, config } = match choice {
        Ok(choice) => choice,
        Err(alert) => {
            // A refused client learns its alert if the socket takes it.
            let _ = start.io.write_all(&fatal(alert)).await;
            let _ = start.io.shutdown().await;
            return Err(TcpTlsError::Refused(alert));
        }
    };
    let stream = start.into_stream(config).await?;
    let (_, session) = stream.get_ref();
    let name = match session.server_name() {
        Some(name) => hello::normalized(name.as_bytes()).map_err(TcpTlsError::Refused)?,
        None => None,
    };
    // A second hello (RFC 8446 §4.1.2) must not have changed the answer; without ALPN there is none.
    let same_protocol = match session.alpn_protocol() {
        Some(protocol) => protocol == handshake.alpn.as_bytes(),
        None => handshake.alpn == Alpn::HTTP_1_1 && !handshake.profile.asks(),
    };
    if name != handshake.server_name || !same_protocol {
        return Err(TcpTlsError::Refused(Alert::ILLEGAL_PARAMETER));
    }
    let key = proven_key(handshake.profile, session.peer_certificates().unwrap_or_default())?;
    Ok((stream, handshake, key))
}

/// Shakes hands with the server of a dial on `stream`; gives the protocol negotiated.
///
/// Like every TLS 1.3 client it is done before the server has judged its key.
///
/// # Errors
/// [`TcpTlsError`]; the dial's verdict says what the verifier saw.
pub(crate) async fn connect_tcp<S>(
    dial: &Dial,
    stream: S,
) -> Result<(client::TlsStream<S>, Alpn), TcpTlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(dial.server_name.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(Arc::new(dial.config.clone())).connect(name, stream).await?;
    let alpn = stream.get_ref().1.alpn_protocol().and_then(|name| Alpn::new(name).ok());
    match alpn {
        Some(alpn) => Ok((stream, alpn)),
        None => Err(TcpTlsError::Refused(Alert::NO_APPLICATION_PROTOCOL)),
    }
}

/// What a hello comes to.
enum Asked {
    Chosen(Choice),
    /// An authority asks for the challenge of that name.
    Challenge(String),
}

/// The same choice as on QUIC, from the fields that rustls has read.
fn chosen(server: &TlsServer, read: &ClientHello<'_>, reach: Reach) -> Result<Asked, Alert> {
    let mut list = Vec::new();
    for name in read.alpn().into_iter().flatten() {
        list.push(u8::try_from(name.len()).map_err(|_| Alert::DECODE_ERROR)?);
        list.extend_from_slice(name);
    }
    let server_types = read.server_cert_types().map(numbers);
    let client_types = read.client_cert_types().map(numbers);
    let hello = Hello {
        server_name: match read.server_name() {
            Some(name) => hello::normalized(name.as_bytes())?,
            None => None,
        },
        protocols: if list.is_empty() { None } else { Some(Protocols::new(&list)?) },
        server_types: server_types.as_deref(),
        client_types: client_types.as_deref(),
    };
    if let Some(name) = choose::challenged(&hello) {
        return Ok(Asked::Challenge(name.to_owned()));
    }
    server.choose(&hello, Carrier::Tcp, reach).map(Asked::Chosen)
}

/// Answers a challenge, which may be pending in another process.
async fn challenge(server: &TlsServer, name: &str) -> Result<Choice, Alert> {
    let answer = server.challenges().tls_alpn_anywhere(name).await;
    server::challenge(name, answer.ok_or(Alert::NO_APPLICATION_PROTOCOL)?, Carrier::Tcp)
}

fn numbers(types: &[rustls::server::CertificateType]) -> Vec<u8> {
    types.iter().map(|kind| u8::from(*kind)).collect()
}

/// An alert in a plaintext record (RFC 8446 §5.1, §6).
fn fatal(alert: Alert) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert.code()]
}

/// Why no TLS link over TCP came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TcpTlsError {
    /// The stream or the handshake on it failed; rustls has sent the alert.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    /// The peer's key cannot be read.
    #[error(transparent)]
    PeerKey(#[from] PeerKeyError),
    /// The choice refused the hello.
    #[error("the TLS handshake was refused with alert {}", .0.code())]
    Refused(Alert),
}
