//! The servers that are this program: ours, and the same stacks without us.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use bytes::Bytes;
use endpoint_core::{Access, Endpoint, Identity, Limits, TlsIdentity};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use tokio::io::AsyncBufReadExt;

use super::{NAME, Subject, Work, body};
use crate::{
    child::{self, SETTLE, say},
    raw::{Pem, our_transport},
    report::Named,
};

/// Connections and streams that a client may have here: one client plays all.
const MANY: usize = 1_000_000;

/// The server process.
pub fn run(subject: &str, files: &str) -> Result<(), String> {
    child::runtime()?.block_on(async {
        let (address, _server): (SocketAddr, Box<dyn std::any::Any>) =
            if subject == Subject::Endpoint.name() {
                let endpoint = ours(files).await?;
                let address = endpoint.local_addrs().first().copied().ok_or("nothing listens")?;
                (address, Box::new(endpoint))
            } else {
                let (address, endpoint) = bare().await?;
                (address, Box::new(endpoint))
            };
        say(format_args!("ready {address}"))?;
        let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tokio::time::sleep(SETTLE).await;
            child::answer(&line)?;
        }
        Ok(())
    })
}

/// The bodies by path.
fn bodies() -> Vec<(&'static str, Bytes)> {
    let bodies = Work::ALL.into_iter().filter_map(|work| match work {
        Work::Get { path, bytes } => Some((path, Bytes::from(body(bytes)))),
        Work::Connect => None,
    });
    bodies.collect()
}

async fn ours(files: &str) -> Result<Endpoint, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let pem = Pem::of(&[NAME])?;
    let files = std::path::Path::new(files);
    let (cert, key) = (files.join(".cert.pem"), files.join(".key.pem"));
    std::fs::write(&cert, &pem.certificate).map_err(|error| text(&error))?;
    std::fs::write(&key, &pem.key).map_err(|error| text(&error))?;
    let mut router = Router::new();
    for (path, bytes) in bodies() {
        let plain = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
        router = router.route(path, get(move || async move { (plain, bytes) }));
    }
    Endpoint::builder(Identity::from_seed(&[1; 32]))
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .server_name(NAME, TlsIdentity::X509 { cert, key })
        .limits(Limits::default().connections(MANY).connections_per_peer(MANY))
        .http(Access::Public, router)
        .bind()
        .await
        .map_err(|error| text(&error))
}

/// h3 over h3-quinn and hyper over tokio-rustls on the same port number, as their examples have it.
async fn bare() -> Result<(SocketAddr, quinn::Endpoint), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let pem = Pem::of(&[NAME])?;
    let chain = vec![
        CertificateDer::from_pem_slice(pem.certificate.as_bytes()).map_err(|error| text(&error))?,
    ];
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|error| text(&error))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| text(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| text(&error))?;
    let bodies = Arc::new(bodies());

    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls.clone());
    let crypto = crypto.map_err(|error| text(&error))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = our_transport();
    transport.max_concurrent_bidi_streams(100_u32.into());
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        Some(config),
        crate::raw::socket()?,
        Arc::new(quinn::TokioRuntime),
    );
    let endpoint = endpoint.map_err(|error| text(&error))?;
    let address = endpoint.local_addr().map_err(|error| text(&error))?;
    tokio::spawn(accept_http3(endpoint.clone(), Arc::clone(&bodies)));

    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| text(&error))?;
    tokio::spawn(accept_tcp(listener, Arc::new(tls).into(), bodies));
    Ok((address, endpoint))
}

fn answer(path: &str, bodies: &[(&'static str, Bytes)]) -> (Response<()>, Bytes) {
    let mut response = Response::new(());
    let Some((_, body)) = bodies.iter().find(|(known, _)| *known == path) else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return (response, Bytes::new());
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    (response, body.clone())
}

type Bodies = Arc<Vec<(&'static str, Bytes)>>;

async fn accept_http3(endpoint: quinn::Endpoint, bodies: Bodies) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve_http3(incoming, Arc::clone(&bodies)));
    }
}

async fn serve_http3(incoming: quinn::Incoming, bodies: Bodies) -> Option<()> {
    let connection = h3_quinn::Connection::new(incoming.await.ok()?);
    let mut http3 = h3::server::builder().build::<_, Bytes>(connection).await.ok()?;
    while let Ok(Some(resolver)) = http3.accept().await {
        let bodies = Arc::clone(&bodies);
        tokio::spawn(async move {
            let (request, mut stream) = resolver.resolve_request().await.ok()?;
            let (response, body) = answer(request.uri().path(), &bodies);
            stream.send_response(response).await.ok()?;
            stream.send_data(body).await.ok()?;
            stream.finish().await.ok()
        });
    }
    Some(())
}

async fn accept_tcp(
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    bodies: Bodies,
) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_tcp(stream, acceptor.clone(), Arc::clone(&bodies)));
    }
}

async fn serve_tcp(
    stream: tokio::net::TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    bodies: Bodies,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let stream = acceptor.accept(stream).await.ok()?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (response, body) = answer(request.uri().path(), &bodies);
        async { Ok::<_, Infallible>(response.map(|()| Full::new(body))) }
    });
    let io = TokioIo::new(stream);
    match http2 {
        true => hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await
            .ok(),
        false => {
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok()
        }
    }
}
