//! The endpoint, used as a program would use it.

use std::net::SocketAddr;

use endpoint_core::{
    Access, Alpn, AuthorizedPeers, Connection, Endpoint, Handler, HandlerError, Identity, Limits,
    LinkError, Permit, RecvStream, SendStream, Target, TlsIdentity,
};

use crate::{
    raw::{ALPN, NAME, Pem, nth_name},
    subject::{MAX_REQUEST_BYTES, Subject},
};

const SERVER_SEED: [u8; 32] = [1; 32];
const CLIENT_SEED: [u8; 32] = [2; 32];

/// Answers each stream with what it brought.
struct Answer;

impl Handler for Answer {
    async fn serve(&self, connection: Connection, _permit: Permit) -> Result<(), HandlerError> {
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(answer(send, recv));
        }
        Ok(())
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream) -> Result<(), LinkError> {
    let request = recv.read_to_end(MAX_REQUEST_BYTES).await?;
    send.write_all(&request).await?;
    send.finish().await
}

pub struct Server {
    endpoint: Endpoint,
    certificate_hex: String,
    _files: tempfile::TempDir,
}

pub async fn serve(subject: Subject) -> Result<Server, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let pem = Pem::new()?;
    let files = tempfile::tempdir().map_err(|error| text(&error))?;
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert, &pem.certificate).map_err(|error| text(&error))?;
    std::fs::write(&key, &pem.key).map_err(|error| text(&error))?;
    let peers = format!("{}\n", Identity::from_seed(&CLIENT_SEED).fingerprint());
    let alpn = Alpn::new(ALPN).map_err(|error| text(&error))?;
    let access = if subject.is_x509() { Access::Public } else { Access::default() };
    // One client plays all peers.
    let limits = Limits::default().connections(1_000_000).connections_per_peer(1_000_000);
    let endpoint = Endpoint::builder(Identity::from_seed(&SERVER_SEED))
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .server_names(
            (0..subject.names()).map(nth_name).chain([NAME.to_owned()]),
            TlsIdentity::X509 { cert, key },
        )
        .authorized(AuthorizedPeers::from_text(&peers).map_err(|error| text(&error))?)
        .limits(limits)
        .handle(alpn, access, Answer)
        .bind()
        .await
        .map_err(|error| text(&error))?;
    Ok(Server { endpoint, certificate_hex: pem.hex(), _files: files })
}

impl Server {
    pub fn address(&self) -> Result<SocketAddr, String> {
        self.endpoint.local_addrs().first().copied().ok_or_else(|| "nothing listens".to_owned())
    }

    pub fn certificate_hex(&self) -> String {
        self.certificate_hex.clone()
    }
}

pub struct Client {
    endpoint: Endpoint,
    target: Target,
}

impl Client {
    pub async fn new(server: SocketAddr) -> Result<Self, String> {
        let endpoint = Endpoint::builder(Identity::from_seed(&CLIENT_SEED)).bind().await;
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let pin = Identity::from_seed(&SERVER_SEED).fingerprint().hex();
        let target = format!("peer://{pin}@{server}").parse();
        Ok(Self { endpoint, target: target.map_err(|error| format!("{error}"))? })
    }

    pub async fn connect(&self) -> Result<Connection, String> {
        let connected = self.endpoint.connect(&self.target, ALPN).await;
        connected.map_err(|error| error.to_string())
    }
}

pub async fn request(connection: &Connection, request: &[u8]) -> Result<Vec<u8>, String> {
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(request).await?;
        send.finish().await?;
        recv.read_to_end(MAX_REQUEST_BYTES).await
    };
    exchange.await.map_err(|error: LinkError| error.to_string())
}
