//! One request whose body goes, and whose answer comes, part by part.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::{
    http::{Failure, alpn},
    wire::{self, Client},
};

/// Longest wait for a head or a part.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request under way, on a connection of its own; both end when this is dropped.
#[derive(Debug)]
pub struct Exchange {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's header fields.
    pub headers: HeaderMap,
    up: Option<mpsc::Sender<Bytes>>,
    down: mpsc::Receiver<Result<Bytes, Failure>>,
    _running: Running,
}

#[derive(Debug)]
struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Head = (StatusCode, HeaderMap);

impl Exchange {
    /// Sends the head of a request and reads the head of the answer. `up` says whether parts of a body
    /// follow.
    ///
    /// # Errors
    /// As the stack says.
    pub async fn begin(
        version: Version,
        server: SocketAddr,
        client: &Client,
        request: Request<()>,
        up: bool,
    ) -> Result<Self, Failure> {
        let client = client.clone().offering(&[alpn(version)]);
        let (send_up, parts) = mpsc::channel(1);
        let (send_head, head) = tokio::sync::oneshot::channel();
        let (send_down, down) = mpsc::channel(1);
        let running = tokio::spawn(async move {
            let name = request.uri().host().unwrap_or("localhost").to_owned();
            let parts = up.then_some(parts);
            let told = match version {
                Version::HTTP_3 => {
                    http3(server, &name, &client, request, parts, send_head, &send_down).await
                }
                _ => {
                    http(version, server, &name, &client, request, parts, send_head, &send_down)
                        .await
                }
            };
            if let Err(failure) = told {
                let _ = send_down.send(Err(failure)).await;
            }
        });
        let mut exchange = Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            up: up.then_some(send_up),
            down,
            _running: Running(running),
        };
        match tokio::time::timeout(PATIENCE, head).await {
            Ok(Ok((status, headers))) => {
                (exchange.status, exchange.headers) = (status, headers);
                Ok(exchange)
            }
            Ok(Err(_)) => match exchange.next().await {
                Some(Err(failure)) => Err(failure),
                other => Err(format!("no head: {other:?}")),
            },
            Err(_) => Err("no head in time".into()),
        }
    }

    /// Sends a part of the body.
    ///
    /// # Panics
    /// If none was announced.
    pub async fn send(&self, part: impl Into<Bytes>) {
        let up = self.up.as_ref().expect("a body");
        // A connection that ended tells so when it is read.
        let _ = up.send(part.into()).await;
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.up = None;
    }

    /// The next part of the answer; `None` after its proper end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        match tokio::time::timeout(PATIENCE, self.down.recv()).await {
            Ok(part) => part,
            Err(_) => Some(Err("silence".into())),
        }
    }
}

async fn http3(
    server: SocketAddr,
    name: &str,
    client: &Client,
    request: Request<()>,
    parts: Option<mpsc::Receiver<Bytes>>,
    head: tokio::sync::oneshot::Sender<Head>,
    down: &mpsc::Sender<Result<Bytes, Failure>>,
) -> Result<(), Failure> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let socket = wire::socket();
    let quinn = client.dial(&socket, server, name).await.map_err(|error| text(&error))?;
    let (mut driver, mut send) =
        h3::client::new(h3_quinn::Connection::new(quinn)).await.map_err(|error| text(&error))?;
    let driven = Running(tokio::spawn(async move {
        driver.wait_idle().await;
    }));
    let stream = send.send_request(request).await.map_err(|error| text(&error))?;
    let (mut up, mut answer) = stream.split();
    let sending = async {
        let mut parts = parts;
        while let Some(part) = match &mut parts {
            Some(parts) => parts.recv().await,
            None => None,
        } {
            if up.send_data(part).await.is_err() {
                return;
            }
        }
        let _ = up.finish().await;
    };
    let receiving = async {
        let response = answer.recv_response().await.map_err(|error| text(&error))?;
        let _ = head.send((response.status(), response.headers().clone()));
        while let Some(mut data) = answer.recv_data().await.map_err(|error| text(&error))? {
            let _ = down.send(Ok(data.copy_to_bytes(data.remaining()))).await;
        }
        Ok(())
    };
    let ((), received) = tokio::join!(sending, receiving);
    drop(driven);
    received
}

#[allow(clippy::too_many_arguments, reason = "the two ways take the same")]
async fn http(
    version: Version,
    server: SocketAddr,
    name: &str,
    client: &Client,
    mut request: Request<()>,
    parts: Option<mpsc::Receiver<Bytes>>,
    head: tokio::sync::oneshot::Sender<Head>,
    down: &mpsc::Sender<Result<Bytes, Failure>>,
) -> Result<(), Failure> {
    let text = |error: hyper::Error| format!("{error:?}");
    let stream =
        client.dial_tcp("127.0.0.1", server, name, b"").await.map_err(|e| e.to_string())?;
    let io = TokioIo::new(stream);
    let body: UnsyncBoxBody<Bytes, Infallible> = match parts {
        Some(parts) => StreamBody::new(futures_util::stream::unfold(parts, |mut parts| async {
            let part = parts.recv().await?;
            Some((Ok(Frame::data(part)), parts))
        }))
        .boxed_unsync(),
        None => Empty::new().boxed_unsync(),
    };
    let (response, _driven) = if version == Version::HTTP_2 {
        let (mut send, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(text)?;
        let driven = Running(tokio::spawn(async { drop(driver.await) }));
        (send.send_request(request.map(|()| body)).await, (driven, None, Some(send)))
    } else {
        let authority = request.uri().authority().expect("an authority").as_str();
        let host = authority.parse().expect("a field value");
        request.headers_mut().insert("host", host);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().expect("a path");
        let (mut send, driver) = hyper::client::conn::http1::handshake(io).await.map_err(text)?;
        let driven = Running(tokio::spawn(async { drop(driver.await) }));
        (send.send_request(request.map(|()| body)).await, (driven, Some(send), None))
    };
    let response = response.map_err(text)?;
    let _ = head.send((response.status(), response.headers().clone()));
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        // The end of an HTTP/2 stream may come as an empty part.
        let data = frame.map_err(text)?.into_data();
        if let Some(data) = data.ok().filter(|data| !data.is_empty()) {
            let _ = down.send(Ok(data)).await;
        }
    }
    Ok(())
}
