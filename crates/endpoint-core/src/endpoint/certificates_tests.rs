//! Does the driver serve what sources give, and say what it serves?

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};
use rustls::sign::CertifiedKey;
use tokio::runtime::Handle;

use super::*;
use crate::tls;
use crate::{
    Clock, Condition, Endpoint, Identity, TlsIdentity,
    certs::{source::Looking, source::Standing, validity::Validity},
};

fn start() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn loaded(name: &str) -> Loaded {
    let made = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = made.self_signed(&key).unwrap();
    let key = key.serialize_der().try_into().unwrap();
    let certified =
        CertifiedKey::from_der(vec![certificate.der().clone()], key, &tls::provider()).unwrap();
    let until = "2027-11-26T12:00:00Z".parse().unwrap();
    Loaded { certified: Arc::new(certified), validity: Validity { from: start(), until } }
}

/// Asks somebody, in vain until it is told otherwise.
#[derive(Debug, Default)]
struct Slow {
    good: AtomicBool,
    changed: AtomicBool,
    looks: AtomicUsize,
    at_once: AtomicUsize,
    spent: Mutex<Option<Timestamp>>,
}

impl Source for Slow {
    fn name(&self) -> &'static str {
        "acme"
    }

    fn kept<'a>(&'a self, _: Timestamp) -> Looking<'a> {
        Box::pin(async { Looked { fresh: None, again: None, fault: None } })
    }

    fn look<'a>(&'a self, now: Timestamp, _: bool) -> Looking<'a> {
        Box::pin(async move {
            assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "asked twice at once");
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.changed.store(false, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            let again = now.checked_add(jiff::SignedDuration::from_secs(3600)).ok();
            match self.good.load(Ordering::SeqCst) {
                true => Looked { fresh: Some(loaded("a.example")), again, fault: None },
                false => Looked { fresh: None, again, fault: Some("it is down".to_owned()) },
            }
        })
    }

    fn changed(&self) -> bool {
        self.changed.load(Ordering::SeqCst)
    }

    fn spent_until(&self) -> Option<Timestamp> {
        *self.spent.lock().unwrap()
    }

    fn standing(&self) -> Standing {
        Standing { issuer: Some("https://ca.example/dir".to_owned()), ..Standing::default() }
    }
}

/// An endpoint that serves `a.example` from that source, and its clock.
async fn serving(source: &Arc<Slow>) -> (Endpoint, Clock) {
    let clock = Clock::manual(start());
    let source: Arc<dyn Source> = source.clone();
    let endpoint = Endpoint::builder(Identity::from_seed(&[1; 32]))
        .listen("127.0.0.1:0".parse().unwrap())
        .clock(clock.clone())
        .source("a.example", source)
        .bind()
        .await
        .unwrap();
    (endpoint, clock)
}

