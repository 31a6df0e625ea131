//! An upload that goes on after its answer ends with the right to send it.

use std::{fs, net::SocketAddr};

use endpoint_tests::{
    http::Connection,
    http::connect,
    machine::Machine,
    node::identity,
    wire::{Client, Shown},
    within,
};
use http::{Request, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

/// A server that answers at the first byte of a body and reads on; tells when that ends.
async fn hasty() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let _ = stream.read_u8().await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                let _ = ended.send(());
            });
        }
    });
    (address, ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_an_upload_whose_answer_is_out() {
    let (upstream, mut ends) = hasty().await;
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    let file = machine.file("uploads.toml");
    let text = format!(
        "[[site]]\nnames = [\"localhost\"]\nproxy = [\"http://{upstream}\"]\n\
         [[site.route]]\npath = \"/\"\naccess = \"peer\"\n"
    );
    fs::write(&file, text).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let address: SocketAddr = server.address().parse().unwrap();
    let key = identity(2).fingerprint().to_string();
    machine.json(&["trust", "add", &key]);
    let client = Client::new(&[]).showing(Shown::raw(2));

    let connection = connect(Version::HTTP_3, address, "localhost", &client).await.unwrap();
    let Connection::Http3 { mut send, socket: _socket, .. } = connection else { unreachable!() };
    let request = Request::post("https://localhost/up").body(()).unwrap();
    let mut upload = send.send_request(request).await.unwrap();
    upload.send_data("first".into()).await.unwrap();
    let answer = within(20, "an answer", upload.recv_response()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    while upload.recv_data().await.unwrap().is_some() {}

    let alpn = Client::offering(client.clone(), &[b"http/1.1"]);
    let mut stream = alpn.dial_tcp("127.0.0.1", address, "localhost", b"").await.unwrap();
    let head =
        "POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    within(20, "an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert!(ends.try_recv().is_err(), "both are still read");

    machine.json(&["trust", "rm", &key]);
    for upload in ["HTTP/3", "HTTP/1.1"] {
        within(10, upload, ends.recv()).await.expect("the upload ends at the upstream");
    }
}
