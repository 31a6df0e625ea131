//! Tickets: which come back, which never do, and that no early data rides on them.

use std::sync::Mutex;

use rustls::{
    ClientConnection, HandshakeKind, NamedGroup, ServerConnection,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};

use super::*;
use crate::{
    facts::Carrier,
    tls::hello::{self, Alert},
};

/// Two rustls ends without a network between them, on the configuration that the server chooses.
pub(super) struct Ends {
    pub(super) client: ClientConnection,
    server: ServerConnection,
}

impl Ends {
    /// Shakes hands, and exchanges a byte, so that tickets arrive.
    pub(super) fn shake(
        server: &TlsServer,
        config: &Arc<ClientConfig>,
        client: &Client,
        carrier: Carrier,
    ) -> Result<Self, Alert> {
        Self::shake_from(Reach::Everywhere, server, config, client, carrier)
    }

    pub(super) fn shake_from(
        reach: Reach,
        server: &TlsServer,
        config: &Arc<ClientConfig>,
        client: &Client,
        carrier: Carrier,
    ) -> Result<Self, Alert> {
        let name = ServerName::try_from(client.name()).unwrap();
        let mut dialling = ClientConnection::new(config.clone(), name).unwrap();
        let mut flight = Vec::new();
        dialling.write_tls(&mut flight).unwrap();
        // The hello stands in one record, after its five bytes.
        let hello = hello::parse(&flight[5..]).unwrap();
        let choice = server.choose(&hello, carrier, reach)?;
        let accepting = ServerConnection::new(choice.config).unwrap();
        let mut ends = Self { client: dialling, server: accepting };
        pass(&flight, &mut ends.server);
        for _ in 0..4 {
            let mut bytes = Vec::new();
            while ends.server.wants_write() {
                ends.server.write_tls(&mut bytes).unwrap();
            }
            pass(&bytes, &mut ends.client);
            let mut bytes = Vec::new();
            while ends.client.wants_write() {
                ends.client.write_tls(&mut bytes).unwrap();
            }
            pass(&bytes, &mut ends.server);
        }
        assert!(!ends.client.is_handshaking() && !ends.server.is_handshaking());
        Ok(ends)
    }

    pub(super) fn resumed(&self) -> bool {
        assert_eq!(self.client.handshake_kind(), self.server.handshake_kind());
        self.client.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

fn pass<Data>(
    mut bytes: &[u8],
    end: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<Data>>,
) {
    while !bytes.is_empty() {
        end.read_tls(&mut bytes).unwrap();
        end.process_new_packets().unwrap();
    }
}

/// A client that keeps what it is given.
fn keeping(client: &Client) -> ClientConfig {
    let (mut config, _) = client.config();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(64)));
    config
}

