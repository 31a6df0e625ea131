//! Those who come in good faith meanwhile, and how long each waits.

use std::{net::SocketAddr, time::Duration};

pub use endpoint_tests::served::Served;
use endpoint_tests::{
    node::{PEER, PUBLIC},
    wire::{Client, Shown, socket_at},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Longer than anybody has to wait.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A client of the peer with key `n`, or of a stranger.
#[must_use]
pub fn client(key: Option<u8>) -> Client {
    match key {
        Some(n) => Client::new(&[PEER]).showing(Shown::raw(n)),
        None => Client::new(&[PUBLIC]),
    }
}

/// Shakes hands over QUIC from `place` and has a word echoed.
pub async fn over_quic(client: &Client, server: SocketAddr, place: &str) -> Result<(), String> {
    let visit = async {
        let socket = socket_at(place);
        let connection =
            client.dial(&socket, server, "localhost").await.map_err(|error| error.to_string())?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(b"word").await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        let echoed = recv.read_to_end(16).await.map_err(|error| error.to_string())?;
        connection.close(0_u32.into(), b"");
        // The close leaves before the socket does.
        let _ = timeout(Duration::from_millis(50), socket.wait_idle()).await;
        (echoed == b"word").then_some(()).ok_or_else(|| "another word came back".to_owned())
    };
    timeout(PATIENCE, visit).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// The same over TCP.
pub async fn over_tcp(client: &Client, server: SocketAddr, place: &str) -> Result<(), String> {
    let visit = async {
        let mut stream = client.dial_tcp(place, server, "localhost", &[]).await?;
        stream.write_all(b"word").await?;
        let mut echoed = [0; 4];
        stream.read_exact(&mut echoed).await?;
        stream.shutdown().await?;
        Ok::<_, std::io::Error>(echoed)
    };
    match timeout(PATIENCE, visit).await {
        Ok(Ok(echoed)) if echoed == *b"word" => Ok(()),
        Ok(Ok(_)) => Err("another word came back".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".into()),
    }
}
