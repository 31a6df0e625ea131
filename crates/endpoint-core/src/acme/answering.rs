//! Who answers an authority's validations in tests: TLS-ALPN-01 and HTTP-01 on free ports.

use std::{
    collections::HashMap,
    future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    challenge,
    issuer::{Answer, Answers, Asked, Fault, IssueError},
};
use crate::config::ChallengeKind;

/// Publishes in memory, and answers from it.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) tls_port: u16,
    pub(super) http_port: u16,
    table: Arc<Table>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Table {
    pending: Mutex<HashMap<(ChallengeKind, String), Answer>>,
    published: Mutex<Vec<ChallengeKind>>,
    broken: Mutex<bool>,
}

impl Answering {
    pub(super) async fn start() -> Arc<Self> {
        let table = Arc::new(Table::default());
        let mut tasks = JoinSet::new();
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls_port = tls.local_addr().unwrap().port();
        let http_port = http.local_addr().unwrap().port();
        tasks.spawn(answer_tls(tls, Arc::clone(&table)));
        tasks.spawn(answer_http(http, Arc::clone(&table)));
        Arc::new(Self { tls_port, http_port, table, _tasks: tasks })
    }

    /// How many answers are given now.
    pub(super) fn pending(&self) -> usize {
        self.table.pending.lock().unwrap().len()
    }

    /// The proofs that were asked for, in order.
    pub(super) fn published(&self) -> Vec<ChallengeKind> {
        self.table.published.lock().unwrap().clone()
    }

    /// Fails to publish from now on.
    pub(super) fn break_store(&self) {
        *self.table.broken.lock().unwrap() = true;
    }
}

impl Answers for Answering {
    fn publish(&self, answer: Answer) -> Asked<'_, ()> {
        if *self.table.broken.lock().unwrap() {
            let detail = "no space".to_owned();
            let failed = IssueError { kind: Fault::Store, detail, retry_after: None };
            return Box::pin(future::ready(Err(failed)));
        }
        self.table.published.lock().unwrap().push(answer.kind);
        self.table.pending.lock().unwrap().insert(key(&answer), answer);
        Box::pin(future::ready(Ok(())))
    }

    fn withdraw(&self, answer: Answer) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.table.pending.lock().unwrap().remove(&key(&answer));
        Box::pin(future::ready(()))
    }
}

fn key(answer: &Answer) -> (ChallengeKind, String) {
    match answer.kind {
        ChallengeKind::TlsAlpn01 => (answer.kind, challenge::server_name(&answer.name)),
        ChallengeKind::Http01 => (answer.kind, answer.token.clone()),
    }
}

impl ResolvesServerCert for Table {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = (ChallengeKind::TlsAlpn01, hello.server_name()?.to_owned());
        let answer = self.pending.lock().unwrap().get(&key).cloned()?;
        let (name, text) = (&answer.name, &answer.key_authorization);
        challenge::certificate(name, text, &default_provider()).ok()
    }
}

async fn answer_tls(listener: TcpListener, table: Arc<Table>) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(table);
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.shutdown().await;
            }
        });
    }
}

async fn answer_http(listener: TcpListener, table: Arc<Table>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let table = Arc::clone(&table);
        connections.spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8_lossy(&head);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let token = path.trim_start_matches("/.well-known/acme-challenge/").to_owned();
            let key = (ChallengeKind::Http01, token);
            let answer = table.pending.lock().unwrap().get(&key).cloned();
            let body = answer.map(|answer| answer.key_authorization).unwrap_or_default();
            let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

/// Whether the certificate of `leaf` is for that name or address.
pub(super) fn is_for(leaf: &rustls_pki_types::CertificateDer<'static>, name: &str) -> bool {
    let parsed = rustls::server::ParsedCertificate::try_from(leaf).unwrap();
    let name = match name.parse::<IpAddr>() {
        Ok(address) => rustls_pki_types::ServerName::from(address),
        Err(_) => rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap(),
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}
