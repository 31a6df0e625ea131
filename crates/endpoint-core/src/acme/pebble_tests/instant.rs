//! Table 2: does instant-acme do what rustls-acme cannot?

use super::*;

#[tokio::test]
#[ignore = "starts pebble"]
async fn an_external_account_is_bound_with_its_own_key_alone() {
    let (kid, key) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");
    let external_accounts = vec![(kid.to_owned(), key.to_owned())];
    let scene = Scene::with(Settings { external_accounts, ..Settings::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let hmac_file = folder.path().join("hmac");
    let bound = |kid: &str, key: &str| {
        std::fs::write(&hmac_file, key).unwrap();
        let eab = ExternalAccount { kid: kid.into(), hmac_file: hmac_file.clone() };
        built(&AcmeIssuer { eab: Some(eab), ..scene.config() }, AcmeEngine::InstantAcme, PATIENT)
    };
    let issuer = bound(kid, &format!("{key}\n"));
    let account = registered(&issuer).await;
    assert_eq!(issuer.register(&account.key).await.unwrap(), account.url);
    scene.issue(&issuer, &account, &scene.order("a.example")).await.unwrap();

    let wrong = "AAAAZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    for (issuer, named) in [(bound(kid, wrong), kid), (bound("kid-2", key), "kid-2")] {
        let refused = issuer.register(&AccountKey::generate().unwrap()).await.unwrap_err();
        assert_eq!(refused.kind, Fault::AccountRefused, "{refused}");
        assert!(refused.detail.contains(&format!("kid `{named}`")), "{refused}");
        assert!(!refused.detail.contains("AAAA"), "{refused}");
    }
    for engine in BOTH {
        let refused = scene.issuer(engine).register(&account.key).await;
        // The account is there already, so an authority may find it without a binding.
        if let Err(refused) = refused {
            assert_eq!(refused.kind, Fault::AccountRefused, "{engine:?}: {refused}");
        }
        let new = AccountKey::generate().unwrap();
        let refused = scene.issuer(engine).register(&new).await.unwrap_err();
        assert_eq!(refused.kind, Fault::AccountRefused, "{engine:?}: {refused}");
    }
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn an_address_gets_a_certificate_by_either_proof() {
    let scene = Scene::new().await;
    let issuer = scene.issuer(AcmeEngine::InstantAcme);
    let account = registered(&issuer).await;
    for kind in [ChallengeKind::TlsAlpn01, ChallengeKind::Http01] {
        let mut order = scene.order("127.0.0.1");
        order.challenges = vec![kind];
        let issued = scene.issue(&issuer, &account, &order).await.unwrap();
        assert!(is_for(&issued.chain[0], "127.0.0.1"), "{kind:?}");
    }
    let other = scene.issuer(AcmeEngine::RustlsAcme);
    let refused = scene.issue(&other, &account, &scene.order("127.0.0.1")).await.unwrap_err();
    assert!(refused.detail.contains("use instant-acme"), "{refused}");
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn a_profile_is_asked_for_only_if_it_is_offered() {
    let scene = Scene::new().await;
    let issuer = scene.issuer(AcmeEngine::InstantAcme);
    let account = registered(&issuer).await;
    let order = Order { profile: Some("shortlived".into()), ..scene.order("a.example") };
    let refused = scene.issue(&issuer, &account, &order).await.unwrap_err();
    assert!(refused.detail.contains("offers no profiles"), "{refused}");
    scene.proxy.offer_profiles(&["tlsserver", "classic"]);
    let refused = scene.issue(&issuer, &account, &order).await.unwrap_err();
    assert_eq!(refused.kind, Fault::Refused);
    assert!(refused.detail.contains("classic, tlsserver"), "{refused}");
    assert_eq!(scene.proxy.calls(Route::NewOrder), 0, "no order was wasted");
    scene.proxy.offer_profiles(&["classic", "shortlived"]);
    scene.issue(&issuer, &account, &order).await.unwrap();
    assert_eq!(scene.proxy.last_order().unwrap()["profile"], "shortlived");
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn a_p384_key_is_certified() {
    let scene = Scene::new().await;
    let issuer = scene.issuer(AcmeEngine::InstantAcme);
    let account = registered(&issuer).await;
    let order = Order { key: CertificateKey::P384, ..scene.order("a.example") };
    let issued = scene.issue(&issuer, &account, &order).await.unwrap();
    // id-ecPublicKey with secp384r1, RFC 5480 §2.1.1.
    let curve = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    assert!(issued.chain[0].windows(7).any(|window| window == curve));
}

#[tokio::test]
#[ignore = "starts pebble"]
async fn the_window_is_told_and_the_replaced_certificate_named() {
    let scene = Scene::new().await;
    let [one, two] = BOTH.map(|engine| scene.issuer(engine));
    let account = registered(&two).await;
    let first = scene.issue(&two, &account, &scene.order("a.example")).await.unwrap();
    let leaf = first.chain[0].clone();
    let renewal = || Order { replaces: Some(leaf.clone()), ..scene.order("a.example") };
    // An authority without ARI has no opinion, and hears nothing of the old certificate.
    for issuer in [&one, &two] {
        assert_eq!(issuer.window(&account, &leaf).await.unwrap(), None);
    }
    scene.issue(&two, &account, &renewal()).await.unwrap();
    assert_eq!(scene.proxy.last_order().unwrap().get("replaces"), None);

    let ari = |retry_after: Option<&str>| Ari {
        start: "2027-01-01T00:00:00Z".into(),
        end: "2027-01-02T00:00:00+01:00".into(),
        retry_after: retry_after.map(Into::into),
    };
    for (retry_after, ask_again) in [(Some("7200"), 7200), (None, 6 * 3600), (Some("1"), 60)] {
        scene.proxy.offer_ari(ari(retry_after));
        for issuer in [&one, &two] {
            let window = issuer.window(&account, &leaf).await.unwrap().unwrap();
            assert_eq!(window.start, "2027-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
            assert_eq!(window.end, "2027-01-01T23:00:00Z".parse::<Timestamp>().unwrap());
            assert_eq!(window.ask_again, Duration::from_secs(ask_again));
        }
    }
    let asked = scene.proxy.renewal_ids();
    assert!(asked.iter().all(|id| id == &asked[0]) && asked[0].split('.').count() == 2);
    // Pebble does not repeat `replaces` in its answer.
    let calls = scene.proxy.calls(Route::NewOrder);
    scene.issue(&two, &account, &renewal()).await.unwrap();
    assert_eq!(scene.proxy.last_order().unwrap()["replaces"], asked[0].as_str());
    assert_eq!(scene.proxy.calls(Route::NewOrder), calls + 1, "one order, not two");
    // One that was replaced already: ordered without.
    scene.proxy.fail(Route::NewOrder, Told::Problem(409, "alreadyReplaced"), Some(1));
    scene.issue(&two, &account, &renewal()).await.unwrap();
    assert_eq!(scene.proxy.last_order().unwrap().get("replaces"), None);

    let (start, end) = ("2027-01-02T00:00:00Z".into(), "2027-01-01T00:00:00Z".into());
    scene.proxy.offer_ari(Ari { start, end, retry_after: None });
    let empty = two.window(&account, &leaf).await.unwrap_err();
    assert_eq!(empty.kind, Fault::Unavailable, "{empty}");
    for (told, kind) in [
        (Told::RateLimited(Some("60".into())), Fault::RateLimited),
        (Told::Status(503), Fault::Unavailable),
        (Told::WrongType, Fault::Unavailable),
    ] {
        scene.proxy.fail(Route::RenewalInfo, told, Some(1));
        assert_eq!(two.window(&account, &leaf).await.unwrap_err().kind, kind);
    }
}
