//! Answers that come while the client still sends.

use std::{fs, net::SocketAddr};

use endpoint_tests::{machine::Machine, wire::Client, within};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

/// More than the buffers of a loopback connection hold.
const BODY_BYTES: usize = 16 * 1024 * 1024;

/// Sends all before it reads anything, as simple clients do; what it was told.
async fn told(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; BODY_BYTES]).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = within(30, path, exchange).await.expect("no reset");
    String::from_utf8_lossy(&answer).into_owned()
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# If a server performs an immediate close of a TCP connection, there is a significant risk that the
//# client will not be able to read the last HTTP response.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_that_sends_on_reads_why_it_was_refused() {
    let machine = Machine::new(env!("CARGO_BIN_EXE_endpoint-under-test"));
    // Bound and not listening: nobody else can have the port, and who connects is refused.
    let refusing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    refusing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let refuses = refusing.local_addr().unwrap().as_socket().unwrap();
    let file = machine.state().parent().unwrap().join("early.toml");
    let config = format!(
        "loopback_http = \"127.0.0.1:0\"\n[[site]]\nnames = [\"localhost\"]\n\
         proxy = [\"http://{refuses}\"]\n[[site.route]]\npath = \"/small\"\nbody_limit = \"8B\"\n\
         [[site.route]]\npath = \"/peers\"\naccess = \"peer\"\n"
    );
    fs::write(&file, config).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let address: SocketAddr = server.address().parse().unwrap();
    let plain = server.ready["urls"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let plain = plain.trim_start_matches("http://").trim_end_matches('/');
    for (path, status) in [("/small", 413), ("/peers", 403), ("/absent", 502)] {
        let client = Client::new(&[b"http/1.1"]).wants_x509();
        let stream = client.dial_tcp("127.0.0.1", address, "localhost", b"").await.unwrap();
        let answer = told(stream, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        let answer = told(TcpStream::connect(plain).await.unwrap(), path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "plain {path}: {answer}");
    }
}
