//! Versions that this endpoint does not speak, QUIC version 2 (RFC 9369) among them.

use std::{net::SocketAddr, time::Duration};

use endpoint_tests::{
    path::{Impairment, Path},
    within,
};
use tokio::{net::UdpSocket, time::timeout};

use crate::site::{Site, browser, dial, fetch};

/// A datagram of `length` bytes whose first packet is of `version`.
fn hello(version: u32, length: usize) -> Vec<u8> {
    let mut datagram = vec![0xc0];
    datagram.extend(version.to_be_bytes());
    datagram.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 4, 9, 9, 9, 9]);
    datagram.resize(length, 0);
    datagram
}

async fn answer(to: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 2048];
    for _ in 0..3 {
        socket.send_to(datagram, to).await.unwrap();
        let received = timeout(Duration::from_millis(500), socket.recv_from(&mut buffer)).await;
        if let Ok(Ok((length, _))) = received {
            return Some(buffer[..length].to_vec());
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn versionnegotiation_and_v2_are_answered_with_the_versions_spoken() {
    let site = Site::start().await;
    let path = Path::to(site.addr(), 11, Impairment::default());
    for version in [0x1a2a_3a4a, 0x6b33_43cf] {
        let answer = within(5, "an answer", answer(path.addr(), &hello(version, 1_200))).await;
        let answer = answer.expect("an answer");
        // RFC 9000 §17.2.1: version 0, the ids changed about, then the versions.
        assert!(answer[0] & 0x80 != 0);
        assert_eq!(answer[1..5], [0; 4]);
        assert_eq!(answer[5..10], [4, 9, 9, 9, 9]);
        assert_eq!(answer[10..19], [8, 1, 2, 3, 4, 5, 6, 7, 8]);
        let spoken: Vec<u32> = answer[19..]
            .chunks(4)
            .map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
            .collect();
        println!("acceptance: version {version:#x} is answered with the versions {spoken:x?}");
        assert!(spoken.contains(&1) && !spoken.contains(&version), "{spoken:x?}");
        assert!(answer.len() < 1_200, "an answer larger than the question");
    }
    // A client that learns this way goes on with version 1.
    let mut connection = dial(&browser(), path.addr()).await.unwrap();
    fetch(&mut connection, 10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_datagram_of_an_unknown_version_is_not_answered() {
    let site = Site::start().await;
    assert_eq!(answer(site.addr(), &hello(0x1a2a_3a4a, 100)).await, None);
}
