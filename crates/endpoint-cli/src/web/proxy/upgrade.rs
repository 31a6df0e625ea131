//! WebSocket (RFC 6455), which begins as an HTTP/1.1 request (RFC 9110 §7.8).
//!
//! Always true: no other protocol is changed to. What follows is not looked at any more, so a protocol that
//! carries requests, such as HTTP/2, would carry them past every rule.

use std::time::Duration;

use axum::body::Body;
use endpoint_core::http::RequestPermit;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{
    super::{Request, Response, rule::Slot},
    idle::{Moved, moving},
};

/// A request to change the protocol.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: OnUpgrade,
}

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The change that an HTTP/1.1 request asks for.
pub(super) fn wanted(request: &mut Request) -> Option<Tunnel> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let asks = |value: &HeaderValue| {
        let list = value.to_str().unwrap_or_default();
        list.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
    };
    let mut protocols = request.headers().get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    if protocols.next().is_some() || !protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    if !request.headers().get_all(header::CONNECTION).iter().any(asks) {
        return None;
    }
    Some(Tunnel { client: request.extensions_mut().remove::<OnUpgrade>()? })
}

/// Whether the upstream has changed to what it was asked for (RFC 6455 §4.2.2).
pub(super) fn agreed(response: &Response) -> bool {
    let protocol = response.headers().get(header::UPGRADE);
    protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && response.headers().contains_key(header::SEC_WEBSOCKET_ACCEPT)
}

impl Tunnel {
    /// Asks the upstream for the same.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
    }

    /// Joins both sides until one ends, neither says anything for `idle`, or the requester is no longer
    /// allowed.
    pub(super) fn connect(
        self,
        mut response: Response,
        permit: Option<RequestPermit>,
        slot: Option<Slot>,
        idle: Duration,
    ) -> Response {
        let upstream = on(&mut response);
        let client = self.client;
        tokio::spawn(async move {
            // A tunnel counts among the route's requests for as long as it lives.
            let _slot = slot;
            let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
            let moved = Moved::now();
            let mut client = moving(TokioIo::new(client), &moved);
            let mut upstream = moving(TokioIo::new(upstream), &moved);
            let ended = async {
                match &permit {
                    Some(permit) if permit.ends() => Some(permit.no_longer().await),
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                copied = copy_bidirectional(&mut client, &mut upstream) => {
                    tracing::debug!(ended = ?copied.is_ok(), "tunnel ended");
                }
                denial = ended => tracing::debug!(?denial, "tunnel cut off"),
                () = moved.idle(idle) => tracing::debug!("tunnel was silent for too long"),
            }
        });
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = response.headers().clone();
        super::fields::strip(answer.headers_mut());
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
        answer
    }
}
