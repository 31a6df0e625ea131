//! What is kept comes back whole, and nothing else comes back.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::store::Memory;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-22T12:00:00Z")
}

fn made(names: &[&str], years: (i32, i32)) -> (Vec<CertificateDer<'static>>, Vec<u8>) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    (vec![params.self_signed(&key).unwrap().der().clone()], key.serialize_der())
}

fn origin() -> Origin {
    Origin { source: "acme".into(), issuer: Some("https://ca.example/dir".into()), engine: None }
}

fn vault() -> Vault {
    Vault::new(Arc::new(Memory::new()))
}

async fn keep(vault: &Vault, name: &str, issued: &(Vec<CertificateDer<'static>>, Vec<u8>)) {
    vault.keep(name, &issued.0, &issued.1, &origin(), now()).await.unwrap();
}

async fn load(vault: &Vault, name: &str, time: &str) -> Held {
    vault.load(name, at(time), &default_provider()).await.unwrap().unwrap()
}

const TODAY: &str = "2026-11-22T12:00:00Z";

async fn spoil(vault: &Vault, kind: Kind, body: &[u8]) {
    let change = Change::Replace(kind, "a.example".into(), None, Zeroizing::new(body.to_vec()));
    vault.store().write(vec![change], now()).await.unwrap();
}

async fn raw(vault: &Vault, kind: Kind) -> Option<Zeroizing<Vec<u8>>> {
    vault.store().read(kind, "a.example").await.unwrap().map(|record| record.body)
}

#[tokio::test]
async fn what_is_kept_comes_back_and_the_one_before_too() {
    let vault = vault();
    assert!(vault.load("a.example", now(), &default_provider()).await.unwrap().is_none());
    let (first, second) = (made(&["a.example"], (2026, 2027)), made(&["a.example"], (2026, 2028)));
    keep(&vault, "a.example", &first).await;
    let held = load(&vault, "A.example.", TODAY).await;
    assert_eq!(held.loaded.certified.cert, first.0);
    assert_eq!((held.info.origin.clone(), held.info.fault.clone()), (origin(), None));
    assert_eq!(held.info.not_after, at("2027-01-01T00:00:00Z"));
    assert!(raw(&vault, Kind::Previous).await.is_none());
    let before = raw(&vault, Kind::Certificate).await;

    keep(&vault, "a.example", &second).await;
    assert_eq!(load(&vault, "a.example", TODAY).await.loaded.certified.cert, second.0);
    assert_eq!(raw(&vault, Kind::Previous).await, before);
    assert_eq!(vault.names().await.unwrap(), ["a.example"]);
    let shown = format!("{vault:?} {held:?}");
    assert!(!shown.contains(&format!("{:?}", &first.1[..8])), "{shown}");
}

#[tokio::test]
async fn a_record_that_cannot_be_used_gives_way_to_the_one_before() {
    let first = made(&["a.example"], (2026, 2027));
    let (other_name, other_key) =
        (made(&["b.example"], (2026, 2027)), made(&["a.example"], (2026, 2027)));
    let record = |chain: &[CertificateDer<'static>], key: &[u8]| {
        let (chain, key) = (chain.to_vec(), Zeroizing::new(key.to_vec()));
        let kept = Kept { names: vec![], origin: origin(), issued: now(), chain, key };
        kept.write().unwrap()
    };
    let mut long = first.0[0].to_vec();
    long.push(0);
    let long = [CertificateDer::from(long)];
    let cut = [first.0[0].clone(), CertificateDer::from(first.0[0][..100].to_vec())];
    let whole = record(&first.0, &first.1);
    for (bad, said) in [
        (Zeroizing::new(b"garbage".to_vec()), "form is unknown"),
        (Zeroizing::new(whole[..whole.len() - 1].to_vec()), "cut off"),
        (record(&other_name.0, &other_name.1), "not valid for `a.example`"),
        (record(&first.0, &other_key.1), "does not belong"),
        (record(&first.0, b"no key"), "neither PKCS#8"),
        (record(&long, &first.1), "bytes left over"),
        (record(&cut, &first.1), "cut"),
        (record(&[], &first.1), ""),
    ] {
        let vault = vault();
        keep(&vault, "a.example", &first).await;
        spoil(&vault, Kind::Certificate, &bad).await;
        let lost = vault.load("a.example", now(), &default_provider()).await.unwrap_err();
        assert!(
            matches!(lost, VaultError::Lost { .. }) && lost.to_string().contains(said),
            "{lost}"
        );
        spoil(&vault, Kind::Previous, &whole).await;
        let held = load(&vault, "a.example", TODAY).await;
        assert_eq!((&held.loaded.certified.cert, held.generation), (&first.0, 0));
        let fault = held.info.fault.unwrap();
        assert!(fault.contains(said) && fault.contains("the one before"), "{fault}");
        // A new one does not push the good previous one out.
        let new = made(&["a.example"], (2026, 2028));
        keep(&vault, "a.example", &new).await;
        assert_eq!(load(&vault, "a.example", TODAY).await.loaded.certified.cert, new.0);
        assert_eq!(raw(&vault, Kind::Previous).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn an_ended_certificate_is_served_with_a_fault_unless_the_one_before_holds() {
    let vault = vault();
    let (long, short) = (made(&["a.example"], (2026, 2030)), made(&["a.example"], (2026, 2027)));
    keep(&vault, "a.example", &short).await;
    let held = load(&vault, "a.example", "2028-01-01T00:00:00Z").await;
    assert_eq!(held.loaded.certified.cert, short.0);
    assert!(held.info.fault.unwrap().contains("ended on 2027-01-01"));
    let held = load(&vault, "a.example", "2025-01-01T00:00:00Z").await;
    assert!(held.info.fault.unwrap().contains("clock"));
    keep(&vault, "a.example", &long).await;
    keep(&vault, "a.example", &short).await;
    let held = load(&vault, "a.example", "2028-01-01T00:00:00Z").await;
    assert_eq!(held.loaded.certified.cert, long.0);
}

#[tokio::test]
async fn refuses_to_keep_what_could_not_be_served() {
    let vault = vault();
    let (good, other) = (made(&["a.example"], (2026, 2027)), made(&["a.example"], (2026, 2027)));
    let ended = made(&["a.example"], (2024, 2025));
    for (name, chain, key, said) in [
        ("b.example", &good.0, &good.1, "not valid for `b.example`"),
        ("a.example", &good.0, &other.1, "does not belong"),
        ("a.example", &ended.0, &ended.1, "ended on"),
        ("a b", &good.0, &good.1, "no DNS name"),
        ("a.example", &vec![], &good.1, ""),
    ] {
        let error = vault.keep(name, chain, key, &origin(), now()).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(vault.names().await.unwrap().is_empty());
}

#[tokio::test]
async fn imports_under_every_name_and_exports_the_chain() {
    let vault = vault();
    let names = ["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"];
    let (chain, key) = made(&names, (2026, 2027));
    let key_pem = KeyPair::try_from(key.as_slice()).unwrap().serialize_pem();
    let cert_pem = pem(&chain[0]);
    assert_eq!(vault.import(cert_pem.as_bytes(), key_pem.as_bytes(), now()).await.unwrap(), names);
    for name in names {
        assert_eq!(vault.export(name, now()).await.unwrap().unwrap(), cert_pem);
        assert_eq!(vault.info(name, now()).await.unwrap().unwrap().origin.source, "import");
    }
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (cert, key) in [(&key_pem, &key_pem), (&cert_pem, &cert_pem), (&cert_pem, &other)] {
        let error = vault.import(cert.as_bytes(), key.as_bytes(), now()).await.unwrap_err();
        assert!(matches!(error, VaultError::Unfit(_)), "{error}");
        assert!(!error.to_string().contains(&other[40..60]));
    }
    assert!(vault.export("c.example", now()).await.unwrap().is_none());
}

#[tokio::test]
async fn keeps_one_account_for_each_directory() {
    let vault = vault();
    let directory = "https://ca.example/dir";
    assert!(vault.account(directory).await.unwrap().is_none());
    vault.keep_account(directory, b"key one", "https://ca.example/acct/1", now()).await.unwrap();
    vault.keep_account("https://other", b"key two", "https://other/1", now()).await.unwrap();
    let (key, url) = vault.account(directory).await.unwrap().unwrap();
    assert_eq!((key.as_slice(), url.as_str()), (&b"key one"[..], "https://ca.example/acct/1"));
    let bad = Change::Replace(Kind::Account, directory.into(), None, Zeroizing::new(vec![0; 3]));
    vault.store().write(vec![bad], now()).await.unwrap();
    assert!(matches!(vault.account(directory).await, Err(VaultError::Invalid { .. })));
    assert!(vault.set_account_aside(directory, "odd", now()).await.unwrap());
    assert!(vault.account(directory).await.unwrap().is_none());
    assert!(!vault.set_account_aside(directory, "odd", now()).await.unwrap(), "once");
    assert_eq!(vault.store().asides().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_chain_that_no_client_would_read_replaces_nothing() {
    let vault = vault();
    let good = made(&["a.example"], (2026, 2027));
    keep(&vault, "a.example", &good).await;
    let (chain, key) = made(&["a.example"], (2026, 2028));
    let many: Vec<_> = chain.iter().cycle().take(11).cloned().collect();
    let names: Vec<String> = (0..2000).map(|i| format!("host-{i:04}.a.example")).collect();
    let long = made(&names.iter().map(String::as_str).collect::<Vec<_>>(), (2026, 2028)).0;
    for chain in [many, [chain, long].concat()] {
        let refused = vault.keep("a.example", &chain, &key, &origin(), now()).await.unwrap_err();
        assert!(refused.to_string().contains("expected at most 10 in 32768"), "{refused}");
    }
    assert_eq!(load(&vault, "a.example", TODAY).await.loaded.certified.cert, good.0);
}

async fn examined(vault: &Vault) -> Vec<(Kind, Condition, String)> {
    let found = vault.examine(now()).await.unwrap();
    found.ailing.into_iter().map(|one| (one.kind, one.condition, one.remedy)).collect()
}

#[tokio::test]
async fn a_damaged_newest_is_set_aside_and_the_one_before_takes_its_place() {
    let vault = vault();
    let (first, second) = (made(&["a.example"], (2026, 2027)), made(&["a.example"], (2026, 2028)));
    keep(&vault, "a.example", &first).await;
    keep(&vault, "a.example", &second).await;
    assert_eq!(examined(&vault).await, []);
    spoil(&vault, Kind::Certificate, b"garbage").await;
    let [(Kind::Certificate, Condition::Damaged, remedy)] = &examined(&vault).await[..] else {
        panic!()
    };
    assert!(remedy.contains("the one before takes its place"), "{remedy}");
    // Looking changes nothing.
    assert_eq!(*raw(&vault, Kind::Certificate).await.unwrap(), b"garbage".to_vec());
    let found = vault.examine(now()).await.unwrap();
    let done = vault.repair(&found.ailing[0], now()).await.unwrap().unwrap();
    assert!(done.contains("set aside") && done.contains("took its place"), "{done}");
    assert_eq!(vault.repair(&found.ailing[0], now()).await.unwrap(), None, "once");
    let held = load(&vault, "a.example", TODAY).await;
    let held_leaf = held.leaf();
    assert_eq!((held.loaded.certified.cert.clone(), held.info.fault), (first.0, None));
    assert_eq!(examined(&vault).await, []);
    assert_eq!(vault.examine(now()).await.unwrap().asides.len(), 1);
    assert!(vault.was_succeeded(&held_leaf).await, "its authority knows of a newer one");
}

#[tokio::test]
async fn a_certificate_with_a_mark_is_served_only_while_nothing_else_can_be() {
    use super::marks::Mark;
    let vault = vault();
    let (first, second) = (made(&["a.example"], (2026, 2027)), made(&["a.example"], (2026, 2028)));
    keep(&vault, "a.example", &first).await;
    let before = load(&vault, "a.example", TODAY).await;
    keep(&vault, "a.example", &second).await;
    let newest = load(&vault, "a.example", TODAY).await.leaf();
    vault.mark(&newest, Mark::revoked(now()), now()).await.unwrap();
    let held = load(&vault, "a.example", TODAY).await;
    assert_eq!((held.leaf(), held.info.condition), (before.leaf(), Condition::TakenBack));
    vault.mark(&before.leaf(), Mark::replaced(now()), now()).await.unwrap();
    assert_eq!(load(&vault, "a.example", TODAY).await.leaf(), newest, "the newest of two");
    // A mark that cannot be read counts as set, but less than one that can.
    let unread = Change::Replace(Kind::Mark, newest.clone(), None, b"?".to_vec().into());
    vault.store().write(vec![unread], now()).await.unwrap();
    assert_eq!(load(&vault, "a.example", TODAY).await.leaf(), newest);
    let clear = Change::Delete(Kind::Mark, before.leaf());
    vault.store().write(vec![clear], now()).await.unwrap();
    assert_eq!(load(&vault, "a.example", TODAY).await.leaf(), before.leaf());
    let found = vault.examine(now()).await.unwrap();
    assert_eq!(found.ailing[0].kind, Kind::Mark);
    vault.repair(&found.ailing[0], now()).await.unwrap().unwrap();
    assert_eq!(load(&vault, "a.example", TODAY).await.leaf(), before.leaf(), "still in doubt");
}

#[tokio::test]
async fn every_kind_of_record_is_examined_and_mended_for_itself() {
    let vault = vault();
    for kind in Kind::ALL {
        spoil(&vault, kind, b"\x00garbage").await;
    }
    let found = vault.examine(now()).await.unwrap();
    // An OCSP answer is held against its certificate when it is read.
    assert_eq!((found.records, found.ailing.len()), (7, 6), "{found:?}");
    for ailing in &found.ailing {
        let done = vault.repair(ailing, now()).await.unwrap();
        // Both certificates of a name are mended at once.
        assert_eq!(done.is_some(), ailing.kind != Kind::Previous, "{ailing:?}");
    }
    let after = vault.examine(now()).await.unwrap();
    assert_eq!((after.ailing.len(), after.asides.len()), (0, 5), "{after:?}");
    let history = raw(&vault, Kind::History).await.unwrap();
    assert!(String::from_utf8_lossy(&history).contains("failed"), "the budget counts as spent");
}
