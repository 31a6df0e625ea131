//! The example of a web site, run as it stands.

#[path = "../examples/web.rs"]
mod web;

use endpoint_core::{Identity, Target};

#[tokio::test]
async fn the_site_tells_peers_from_strangers() {
    let peer = Identity::from_seed(&[7; 32]);
    let name = peer.fingerprint().to_string();
    let server = web::serve("127.0.0.1:0", &name).await.unwrap();
    let address = server.local_addrs()[0];
    let target: Target =
        format!("peer://{}@{address}", server.fingerprint().hex()).parse().unwrap();
    let stranger = Identity::from_seed(&[8; 32]);
    for (who, path, status, text) in [
        (&peer, "/", 200, "hello, world".to_owned()),
        (&peer, "/peers", 200, format!("hello, {name}")),
        (&stranger, "/", 200, "hello, world".to_owned()),
        (&stranger, "/peers", 403, String::new()),
    ] {
        let (told, said) = web::ask(who.clone(), &target, path).await.unwrap();
        assert_eq!((told.as_u16(), said), (status, text), "{path}");
    }
    server.shutdown().await;
}
