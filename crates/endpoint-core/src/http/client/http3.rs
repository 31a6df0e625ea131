//! HTTP/3 requests, by h3 over the meter (RFC 9114).

use bytes::{Buf, Bytes};
use h3::{client::RequestStream, error::Code};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use super::{HttpError, OutBody, ResponseBody, not_http};
use crate::{
    handler::Connection,
    http::{
        check::declared_length,
        limits::FIELD_SECTION_BYTES,
        meter::Role,
        quic::{Metered, Opener, RecvHalf, SendHalf},
    },
};

/// Opens request streams.
pub(super) struct Sender(h3::client::SendRequest<Opener, Bytes>);

/// Sets the connection up and drives it in a task of its own.
pub(super) async fn start(connection: &Connection) -> Result<(Sender, JoinHandle<()>), HttpError> {
    let quinn = connection.quinn().ok_or_else(|| not_http(connection))?;
    let metered = Metered::new(quinn, Role::Client, None);
    metered.begin_with(connection.first_stream());
    let (mut driver, sender) = h3::client::builder()
        .max_field_section_size(u64::from(FIELD_SECTION_BYTES))
        .send_grease(false)
        .build::<_, _, Bytes>(metered)
        .await
        .map_err(HttpError::start)?;
    let driver = tokio::spawn(async move {
        let ended = driver.wait_idle().await;
        tracing::debug!(%ended, "http/3 connection ended");
    });
    Ok((Sender(sender), driver))
}

impl Sender {
    pub(super) async fn send(
        &mut self,
        request: Request<OutBody>,
    ) -> Result<Response<ResponseBody>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let stream = self.0.send_request(request).await.map_err(HttpError::exchange)?;
        let (send, mut recv) = stream.split();
        // A server may answer before it has read the body, so neither waits for the other.
        if body.is_end_stream() {
            let mut send = send;
            send.finish().await.map_err(HttpError::exchange)?;
        } else {
            tokio::spawn(upload(send, body));
        }
        let response = loop {
            let response = recv.recv_response().await.map_err(HttpError::exchange)?;
            if !response.status().is_informational() {
                break response;
            }
        };
        let declared = declared_length(response.headers())
            .map_err(|refusal| HttpError::Malformed(refusal.reason()))?;
        Ok(response.map(|()| ResponseBody::http3(recv, declared)))
    }
}

/// Sends the body. A server that wants no more of it says so by stopping the stream, and its answer is
/// there all the same.
async fn upload(mut send: RequestStream<SendHalf, Bytes>, mut body: OutBody) {
    let mut trailers: Option<HeaderMap> = None;
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) if data.has_remaining() => {
                if send.send_data(data).await.is_err() {
                    return;
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(other)) => trailers = other.into_trailers().ok(),
            Err(error) => {
                tracing::debug!(%error, "the request's body failed");
                return send.stop_stream(Code::H3_REQUEST_CANCELLED);
            }
        }
    }
    if let Some(trailers) = trailers
        && send.send_trailers(trailers).await.is_err()
    {
        return;
    }
    let _ = send.finish().await;
}

/// The receiving half of a request stream of ours.
pub(super) type Receiving = RequestStream<RecvHalf, Bytes>;
