//! Table 1: do both engines do this alike?

use super::*;

#[tokio::test]
#[ignore = "starts pebble"]
async fn issues_and_issues_again_with_one_account() {
    for engine in BOTH {
        let scene = Scene::new().await;
        let issuer = scene.issuer(engine);
        assert_eq!(issuer.engine(), engine.as_str());
        let account = registered(&issuer).await;
        assert_eq!(issuer.register(&account.key).await.unwrap(), account.url, "the same account");
        let first = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();
        let second = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();
        assert!(is_for(&first.chain[0], "a.example") && !is_for(&first.chain[0], "b.example"));
        assert_ne!(first.chain[0], second.chain[0]);
        assert_ne!(first.key, second.key);
        assert!(first.chain.len() >= 2, "the intermediate comes with it");
        let mut http = scene.order("b.example");
        http.challenges = vec![ChallengeKind::Http01];
        scene.issue(&issuer, &account, &http).await.unwrap();
        use ChallengeKind::{Http01, TlsAlpn01};
        assert_eq!(scene.answering.published(), [TlsAlpn01, TlsAlpn01, Http01]);
        assert_eq!(scene.proxy.calls(Route::NewOrder), 3);
        assert_eq!(scene.proxy.calls(Route::NewAccount), 2);
        assert_eq!(scene.proxy.calls(Route::Finalize), 3);
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn a_key_registered_by_one_engine_serves_the_other() {
    let scene = Scene::new().await;
    let [one, two] = BOTH.map(|engine| scene.issuer(engine));
    let account = registered(&one).await;
    assert_eq!(two.register(&account.key).await.unwrap(), account.url);
    scene.issue(&two, &account, &scene.order("a.example")).await.unwrap();
    let account = registered(&two).await;
    assert_eq!(one.register(&account.key).await.unwrap(), account.url);
    scene.issue(&one, &account, &scene.order("a.example")).await.unwrap();
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn refused_nonces_are_no_failure() {
    for engine in BOTH {
        let scene = Scene::new().await;
        let issuer = scene.issuer(engine);
        for (bad, of) in [(1, 5), (3, 5)] {
            scene.proxy.refuse_nonces(bad, of);
            let before = scene.proxy.nonces_refused();
            let account = registered(&issuer).await;
            scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();
            assert!(scene.proxy.nonces_refused() > before, "{engine:?} {bad}");
        }
        assert_eq!(scene.proxy.failed_validations(), 0);
        // All of them: an end, and not for the name.
        scene.proxy.heal();
        let account = registered(&issuer).await;
        scene.proxy.refuse_nonces(1, 1);
        let before = scene.proxy.nonces_refused();
        let ended = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap_err();
        assert_eq!(ended.kind, Fault::Unavailable, "{ended}");
        assert!(ended.detail.contains("badNonce"), "{ended}");
        let tries = scene.proxy.nonces_refused() - before;
        assert!((20..=63).contains(&tries), "{engine:?}: {tries}");
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn pebbles_own_refusals_of_nonces_are_no_failure() {
    for engine in BOTH {
        let scene = Scene::with(Settings { nonces_refused: 20, ..Settings::default() }).await;
        let issuer = scene.issuer(engine);
        let account = registered(&issuer).await;
        for _ in 0..5 {
            scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();
        }
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn a_fault_at_any_step_ends_as_what_it_is() {
    use Route::{Authorization, Certificate, Challenge, Directory, Finalize, NewOrder, Nonce};
    let faults = [
        (Told::Status(503), Fault::Unavailable),
        (Told::Problem(500, "serverInternal"), Fault::Unavailable),
        (Told::WrongType, Fault::Unavailable),
        (Told::RateLimited(Some("3600".into())), Fault::RateLimited),
        (Told::Problem(400, "accountDoesNotExist"), Fault::AccountUnknown),
        (Told::Problem(403, "rejectedIdentifier"), Fault::Refused),
    ];
    let routes = [Directory, Nonce, NewOrder, Authorization, Challenge, Finalize, Certificate];
    for engine in BOTH {
        let scene = Scene::new().await;
        let issuer = scene.issuer(engine);
        let second = Deadlines { request: Duration::from_secs(1), ..PATIENT };
        let hasty = built(&scene.config(), engine, second);
        let account = registered(&issuer).await;
        for route in routes {
            for (told, expected) in &faults {
                // A directory or a nonce without ACME in it says nothing of the account or the name.
                let is_get = matches!(route, Directory | Nonce);
                if is_get && matches!(told, Told::Problem(400 | 403, _)) {
                    continue;
                }
                // rustls-acme does not read the answer to an announcement; here it was swallowed, so it
                // would wait for a decision that nobody takes.
                let rustls = engine == AcmeEngine::RustlsAcme;
                if rustls && route == Challenge && *told == Told::WrongType {
                    continue;
                }
                // rustls-acme waits for the body that an answer to HEAD announces and never has.
                let hangs = rustls && route == Nonce;
                let (issuer, expected) = match hangs {
                    true => (&hasty, Fault::Unavailable),
                    false => (&issuer, *expected),
                };
                scene.proxy.fail(route, told.clone(), None);
                let case = format!("{engine:?} {route:?} {told:?}");
                let ended = scene.issue(issuer, &account, &scene.order("a.example")).await;
                scene.proxy.heal();
                let ended = ended.err().unwrap_or_else(|| panic!("{case}: issued"));
                assert_eq!(ended.kind, expected, "{case}: {ended}");
                assert!(!ended.detail.contains("<html>"), "{case}: {ended}");
                let waits = !rustls && expected == Fault::RateLimited;
                let wait = waits.then(|| Duration::from_secs(3600));
                assert_eq!(ended.retry_after, wait, "{case}: {ended}");
            }
        }
        scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn silence_and_slow_bytes_end_by_the_deadline() {
    let deadlines = Deadlines { request: Duration::from_millis(1500), ..PATIENT };
    for engine in BOTH {
        let scene = Scene::new().await;
        let account = registered(&scene.issuer(engine)).await;
        let issuer = built(&scene.config(), engine, deadlines);
        for route in [Route::Directory, Route::NewOrder, Route::Certificate] {
            for told in [Told::Silence, Told::Slow] {
                scene.proxy.fail(route, told.clone(), None);
                let order = scene.order("a.example");
                let ended = scene.issue(&issuer, &account, &order).await.unwrap_err();
                scene.proxy.heal();
                assert_eq!(ended.kind, Fault::Unavailable, "{engine:?} {route:?}: {ended}");
                assert!(ended.detail.contains("within 1.5 s"), "{engine:?} {route:?}: {ended}");
            }
        }
        // One that never decides: it may count a failure, so we do.
        let deadlines = Deadlines { decision: Duration::ZERO, ..PATIENT };
        let issuer = built(&scene.config(), engine, deadlines);
        let ended = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap_err();
        assert_eq!(ended.kind, Fault::Refused, "{ended}");
        assert!(ended.detail.contains("did not decide"), "{ended}");
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn a_dropped_order_takes_its_answer_back() {
    for engine in BOTH {
        let scene = Scene::new().await;
        let issuer = scene.issuer(engine);
        let account = registered(&issuer).await;
        scene.proxy.fail(Route::Challenge, Told::Silence, None);
        let order = scene.order("a.example");
        {
            let mut issuing = issuer.issue(&account, &order);
            while scene.answering.pending() == 0 {
                tokio::select! {
                    _ = &mut issuing => panic!("it cannot end"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        }
        while scene.answering.pending() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn an_authority_that_forgot_us_or_is_gone_is_told_apart() {
    for engine in BOTH {
        let mut scene = Scene::new().await;
        let issuer = scene.issuer(engine);
        let mut account = registered(&issuer).await;
        scene.pebble.restart().await;
        let ended = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap_err();
        assert_eq!(ended.kind, Fault::AccountUnknown, "{ended}");
        account.url = issuer.register(&account.key).await.unwrap();
        scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();

        scene.pebble.stop();
        let directory = AcmeDirectory::Custom(scene.pebble.directory());
        let config = AcmeIssuer { directory, ..scene.config() };
        let issuer = built(&config, engine, PATIENT);
        let ended = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap_err();
        assert_eq!(ended.kind, Fault::Unavailable, "{ended}");
        let ended = issuer.register(&account.key).await.unwrap_err();
        assert_eq!(ended.kind, Fault::Unavailable, "{ended}");
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn a_name_that_cannot_be_validated_is_refused_with_the_reason() {
    for engine in BOTH {
        let scene = Scene::new().await;
        let issuer = scene.issuer(engine);
        let account = registered(&issuer).await;
        scene.pebble.hide("lost.example").await;
        let lost = scene.issue(&issuer, &account, &scene.order("lost.example")).await.unwrap_err();
        assert_eq!(lost.kind, Fault::Refused, "{lost}");
        assert!(lost.detail.starts_with("validation failed: "), "{lost}");
        assert!(lost.detail.len() > 30, "the authority's reason is handed on: {lost}");
        assert_eq!(scene.proxy.failed_validations(), 1);
        let blocked = scene.issue(&issuer, &account, &scene.order("blocked.example")).await;
        let blocked = blocked.unwrap_err();
        assert_eq!(blocked.kind, Fault::Refused, "{blocked}");
        assert_eq!(scene.proxy.failed_validations(), 1, "no order was placed");
        let mut none = scene.order("a.example");
        none.challenges = Vec::new();
        let none = scene.issue(&issuer, &account, &none).await.unwrap_err();
        assert!(none.kind == Fault::Refused && none.detail.contains("offers none"), "{none}");
        // The store has its own fault.
        scene.answering.break_store();
        let store = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap_err();
        assert_eq!(store.kind, Fault::Store, "{store}");
        assert_eq!(scene.proxy.failed_validations(), 1);
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn an_untrusted_authority_is_never_asked() {
    for engine in BOTH {
        let (scene, other) = (Scene::new().await, Scene::new().await);
        let config = AcmeIssuer { ca_root: other.config().ca_root, ..scene.config() };
        let issuer = built(&config, engine, PATIENT);
        let ended = issuer.register(&AccountKey::generate().unwrap()).await.unwrap_err();
        assert_eq!(ended.kind, Fault::Unavailable, "{ended}");
        // Both authorities have one name, so the other's root looks like the issuer.
        assert!(ended.detail.contains("BadSignature"), "{engine:?}: {ended}");
        assert_eq!(scene.proxy.total(), 0);
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn what_is_issued_is_trusted_under_the_authoritys_root() {
    let scene = Scene::new().await;
    let root = CertificateDer::from_pem_slice(scene.pebble.issuing_root().await.as_bytes());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.unwrap()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(default_provider()),
    )
    .build()
    .unwrap();
    for engine in BOTH {
        let issuer = scene.issuer(engine);
        let account = registered(&issuer).await;
        let issued = scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();
        use rustls::client::danger::ServerCertVerifier as _;
        let name = rustls_pki_types::ServerName::try_from("a.example").unwrap();
        let now = rustls_pki_types::UnixTime::now();
        let (leaf, rest) = issued.chain.split_first().unwrap();
        verifier.verify_server_cert(leaf, rest, &name, &[], now).unwrap();
    }
}
