//! The examples, run as they stand.

#[path = "../examples/echo.rs"]
mod echo;
#[path = "../examples/pinned_dial.rs"]
mod pinned_dial;

use endpoint_core::Identity;

#[tokio::test]
async fn the_examples_talk_to_each_other_and_refuse_a_stranger() {
    let client = Identity::from_seed(&[7; 32]);
    let server = echo::serve("127.0.0.1:0", &client.fingerprint().to_string()).await.unwrap();
    let address = server.local_addrs()[0];
    let target = format!("peer://{}@{address}", server.fingerprint().hex());
    assert_eq!(pinned_dial::say(client, &target, "hello").await.unwrap(), "HELLO");
    let stranger = Identity::from_seed(&[8; 32]);
    let name = stranger.fingerprint().to_string();
    let refused = pinned_dial::say(stranger, &target, "hello").await.unwrap_err();
    assert!(refused.to_string().contains(&name), "{refused}");
    server.shutdown().await;
}
