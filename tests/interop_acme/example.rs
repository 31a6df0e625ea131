//! The example of the library, run as it stands: a site in five lines, at the real Pebble.

#[path = "../../crates/endpoint-core/examples/acme.rs"]
mod acme;

use std::time::Duration;

use endpoint_core::{
    Acme, AcmeDirectory, StoreConfig,
    config::{ChallengeKind, StoreSecret},
};
use endpoint_tests::{
    http::{VERSIONS, fetch, get},
    pebble::{Pebble, Settings},
    wire::Client,
};
use tokio::time::Instant;

const NAME: &str = "www.example";

#[tokio::test(flavor = "multi_thread")]
async fn the_example_obtains_its_certificate_and_serves_its_page() {
    let settings = Settings::default();
    let pebble = Pebble::start(settings.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Acme::new([NAME]).directory(AcmeDirectory::Custom(pebble.directory())).store(
        StoreConfig::Sqlite {
            path: folder.path().join("kept/endpoint.db"),
            secret: StoreSecret::File(folder.path().join("kept/store.secret")),
        },
    );
    // The one thing that differs from a public authority: nobody knows Pebble's root.
    config.issuers[0].ca_root = Some(pebble.server_root());
    config.challenges = vec![ChallengeKind::TlsAlpn01];
    let address = format!("127.0.0.1:{}", settings.tls_port);
    let endpoint = acme::serve_with(&address, config).await.unwrap();

    let ends = Instant::now() + Duration::from_secs(90);
    while endpoint.certificates().iter().any(|info| info.fallback) {
        assert!(Instant::now() < ends, "{:#?}", endpoint.certificates());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let info = endpoint.certificates().remove(0);
    assert_eq!((info.source, info.last_error), ("acme", None));
    assert_eq!(info.issuer, Some(pebble.directory()));
    let client = Client::new(&[]).wants_x509();
    for version in VERSIONS {
        let server = endpoint.local_addrs()[0];
        let answer = fetch(version, server, NAME, &client, get(NAME, "/")).await.unwrap();
        assert_eq!(answer.text(), "hello, world", "{version:?}");
    }
    endpoint.shutdown().await;
}

#[tokio::test]
async fn the_example_says_at_once_what_it_cannot_use() {
    let nobody = AcmeDirectory::Custom("http://ca.example/dir".into());
    let refused = acme::serve("127.0.0.1:0", &[NAME], nobody, StoreConfig::Memory).await;
    let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("https"), "{said}");
    // Nothing to order for would be nothing to serve.
    let none = acme::serve("127.0.0.1:0", &[], AcmeDirectory::Staging, StoreConfig::Memory).await;
    let said = none.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("no domain is given"), "{said}");
}
