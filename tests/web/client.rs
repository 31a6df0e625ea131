//! The library's own client, against the library's own server.

use std::error::Error;

use endpoint_core::{
    Alpn, Connection, Endpoint, LinkError, Target,
    endpoint::DialOptions,
    facts::Carrier,
    http::{HttpClient, HttpError},
};
use endpoint_tests::{
    http::VERSIONS,
    node::{PUBLIC, Server, dialler},
    until, within,
};
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};

use crate::site::Site;

async fn dial(dialler: &Endpoint, target: &Target, version: Version) -> Connection {
    let (alpn, options) = match version {
        Version::HTTP_3 => (Alpn::H3, DialOptions::default()),
        Version::HTTP_2 => (Alpn::H2, DialOptions::default().tcp()),
        _ => (Alpn::HTTP_1_1, DialOptions::default().tcp()),
    };
    dialler.connect_with(target, alpn, options).await.unwrap()
}

fn get(target: &str) -> Request<Empty<bytes::Bytes>> {
    Request::get(target).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn errors_say_what_went_wrong_over_each_version() {
    let site = Site::start("").await;
    let us = dialler(2).await;
    let target: Target =
        format!("peer://{}@{}", site.endpoint.fingerprint().hex(), site.addr()).parse().unwrap();
    for version in VERSIONS {
        let connection = dial(&us, &target, version).await;
        let mut client = HttpClient::new(&connection).await.unwrap();
        let answer = client.send(get("https://localhost/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{version:?}");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "Hello, World!");
        let error = client.send(get("/nowhere")).await.unwrap_err();
        assert!(matches!(&error, HttpError::NoHost { target } if target == "/nowhere"), "{error}");
        assert!(error.to_string().contains("`/nowhere` names no host; "), "{error}");
        let answer = client.send(get("https://localhost/fails")).await;
        // The head may be lost with the rest.
        if let Ok(answer) = answer {
            let error = answer.into_body().collect().await.unwrap_err();
            assert!(matches!(error, HttpError::Body(_)) && error.source().is_some(), "{error}");
        }
        let connection = dial(&us, &target, version).await;
        let mut client = HttpClient::new(&connection).await.unwrap();
        let calls = site.waits();
        let closes = async {
            until("the handler runs", || site.waits() > calls).await;
            connection.close();
        };
        let (answer, ()) = tokio::join!(client.send(get("https://localhost/waits")), closes);
        let error = answer.unwrap_err();
        assert!(matches!(error, HttpError::Exchange(_)) && error.source().is_some(), "{error}");
        assert!(error.to_string().contains("; ask again"), "{error}");
        let error = within(5, "an error", HttpClient::new(&connection)).await;
        let error = match error {
            Ok(mut client) => client.send(get("https://localhost/")).await.unwrap_err(),
            Err(error) => error,
        };
        if version != Version::HTTP_3 {
            let taken = matches!(&error, HttpError::Connection(LinkError::Unsupported(_)));
            assert!(taken, "{version:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn refuses_connections_of_other_protocols() {
    let us = dialler(2).await;
    let node = Server::start("").await;
    let connection = us.connect(&node.target(), PUBLIC).await.unwrap();
    let error = HttpClient::new(&connection).await.unwrap_err();
    assert!(matches!(&error, HttpError::NotHttp { carrier: Carrier::Quic, .. }), "{error:?}");
    assert!(error.to_string().starts_with("public/1 over quic is not HTTP; dial "), "{error}");
}
