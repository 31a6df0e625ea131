//! HTTP/3, by h3 over quinn (RFC 9114).
//!
//! h3 reads the requests, [`Exchange`] does the rest of each. The requests of a connection run in the
//! connection's own task: a handler that computes for long spawns that.

use std::{future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use h3::error::ConnectionError;
use tokio::time::Instant;

use super::{
    Answers, Requester,
    http3_exchange::{End, Exchange, Serving},
    limits::{FIELD_SECTION_BYTES, LARGE_BODY_WINDOW_BYTES},
    meter::Role,
    quic::Metered,
    resets::Resets,
    service::HttpService,
};
use crate::{
    close::CloseCode,
    handler::{Connection, HandlerError},
    woken::once_woken,
};

/// Serves one connection until the client closes it, or the endpoint drains and all requests ended.
/// `authorised` connections have a wide receive window already. However the client ends it, that is no
/// failure of the handler; what it did wrong was answered with its close code when it was found.
pub(super) async fn serve<S: HttpService>(
    service: &Arc<S>,
    connection: Connection,
    requester: Requester,
    authorised: bool,
    answers: &Answers,
) -> Result<(), HandlerError> {
    let Some(quinn) = connection.quinn() else { return Err("HTTP/3 needs QUIC".into()) };
    if let Err(error) =
        serve_requests(service, &connection, quinn, requester, authorised, answers).await
        && !error.is_h3_no_error()
    {
        // As a literal: it can hold a peer's words.
        tracing::debug!(error = ?error.to_string(), "http connection ended");
    }
    Ok(())
}

async fn serve_requests<S: HttpService>(
    service: &Arc<S>,
    connection: &Connection,
    quinn: &quinn::Connection,
    requester: Requester,
    authorised: bool,
    answers: &Answers,
) -> Result<(), ConnectionError> {
    let wide = (!authorised).then_some(LARGE_BODY_WINDOW_BYTES);
    let metered = Metered::new(quinn, Role::Server, wide);
    let (service, shared) = (Arc::clone(service), Arc::clone(metered.shared()));
    let limits = connection.request_limits();
    let account = answers.account(&limits);
    requester.charged_to(&account);
    let serving = Serving { service, requester, shared, limits, account };
    let building = async {
        h3::server::builder()
            .max_field_section_size(u64::from(FIELD_SECTION_BYTES))
            .send_grease(false)
            .build::<_, Bytes>(metered)
            .await
    };
    // Waits for ever where the client lets us open no stream to say SETTINGS on.
    let mut http3 = tokio::select! {
        built = building => built?,
        () = connection.ends() => return Ok(()),
    };
    // Requests whose answer was not there at once.
    let mut requests = FuturesUnordered::new();
    let mut resets = Resets::default();
    let mut accepting = true;
    let mut ends = pin!(once_woken(connection.ends()));
    let mut over = pin!(once_woken(serving.account.over()));
    let mut ending = false;
    loop {
        if ending && requests.is_empty() {
            // The last answers are on their way; the client closes when it has them, or is closed when
            // nothing moves any more.
            connection.closed().await;
            return Ok(());
        }
        if !accepting && requests.is_empty() {
            return Ok(());
        }
        let end = tokio::select! {
            biased;
            Some(end) = requests.next() => end,
            accepted = http3.accept(), if accepting => {
                // The client has said goodbye, but may still wait for answers.
                let Some(resolver) = accepted? else {
                    accepting = false;
                    continue;
                };
                connection.stream_opened();
                // One is known of every stream that was accepted.
                let Some(malformed) = serving.shared.take_malformed() else { continue };
                let request = Exchange::new(&serving, resolver, malformed);
                // A panic of the service ends its own request.
                let request = AssertUnwindSafe(request).catch_unwind();
                let mut request = request.map(unless_panicked);
                match poll_fn(|cx| Poll::Ready(request.poll_unpin(cx))).await {
                    Poll::Ready(end) => end,
                    Poll::Pending => {
                        requests.push(Box::pin(request));
                        continue;
                    }
                }
            }
            () = &mut ends, if !ending => {
                ending = true;
                // RFC 9114 §5.2: GOAWAY. Whoever lets us say nothing is closed all the same.
                http3.shutdown(0).await?;
                continue;
            }
            () = &mut over => {
                quinn.close(CloseCode::Overloaded.http3().into(), b"");
                return Ok(());
            }
        };
        if end == End::GivenUp && resets.too_many(Instant::now()) {
            quinn.close(CloseCode::Overloaded.http3().into(), b"");
            tracing::debug!("the client gave up too many requests");
            return Ok(());
        }
    }
}

fn unless_panicked(end: std::thread::Result<End>) -> End {
    end.unwrap_or(End::Failed)
}