fn speaking(config: &ClientConfig, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[test]
fn a_ticket_resumes_where_it_came_from() {
    let server = server();
    for kind in [KeyKind::Raw, KeyKind::X509] {
        for carrier in [Carrier::Quic, Carrier::Tcp] {
            let client = Client::new(kind, &["discover/1"]);
            let config = Arc::new(keeping(&client));
            assert!(!Ends::shake(&server, &config, &client, carrier).unwrap().resumed());
            assert!(Ends::shake(&server, &config, &client, carrier).unwrap().resumed());
        }
    }
}

#[test]
fn a_ticket_is_worth_nothing_on_another_protocol_profile_carrier_or_name() {
    let server = server();
    let client = Client::new(KeyKind::X509, &["discover/1"]);
    let ticket = || {
        let config = keeping(&client);
        Ends::shake(&server, &Arc::new(config.clone()), &client, Carrier::Tcp).unwrap();
        config
    };
    let full = |config: &Arc<ClientConfig>, client: &Client, carrier| {
        !Ends::shake(&server, config, client, carrier).unwrap().resumed()
    };
    // The tickets are good: the same client resumes.
    assert!(!full(&Arc::new(ticket()), &client, Carrier::Tcp));

    assert!(full(&speaking(&ticket(), &["h2"]), &client, Carrier::Tcp), "another protocol");
    let among = speaking(&ticket(), &["h2", "discover/1", "echo/1"]);
    assert!(!full(&among, &client, Carrier::Tcp), "the same protocol among others");
    let asked = speaking(&ticket(), &["echo/1"]);
    assert!(full(&asked, &client, Carrier::Tcp), "a profile that asks for a key");
    assert!(full(&Arc::new(ticket()), &client, Carrier::Quic), "another carrier");
    // rustls files tickets by name; this client presents them anywhere.
    let (mut config, _) = client.config();
    config.resumption = Resumption::store(Arc::new(OneDrawer::default()));
    let config = Arc::new(config);
    let elsewhere = client.clone().sni(Some("a.example"));
    assert!(full(&config, &client, Carrier::Tcp));
    assert!(full(&config, &elsewhere, Carrier::Tcp), "another name");
    assert!(!full(&config, &elsewhere, Carrier::Tcp));
}

#[test]
fn a_ticket_dies_with_its_protocol_and_lives_through_other_changes() {
    let server = server();
    let client = Client::new(KeyKind::X509, &["discover/1"]);
    let config = Arc::new(keeping(&client));
    let resumed = || Ends::shake(&server, &config, &client, Carrier::Tcp).unwrap().resumed();
    resumed();
    let fewer: Vec<Offer> = offers().into_iter().filter(|o| o.alpn != alpn("h2")).collect();
    server.set_offers(&fewer).unwrap();
    assert!(resumed());
    let without: Vec<Offer> =
        offers().into_iter().filter(|o| o.alpn != alpn("discover/1")).collect();
    server.set_offers(&without).unwrap();
    server.set_offers(&offers()).unwrap();
    assert!(!resumed());
}

#[test]
fn profiles_that_ask_issue_no_tickets() {
    let server = server();
    let certificate = p256(&["client"]);
    for kind in [KeyKind::Raw, KeyKind::X509] {
        for client in [
            Client::new(kind, &["echo/1"]).raw(CLIENT),
            Client::new(kind, &["h2"]).raw(CLIENT),
            Client::new(kind, &["discover/1"]).raw(CLIENT),
            Client::new(kind, &["echo/1"]).showing(KeyKind::X509, certificate.clone()),
            Client::new(kind, &["echo/1"]),
        ] {
            for carrier in [Carrier::Quic, Carrier::Tcp] {
                if carrier == Carrier::Quic && client.alpns == ["h2"] {
                    continue;
                }
                let drawer = Arc::new(OneDrawer::default());
                let (mut config, _) = client.config();
                config.resumption = Resumption::store(drawer.clone());
                let config = Arc::new(config);
                let ends = Ends::shake(&server, &config, &client, carrier).unwrap();
                assert_eq!(ends.client.tls13_tickets_received(), 0);
                assert!(drawer.is_empty());
                assert!(!Ends::shake(&server, &config, &client, carrier).unwrap().resumed());
            }
        }
    }
}

/// rustls sends no early data with a ticket that allows none, and quinn then has no keys for it.
#[tokio::test]
async fn no_ticket_carries_early_data() {
    let server = server();
    let client = Client::new(KeyKind::X509, &["h3"]);
    let mut config = keeping(&client);
    config.enable_early_data = true;
    let endpoint = quic_server(server.quic(Reach::Everywhere, RetirementRate::per_minute(16)));
    let address = endpoint.local_addr().unwrap();
    let accept = tokio::spawn(async move {
        for _ in 0..2 {
            let link = endpoint.accept().await.unwrap().await.unwrap();
            let mut stream = link.accept_uni().await.unwrap();
            let _ = stream.read_to_end(10).await;
        }
    });
    let dialler = quic_client(config);
    for round in 0..2 {
        let connecting = dialler.connect(address, "localhost").unwrap();
        // The second round holds tickets of the first.
        let link = match connecting.into_0rtt() {
            Ok(_) => panic!("round {round} has keys for early data"),
            Err(connecting) => connecting.await.unwrap(),
        };
        let mut stream = link.open_uni().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.finish().unwrap();
        let _ = stream.stopped().await;
    }
    accept.await.unwrap();
}

/// Keeps tickets of all servers in one drawer, as no honest client does.
#[derive(Debug, Default)]
struct OneDrawer(Mutex<Vec<Tls13ClientSessionValue>>);

impl OneDrawer {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl ClientSessionStore for OneDrawer {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.lock().unwrap().push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap().pop()
    }
}
