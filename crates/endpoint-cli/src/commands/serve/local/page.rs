//! The status page and what belongs to it, as answers.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use tokio::sync::broadcast::error::RecvError;

use super::{Facts, document};
use crate::web::{Refusal, Response};

/// Nothing but this listener's own style, script and data.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn style() -> Response {
    of("text/css; charset=utf-8", include_str!("style.css"))
}

pub(super) fn script() -> Response {
    of("text/javascript; charset=utf-8", include_str!("script.js"))
}

pub(super) fn json(facts: &Facts) -> Response {
    of("application/json", facts.all().to_string())
}

/// The page as it stands now.
pub(super) fn page(facts: &Facts) -> Response {
    of("text/html; charset=utf-8", document::html(&facts.all()))
}

fn of(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Events as they happen (the event stream of the HTML standard).
pub(super) fn events(facts: &Facts) -> Response {
    let Some(reader) = facts.events() else {
        let sentence = "as many pages as may are watching already";
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence).into();
    };
    let hello = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b": hello\n\n"))]);
    let feed = stream::unfold(reader, |(mut events, place)| async move {
        let line = match events.recv().await {
            Ok(event) => {
                format!("data: {}\n\n", serde_json::to_string(&event).unwrap_or_default())
            }
            Err(RecvError::Lagged(lost)) => format!("event: lost\ndata: {lost}\n\n"),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(Bytes::from(line)), (events, place)))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(hello, feed));
    of("text/event-stream", body)
}
