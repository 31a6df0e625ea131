//! What an authority sees that asks for a challenge, and what everybody else sees who does.

use super::*;
use crate::certs::challenges::Challenges;

const PENDING: &str = "pending.example";

fn challenged() -> (Arc<TlsServer>, Arc<Challenges>, Arc<CertifiedKey>) {
    let challenges = Arc::new(Challenges::default());
    let answer = p256(&[PENDING]);
    challenges.set_tls_alpn(PENDING, Some(answer.clone()));
    let table = Arc::new(CertTable::new(default_names()));
    let server =
        TlsServer::new(&identity(SERVER), table, challenges.clone(), TcpMinimum::Tls13, &offers());
    (server.unwrap(), challenges, answer)
}

fn asking(protocols: &[&'static str], name: Option<&'static str>) -> Client {
    Client::new(KeyKind::X509, protocols).sni(name)
}

/// Lists and names that are no challenge, though they speak of one.
fn strangers() -> Vec<Client> {
    vec![
        asking(&["acme-tls/1"], Some("localhost")),
        asking(&["acme-tls/1"], Some("other.example")),
        asking(&["acme-tls/1"], None),
        asking(&["acme-tls/1", "h3", "h2"], Some(PENDING)),
        asking(&["h3", "h2", "acme-tls/1"], Some(PENDING)),
        asking(&["acme-tls/1", "h3", "h2"], Some("localhost")),
        asking(&["acme-tls/1", "acme-tls/1"], Some(PENDING)),
        asking(&["acme-tls/1", "echo/1"], Some("localhost")).raw(CLIENT),
    ]
}

#[tokio::test]
async fn answers_over_quic_while_the_challenge_is_pending_and_refuses_all_else() {
    let (server, challenges, answer) = challenged();
    let client = asking(&["acme-tls/1"], Some(PENDING));
    let (link, verdict) = with(&server, &client).await.unwrap();
    assert_eq!(verdict.proven(), Some((KeyKind::X509, spki_of(&answer))));
    assert!(!verdict.asked());
    let handshake = link.handshake();
    assert_eq!(handshake.alpn, Alpn::ACME_TLS_1);
    assert_eq!(handshake.server_name.as_deref(), Some(PENDING));
    for client in strangers() {
        let broken = with(&server, &client).await.err().expect("refused");
        assert_eq!(broken.alert(), 120, "{:?} {:?}", client.alpns, client.sni);
    }
    challenges.set_tls_alpn(PENDING, None);
    assert_eq!(with(&server, &client).await.err().expect("refused").alert(), 120);
}

#[cfg(feature = "tcp")]
mod over_tcp {
    use super::{super::tcp, *};
    use crate::certs::challenges::{Elsewhere, Seeking};

    #[tokio::test]
    async fn answers_while_the_challenge_is_pending_and_refuses_all_else() {
        let (server, challenges, answer) = challenged();
        let client = asking(&["acme-tls/1"], Some(PENDING));
        // TLS 1.2 too, although the minimum for everybody else is 1.3.
        for config in [client.config().0, tcp::tls12(&client)] {
            let (accepted, dialled) = tcp::meet(&server, config, PENDING).await;
            let (handshake, key) = accepted.unwrap();
            assert_eq!((handshake.alpn, key), (Alpn::ACME_TLS_1, PeerKey::None));
            let stream = dialled.unwrap();
            let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
            assert_eq!(*shown, answer.cert[0]);
        }
        for client in strangers() {
            let (accepted, dialled) = tcp::meet(&server, client.config().0, client.name()).await;
            assert!(accepted.is_err());
            let seen = tcp::alert(dialled);
            assert_eq!(seen, rustls::AlertDescription::NoApplicationProtocol, "{:?}", client.alpns);
        }
        challenges.set_tls_alpn(PENDING, None);
        let (accepted, _) = tcp::meet(&server, client.config().0, PENDING).await;
        assert!(accepted.is_err());
    }

    #[derive(Debug)]
    struct OtherProcess(Arc<CertifiedKey>);

    impl Elsewhere for OtherProcess {
        fn tls_alpn<'a>(&'a self, name: &'a str) -> Seeking<'a, Arc<CertifiedKey>> {
            Box::pin(async move { (name == "theirs.example").then(|| self.0.clone()) })
        }

        fn http<'a>(&'a self, _: &'a str) -> Seeking<'a, String> {
            Box::pin(async { None })
        }
    }

    #[tokio::test]
    async fn answers_for_the_order_of_another_process_over_tcp_only() {
        let (server, challenges, _) = challenged();
        let answer = p256(&["theirs.example"]);
        challenges.look_elsewhere(vec![Arc::new(OtherProcess(answer.clone()))]);
        let client = asking(&["acme-tls/1"], Some("theirs.example"));
        let (accepted, dialled) = tcp::meet(&server, client.config().0, "theirs.example").await;
        assert!(accepted.is_ok());
        assert_eq!(dialled.unwrap().get_ref().1.peer_certificates().unwrap()[0], answer.cert[0]);
        assert_eq!(with(&server, &client).await.err().expect("refused").alert(), 120);
    }
}
