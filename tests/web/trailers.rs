//! A client that forges identity in trailers.

use std::{convert::Infallible, net::SocketAddr};

use axum::body::Bytes;
use endpoint_tests::{http::connect, wire::Client, within};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn browser() -> Client {
    Client::new(&[]).wants_x509()
}

fn fields() -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("endpoint-peer", "forged".parse().unwrap());
    fields.insert("endpoint_peer", "forged".parse().unwrap());
    fields
}

/// Sends a body with forged trailers; what the upstream saw.
pub async fn forged(version: Version, server: SocketAddr) -> String {
    let trailer = "endpoint_peer: forged\r\nEndpoint-Peer: forged\r\nx-sum: 1\r\n";
    match version {
        Version::HTTP_3 => {
            let connection = connect(version, server, "localhost", &browser()).await.unwrap();
            let endpoint_tests::http::Connection::Http3 { mut send, .. } = connection else {
                unreachable!()
            };
            let request = Request::post("https://localhost/t").body(()).unwrap();
            let mut stream = send.send_request(request).await.unwrap();
            stream.send_data(Bytes::from_static(b"body")).await.unwrap();
            stream.send_trailers(fields()).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
            let mut text = Vec::new();
            while let Some(data) = stream.recv_data().await.unwrap() {
                text.extend_from_slice(bytes::Buf::chunk(&data));
            }
            String::from_utf8(text).unwrap()
        }
        Version::HTTP_11 => {
            let client = browser().offering(&[b"http/1.1"]);
            let mut stream = client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap();
            let request = format!(
                "POST /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTrailer: endpoint_peer\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{trailer}\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = within(10, "an answer", stream.read_to_end(&mut answer)).await;
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(text.contains("body 4"), "{text}");
            text
        }
        _ => {
            let client = browser().offering(&[b"h2"]);
            let stream = client.dial_tcp("127.0.0.1", server, "localhost", b"").await.unwrap();
            let (mut send, driver) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(driver);
            let frames = [
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"body"))),
                Ok(Frame::trailers(fields())),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let request = Request::post("https://localhost/t").body(body).unwrap();
            let response = within(10, "an answer", send.send_request(request)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let text = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(text.to_vec()).unwrap()
        }
    }
}
