//! What only instant-acme does: external accounts, addresses, profiles, windows, P-384.

use std::time::Duration;

use endpoint_tests::{
    faulty_ca::{Ari, Route},
    machine::string,
    pebble::Settings,
};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::{
    scene::{self, Case, Scene, ended, leaf, names_all, stands_in, time, together},
    site,
};

const NAME: &str = "one.example";
const KID: &str = "kid-1";
const HMAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

fn engine(info: &serde_json::Value, why: &str) {
    assert_eq!(string(info, "engine"), "instant-acme");
    assert!(string(info, "engine_reason").contains(why), "{info:#}");
}

fn contains(cert: &CertificateDer<'_>, part: &[u8]) -> bool {
    cert.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_account_is_bound_and_a_wrong_key_is_told() {
    let bound = |key: &'static str| async move {
        let external_accounts = vec![(KID.to_owned(), HMAC.to_owned())];
        let settings = Settings { external_accounts, ..Settings::default() };
        let eab = format!("eab = {{ kid = \"{KID}\", hmac_file = \"eab.key\" }}\n");
        let scene = Scene::new(settings, &[NAME], &eab).await;
        let file = scene.machine.file("eab.key");
        std::fs::write(&file, key).unwrap();
        scene
    };
    let scene = bound(HMAC).await;
    let server = scene.serve();
    engine(&scene.issued(NAME).await, "external account");
    assert_eq!((scene.ca.orders_for(NAME), scene.ca.accounts()), (1, 1));
    ended(server);

    let wrong = "AAAAZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let scene = bound(wrong).await;
    let server = scene.serve();
    let info = scene.until(NAME, "a fault", stands_in).await;
    engine(&info, "external account");
    names_all(&scene.words(NAME), &[KID, "registering the account", "hmac_file", "self-signed"]);
    leaf(&server, NAME).await;
    let said = scene.renew(NAME);
    assert_eq!(said.code(), 1, "{said:?}");
    let said = scene.renew(NAME);
    names_all(&said.err, &["failure budget"]);
    assert!(scene.ca.calls(Route::NewAccount) <= 2, "{}", scene.ca.calls(Route::NewAccount));
    assert_eq!((scene.ca.orders().len(), scene.ca.accounts()), (0, 0));
    let all = format!("{info}{said:?}{:?}", ended(server));
    for key in [HMAC, wrong] {
        assert!(!all.contains(&key[8..24]), "{all}");
    }
    println!("acceptance: EAB: the good key binds the account, the wrong one is told with its kid");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_a_certificate_that_answers_without_a_name() {
    let asked = "engine = \"rustls-acme\"\n";
    let scene = Scene::new(Settings::default(), &["127.0.0.1", NAME], asked).await;
    let server = scene.serve();
    engine(&scene.issued("127.0.0.1").await, "IP address");
    assert_eq!(string(&scene.issued(NAME).await, "engine"), "rustls-acme");
    assert_eq!(scene.ca.accounts(), 1, "one account for both clients");
    // A dialled address is no server name.
    let shown = leaf(&server, "127.0.0.1").await;
    assert!(contains(&shown, &[0x87, 4, 127, 0, 0, 1]), "iPAddress 127.0.0.1");
    let named = leaf(&server, NAME).await;
    assert!(contains(&named, NAME.as_bytes()) && named != shown);
    let order = &scene.ca.orders();
    assert!(order.iter().any(|order| order["identifiers"][0]["type"] == "ip"), "{order:?}");
    ended(server);
    println!("acceptance: a certificate for 127.0.0.1, shown to whoever names no server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_not_offered_is_told_with_those_that_are() {
    let scene = Scene::new(Settings::default(), &[NAME], "profile = \"shortlived\"\n").await;
    scene.ca.offer_profiles(&["classic", "tlsserver"]);
    let server = scene.serve();
    let info = scene.until(NAME, "a fault", stands_in).await;
    engine(&info, "shortlived");
    names_all(&scene.words(NAME), &["shortlived", "classic, tlsserver", "self-signed"]);
    assert_eq!(scene.ca.orders().len(), 0, "no order was wasted");
    scene.ca.offer_profiles(&["shortlived"]);
    let said = scene.renew(NAME);
    assert_eq!(said.code(), 0, "{said:?}");
    assert_eq!(scene.ca.last_order().unwrap()["profile"], "shortlived");
    assert!(site::issued(&scene.info(NAME)));
    ended(server);
    println!("acceptance: profile: those offered are told, an offered one is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_p384_is_certified_and_served() {
    let scene = Scene::new(Settings::default(), &[NAME], "key_type = \"p384\"\n").await;
    let server = scene.serve();
    engine(&scene.issued(NAME).await, "P-384");
    // secp384r1 (RFC 5480 §2.1.1.1).
    assert!(contains(&leaf(&server, NAME).await, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]));
    ended(server);
    println!("acceptance: a P-384 leaf is issued and served");
}

#[test]
fn renewals_come_when_the_authority_wants_them_and_not_in_a_loop() {
    let cases: [Case; 3] =
        [Box::pin(window_in_the_past()), Box::pin(window_in_the_future()), Box::pin(six_days())];
    together(cases);
}

/// Certificates of a minute: renewed after 40 s by the rule of thumb, after 57 s at the latest.
/// Nothing says which client to take: renewals say what they replace by default.
async fn minute() -> Scene {
    let settings = Settings { validity: 60, ..Settings::default() };
    Scene::new(settings, &[NAME], "").await
}

fn window(start: Timestamp, end: Timestamp) -> Ari {
    Ari { start: start.to_string(), end: end.to_string(), retry_after: Some("60".to_owned()) }
}

/// Waits for the certificate after `first`; gives it.
async fn next(scene: &Scene, first: &serde_json::Value) -> serde_json::Value {
    let after = string(first, "not_after");
    let newer = |info: &serde_json::Value| string(info, "not_after") != after;
    scene.until(NAME, "a newer certificate", newer).await
}

async fn window_in_the_past() {
    let scene = minute().await;
    let now = scene::now();
    let hour = Duration::from_secs(3600);
    scene.ca.offer_ari(window(now - 2 * hour, now - hour));
    let server = scene.serve();
    let first = scene.issued(NAME).await;
    let second = next(&scene, &first).await;
    let rule = time(&first, "not_before") + Duration::from_secs(39);
    assert!(time(&second, "not_before") < rule, "{first:#} {second:#}");
    let orders = scene.ca.orders();
    assert_eq!(orders[0].get("replaces"), None);
    assert_eq!(orders[1]["replaces"], scene.ca.renewal_ids()[0]);
    // Not again and again, however odd the window is: never sooner than a sixth of the life.
    let third = next(&scene, &second).await;
    let apart = time(&third, "not_before").duration_since(time(&second, "not_before"));
    assert!(apart.as_secs() >= 9, "{second:#} {third:#}");
    assert!(scene.ca.orders().len() <= 4 && scene.ca.accounts() == 1);
    ended(server);
    println!("acceptance: ARI: a window in the past is obeyed at once, `replaces` sent, no loop");
}

async fn window_in_the_future() {
    let scene = minute().await;
    let start = scene::now() + Duration::from_secs(47);
    scene.ca.offer_ari(window(start, start + Duration::from_secs(2)));
    let server = scene.serve();
    let first = scene.issued(NAME).await;
    let began = time(&first, "not_before");
    let told = scene.until(NAME, "a plan", |info| info["next_action"] == "renew").await;
    let planned = time(&told, "next_at");
    assert!(planned >= start.min(began + Duration::from_secs(56)), "{told:#}");
    let second = next(&scene, &first).await;
    // Whole seconds stand in a certificate. The rule of thumb would have been 40 s after the first, and an
    // emergency is 57 s after it.
    let renewed = time(&second, "not_before") + Duration::from_secs(1);
    assert!(renewed >= start.min(began + Duration::from_secs(56)), "{start} {second:#}");
    let orders = scene.ca.orders();
    assert_eq!(orders.len(), 2);
    assert_eq!(orders[1]["replaces"], scene.ca.renewal_ids()[0]);
    ended(server);
    println!("acceptance: ARI: a window in the future is waited for, `replaces` sent");
}

async fn six_days() {
    let settings = Settings { validity: 518_400, ..Settings::default() };
    let scene = Scene::new(settings, &[NAME], "renew_before = \"30d\"\n").await;
    let server = scene.serve();
    let info = scene.issued(NAME).await;
    let planned = time(&info, "next_at").duration_since(time(&info, "not_before"));
    assert!((95..=101).contains(&planned.as_hours()), "after four days: {info:#}");
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(scene.ca.orders().len(), 1);
    }
    let calls = scene.ca.total();
    ended(server);
    let server = scene.serve();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(site::issued(&scene.info(NAME)));
    assert_eq!((scene.ca.orders().len(), scene.ca.total()), (1, calls), "{info:#}");
    ended(server);
    println!(
        "acceptance: a 6-day certificate with renew_before = 30d: one order, also after a restart"
    );
}
