//! OCSP answers through the library: stapled, refreshed, kept, and absent without fuss.

use endpoint_core::{
    Clock, Endpoint, StoreConfig, TlsIdentity, config::StoreSecret, endpoint::Builder,
};
use rustls_pki_types::CertificateDer;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    info,
    responder::{Authority, GOOD, REVOKED},
    site,
};
use endpoint_tests::shown::{self, Shown};

const NAME: &str = "stapled.example";

struct Scene {
    authority: Authority,
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Scene {
    fn new(state: &str) -> Self {
        let clock = Clock::manual(Clock::system().now());
        Self { authority: Authority::start(state), folder: tempfile::tempdir().unwrap(), clock }
    }

    fn builder(&self, names_responder: bool) -> Builder {
        let (cert, key) = self.authority.issue(NAME, names_responder, self.folder.path());
        self.serving(cert, key)
    }

    fn serving(&self, cert: std::path::PathBuf, key: std::path::PathBuf) -> Builder {
        site(&self.clock).server_name(NAME, TlsIdentity::X509 { cert, key })
    }
}

async fn shown(endpoint: &Endpoint) -> Shown {
    let address = endpoint.local_addrs()[0];
    shown::over_tcp(address, NAME).await
}

/// Waits until what is shown over TCP fits; QUIC must show the same then.
async fn until(endpoint: &Endpoint, what: &str, fits: impl Fn(&Shown) -> bool) -> Shown {
    let ends = Instant::now() + Duration::from_secs(30);
    loop {
        let now = shown(endpoint).await;
        if fits(&now) {
            assert_eq!(shown::over_quic(endpoint.local_addrs()[0], NAME).await, now, "{what}");
            return now;
        }
        assert!(Instant::now() < ends, "waited in vain: {what}: {:?}", info(endpoint));
        sleep(Duration::from_millis(20)).await;
    }
}

/// One look has passed since: the endpoint looks once a second.
async fn looked(scene: &Scene, before: usize) {
    let authority = &scene.authority;
    endpoint_tests::until("a question", || authority.asked() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_stapled_refreshed_at_half_of_its_life_and_gone_when_it_ends() {
    let scene = Scene::new(GOOD);
    let endpoint = scene.builder(true).bind().await.unwrap();
    let first = until(&endpoint, "a staple", |shown| !shown.ocsp.is_empty()).await;
    assert_eq!(scene.authority.asked(), 1);

    // OpenSSL writes whole seconds: another answer needs another second.
    let second = Instant::now() + Duration::from_millis(1100);
    while Instant::now() < second {
        assert_eq!(shown(&endpoint).await, first);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.authority.asked(), 1, "it is good for half an hour");
    scene.clock.advance(31 * 60);
    let next =
        until(&endpoint, "a newer one", |shown| !shown.ocsp.is_empty() && shown.ocsp != first.ocsp)
            .await;
    assert_eq!((scene.authority.asked(), next.leaf()), (2, first.leaf()));

    // Without the responder the last answer is shown until its end, and then none.
    scene.authority.silence();
    scene.clock.advance(20 * 60);
    looked(&scene, 2).await;
    assert_eq!(shown(&endpoint).await, next);
    scene.clock.advance(60 * 60);
    let bare = until(&endpoint, "no staple", |shown| shown.ocsp.is_empty()).await;
    assert_eq!(bare.leaf(), first.leaf());
    assert_eq!(
        info(&endpoint).last_error,
        None,
        "a silent responder is no fault of the certificate"
    );
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_responder_nothing_is_asked_and_nothing_stapled() {
    let scene = Scene::new(GOOD);
    let endpoint = scene.builder(false).bind().await.unwrap();
    let ends = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < ends {
        assert_eq!(shown(&endpoint).await.ocsp, b"");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(scene.authority.asked(), 0);
    assert_eq!(info(&endpoint).last_error, None);
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_told_and_never_stapled() {
    let scene = Scene::new(GOOD);
    let endpoint = scene.builder(true).bind().await.unwrap();
    until(&endpoint, "a staple", |shown| !shown.ocsp.is_empty()).await;
    scene.authority.is(REVOKED);
    scene.clock.advance(31 * 60);
    let bare = until(&endpoint, "no staple", |shown| shown.ocsp.is_empty()).await;
    assert!(!bare.chain.is_empty());
    let told = info(&endpoint).last_error.unwrap();
    assert!(told.contains("revoked the certificate on 2026-01-02"), "{told}");

    // A new certificate in the files takes its place, and has an answer of its own.
    scene.authority.is(GOOD);
    scene.authority.issue(NAME, true, scene.folder.path());
    let leaf = |shown: &Shown| -> CertificateDer<'static> { shown.leaf().clone() };
    until(&endpoint, "the new one", |shown| leaf(shown) != leaf(&bare) && !shown.ocsp.is_empty())
        .await;
    assert_eq!(info(&endpoint).last_error, None);
    endpoint.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_kept_in_the_store_so_that_a_restart_need_not_ask() {
    let scene = Scene::new(GOOD);
    let store = StoreConfig::Sqlite {
        path: scene.folder.path().join("store/endpoint.db"),
        secret: StoreSecret::File(scene.folder.path().join("store/store.secret")),
    };
    let (cert, key) = scene.authority.issue(NAME, true, scene.folder.path());
    let serve = || scene.serving(cert.clone(), key.clone()).store(store.clone()).bind();
    let endpoint = serve().await.unwrap();
    let first = until(&endpoint, "a staple", |shown| !shown.ocsp.is_empty()).await;
    endpoint.shutdown().await;
    scene.authority.silence();
    let endpoint = serve().await.unwrap();
    let again = until(&endpoint, "the kept one", |shown| !shown.ocsp.is_empty()).await;
    assert_eq!((again, scene.authority.asked()), (first, 1));
    endpoint.shutdown().await;
}