/// Lets tasks run until `done`.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn only(endpoint: &Endpoint) -> CertificateInfo {
    let [info] = endpoint.certificates().try_into().unwrap();
    info
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_for_a_renewal_get_one() {
    let source = Arc::new(Slow::default());
    source.good.store(true, Ordering::SeqCst);
    let (endpoint, _clock) = serving(&source).await;
    until(|| source.looks.load(Ordering::SeqCst) == 1 && !only(&endpoint).fallback).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let endpoint = endpoint.clone();
        asked.spawn(async move { endpoint.renew_certificate("a.example").await.is_ok() });
    }
    assert!(asked.join_all().await.into_iter().all(|renewed| renewed));
    assert_eq!(source.looks.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn serves_a_certificate_of_its_own_until_the_source_has_one() {
    let source = Arc::new(Slow::default());
    let (endpoint, clock) = serving(&source).await;
    let mut events = endpoint.events();
    let info = only(&endpoint);
    assert!(info.fallback);
    assert_eq!((info.source, info.issuer.as_deref()), ("acme", Some("https://ca.example/dir")));
    let before = endpoint.certificate_chain("A.EXAMPLE.").unwrap();
    until(|| source.looks.load(Ordering::SeqCst) == 1).await;
    until(|| only(&endpoint).last_error.is_some()).await;
    assert_eq!(only(&endpoint).last_error.as_deref(), Some("it is down"));
    assert!(matches!(events.recv().await, Ok(Event::CertificateFailed { .. })));
    assert_eq!(endpoint.certificate_chain("a.example").unwrap(), before);
    // Not before its time.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(source.looks.load(Ordering::SeqCst), 1);
    source.good.store(true, Ordering::SeqCst);
    clock.advance(3600);
    until(|| !only(&endpoint).fallback).await;
    assert!(matches!(events.recv().await, Ok(Event::CertificateObtained { .. })));
    let after = endpoint.certificate_chain("a.example").unwrap();
    assert!(after != before && after.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(only(&endpoint).last_error, None);
}

#[tokio::test(start_paused = true)]
async fn looks_when_something_has_changed_and_never_twice_at_once() {
    let source = Arc::new(Slow::default());
    let (endpoint, _) = serving(&source).await;
    until(|| source.looks.load(Ordering::SeqCst) == 1).await;
    source.changed.store(true, Ordering::SeqCst);
    until(|| source.looks.load(Ordering::SeqCst) == 2).await;
    source.good.store(true, Ordering::SeqCst);
    let renewed = (0..5).map(|_| endpoint.renew_certificate("a.example"));
    for renewed in futures_util::future::join_all(renewed).await {
        assert!(!renewed.unwrap().fallback);
    }
}

#[tokio::test(start_paused = true)]
async fn says_why_a_certificate_was_not_renewed() {
    let source = Arc::new(Slow::default());
    let (endpoint, _) = serving(&source).await;
    let failed = endpoint.renew_certificate("a.example").await.unwrap_err();
    assert!(matches!(&failed, RenewError::Failed(why) if why == "it is down"), "{failed}");
    let later = "2026-11-26T12:10:00Z".parse().unwrap();
    *source.spent.lock().unwrap() = Some(later);
    let spent = endpoint.renew_certificate("a.example").await.unwrap_err();
    assert!(matches!(spent, RenewError::BudgetSpent { until } if until == later));
    let unknown = endpoint.renew_certificate("b.example").await.unwrap_err();
    assert!(unknown.to_string().contains("there are: a.example"), "{unknown}");
    let local = Endpoint::builder(Identity::from_seed(&[1; 32]))
        .server_name("localhost", TlsIdentity::SelfSigned)
        .server_name("raw.example", TlsIdentity::RawKey)
        .bind()
        .await
        .unwrap();
    for (name, source) in [("localhost", "self-signed"), ("raw.example", "raw-key")] {
        let refused = local.renew_certificate(name).await.unwrap_err();
        assert!(matches!(refused, RenewError::NotRenewable(found) if found == source));
    }
}

#[tokio::test]
async fn certificates_that_are_at_hand_start_no_task() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["files.example".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let bound = |with: bool| {
        let mut builder = Endpoint::builder(Identity::from_seed(&[1; 32]));
        if with {
            let files = TlsIdentity::X509 { cert: cert.clone(), key: key.clone() };
            builder = builder
                .server_name("localhost", TlsIdentity::SelfSigned)
                .server_name("files.example", files)
                .server_name("raw.example", TlsIdentity::RawKey);
        }
        builder.bind()
    };
    let before = tasks();
    let bare = bound(false).await.unwrap();
    let of_bare = tasks() - before;
    let full = bound(true).await.unwrap();
    assert_eq!(tasks() - before - of_bare, of_bare);
    assert_eq!(full.certificates().len(), 2);
    drop((bare, full));
}

#[tokio::test]
async fn a_fault_of_what_is_at_hand_is_an_error_when_the_endpoint_binds() {
    let files =
        TlsIdentity::X509 { cert: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
    let error = Endpoint::builder(Identity::from_seed(&[1; 32]))
        .server_name("a.example", files)
        .bind()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/cert.pem"), "{error}");
}

/// Files with a certificate for `b.example` and its key.
fn files(folder: &tempfile::TempDir, from: i32, until: i32) -> TlsIdentity {
    let mut made = CertificateParams::new(vec!["b.example".to_owned()]).unwrap();
    made.not_before = rcgen::date_time_ymd(from, 1, 1);
    made.not_after = rcgen::date_time_ymd(until, 1, 1);
    let pair = KeyPair::generate().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    TlsIdentity::X509 { cert, key }
}

/// An endpoint with a sound site and one whose certificate is in these files.
async fn beside_a_sound_one(files: TlsIdentity) -> (Endpoint, Clock) {
    let clock = Clock::manual(start());
    let endpoint = Endpoint::builder(Identity::from_seed(&[1; 32]))
        .clock(clock.clone())
        .server_name("a.example", TlsIdentity::SelfSigned)
        .server_name("b.example", files)
        .bind()
        .await
        .unwrap();
    (endpoint, clock)
}

#[tokio::test]
async fn one_file_that_has_ended_or_is_yet_to_begin_keeps_nobody_else_from_being_served() {
    for (from, until, says) in [(2019, 2020, "ended on 2020"), (2030, 2031, "begins on 2030")] {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder, from, until);
        let (endpoint, clock) = beside_a_sound_one(files).await;
        let [sound, odd] = endpoint.certificates().try_into().unwrap();
        assert_eq!((sound.condition, sound.last_error), (Condition::Whole, None));
        // The right name and key: whoever pinned it still finds it.
        assert_eq!((odd.fallback, odd.condition), (false, Condition::OutOfDate));
        assert!(odd.last_error.unwrap().contains(says));
        // In order as soon as its time has come, or another one is there.
        if from == 2030 {
            clock.advance(4 * 365 * 86_400);
        } else {
            self::files(&folder, 2026, 2027);
        }
        endpoint.0.shared.refresh_certificates().await;
        let [_, mended] = endpoint.certificates().try_into().unwrap();
        assert_eq!((mended.condition, mended.last_error), (Condition::Whole, None));
        // And told when it ends, by itself.
        clock.advance(400 * 86_400);
        endpoint.0.shared.refresh_certificates().await;
        let [_, over] = endpoint.certificates().try_into().unwrap();
        assert_eq!(over.condition, Condition::OutOfDate, "{over:?}");
    }
}

#[tokio::test]
async fn files_that_do_not_belong_together_have_a_self_signed_one_stand_in() {
    for bad in ["cert", "key", "pair"] {
        let folder = tempfile::tempdir().unwrap();
        let identity = files(&folder, 2026, 2027);
        let whole = std::fs::read(folder.path().join("key.pem")).unwrap();
        match bad {
            "cert" => std::fs::write(folder.path().join("cert.pem"), "cut").unwrap(),
            "key" => {
                std::fs::write(folder.path().join("key.pem"), &whole[..whole.len() / 2]).unwrap()
            }
            _ => {
                files(&folder, 2026, 2027);
                std::fs::write(folder.path().join("key.pem"), &whole).unwrap();
            }
        }
        let (endpoint, _) = beside_a_sound_one(identity).await;
        let [sound, odd] = endpoint.certificates().try_into().unwrap();
        assert_eq!(sound.last_error, None);
        assert_eq!((odd.fallback, odd.condition), (true, Condition::Damaged), "{bad}");
        files(&folder, 2026, 2027);
        endpoint.0.shared.refresh_certificates().await;
        let [_, mended] = endpoint.certificates().try_into().unwrap();
        assert_eq!((mended.fallback, mended.condition), (false, Condition::Whole), "{bad}");
        // What cannot be used never replaces what can.
        std::fs::write(folder.path().join("cert.pem"), "cut").unwrap();
        endpoint.0.shared.refresh_certificates().await;
        let [_, kept] = endpoint.certificates().try_into().unwrap();
        assert_eq!((kept.fallback, kept.condition), (false, Condition::Damaged), "{bad}");
        assert_eq!(kept.not_after, mended.not_after);
    }
}

#[cfg(feature = "tcp")]
mod over_both {
    use super::*;

    /// What an authority sees over TCP: the certificate, and that nothing follows.
    #[tokio::test]
    async fn a_challenge_is_answered_and_parted_from_quietly_on_both_carriers() {
        use quinn_proto::crypto::rustls::QuicClientConfig;
        use tokio::{io::AsyncReadExt, net::TcpStream};
        let source = Arc::new(Slow::default());
        let (endpoint, _) = serving(&source).await;
        let mut events = endpoint.events();
        let address = endpoint.local_addrs()[0];
        let answer = loaded("pending.example").certified;
        let challenges = endpoint.0.shared.certificates.challenges();
        challenges.set_tls_alpn("pending.example", Some(Arc::clone(&answer)));

        let client = |name: &str, protocols: &[&str]| {
            let protocols: Vec<crate::Alpn> =
                protocols.iter().map(|name| name.parse().unwrap()).collect();
            let expect = tls::Expect::LearnX509 { name: name.to_owned() };
            tls::dial_config(&expect, None, &protocols).unwrap().config
        };
        let over_tcp = async |name: &'static str, protocols: &[&str]| {
            let stream = TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client(name, protocols)));
            connector.connect(name.try_into().unwrap(), stream).await
        };
        let mut stream = over_tcp("pending.example", &["acme-tls/1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], answer.cert[0]);
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "an end in good order");
        for (name, protocols) in [
            ("other.example", &["acme-tls/1"][..]),
            ("pending.example", &["acme-tls/1", "http/1.1"]),
        ] {
            assert!(over_tcp(name, protocols).await.is_err());
        }
        let mut dialling = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config =
            QuicClientConfig::try_from(client("pending.example", &["acme-tls/1"])).unwrap();
        dialling.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        let connection = dialling.connect(address, "pending.example").unwrap().await.unwrap();
        match connection.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, crate::CloseCode::ChallengeDone.number().into());
            }
            other => panic!("{other}"),
        }
        let counters = endpoint.counters();
        assert_eq!((counters.challenges, counters.permitted, counters.denied), (2, 0, 0));
        while let Ok(event) = events.try_recv() {
            assert!(matches!(event, Event::CertificateFailed { .. }), "{event:?}");
        }
    }
}
