//! Does a certificate stay in service, whatever befalls what is kept of it?
//!
//! Each record × each damage × newest ended or valid × authority up or down × disk fine, full or read-only:
//! what is whole is served at every moment, renewal comes within the budget as soon as it can, nothing storms.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    fake::{CA, Disk, Mood, NAME, OTHER, World},
    issuer::Fault,
    source::AcmeSource,
    unkept::SETTLE,
};
use crate::{
    certs::{
        history::{History, Moment},
        source::Source,
        vault::{Condition, Kept},
    },
    store::{Kind, Store, StoreError},
};

const RECORDS: [&str; 5] = ["certificate", "key", "history", "account", "issuance"];
const DAMAGES: [&str; 4] = ["flipped", "cut", "missing", "wrong"];
const DAY: i64 = 86_400;
const HOUR: i64 = 3600;

/// One of the 240.
#[derive(Clone, Copy, Debug)]
struct Cell {
    record: &'static str,
    damage: &'static str,
    ended: bool,
    up: bool,
    disk: Disk,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for record in RECORDS {
        for damage in DAMAGES {
            for ended in [true, false] {
                for up in [true, false] {
                    for disk in [Disk::Fine, Disk::Full, Disk::ReadOnly] {
                        cells.push(Cell { record, damage, ended, up, disk });
                    }
                }
            }
        }
    }
    cells
}

/// A world in which a name had a certificate of 90 days, and on day 60 one of six.
async fn two_certificates() -> World {
    let world = World::new().with_other();
    let source = world.source();
    source.look(world.clock.now(), false).await;
    world.clock.advance(60 * DAY + HOUR);
    // The profile was changed to a shorter one.
    world.authorities.state().lifetime = 6 * DAY;
    let looked = source.look(world.clock.now(), true).await;
    assert!(looked.fresh.is_some(), "{looked:?}");
    // An operator's order speaks against the one before; these are to be equals.
    let leaves: Vec<_> = world.store.list(Kind::Mark).await.unwrap();
    for (leaf, _) in leaves {
        let gone = crate::store::Change::Delete(Kind::Mark, leaf);
        world.store.write(vec![gone], world.clock.now()).await.unwrap();
    }
    world.authorities.state().lifetime = 90 * DAY;
    world.authorities.state().orders.clear();
    world
}

impl Cell {
    /// Whether the newest certificate itself cannot be used.
    fn loses_the_newest(self) -> bool {
        match self.record {
            "certificate" | "key" => true,
            "issuance" => self.damage != "wrong",
            _ => false,
        }
    }

    async fn spoil(self, world: &World) {
        let store = &world.store;
        let (kind, id) = match self.record {
            "history" => (Kind::History, NAME),
            "account" => (Kind::Account, CA),
            _ => (Kind::Certificate, NAME),
        };
        let part = self.record;
        match self.damage {
            "flipped" => {
                // In the midst of the part: the facts come first, then the key, then the chain.
                store
                    .alter(kind, id, false, |body| {
                        let at = match part {
                            "issuance" => 20,
                            "key" => body.len() / 3,
                            _ => body.len() / 2,
                        };
                        body[at] ^= 0x20;
                    })
                    .await;
            }
            "cut" => store.alter(kind, id, false, |body| body.truncate(body.len() / 2)).await,
            "missing" | "wrong" if kind == Kind::Certificate && part != "certificate" => {
                let wrong = self.damage == "wrong";
                store.alter(kind, id, true, |body| *body = without(body, part, wrong)).await;
            }
            "missing" => {
                let gone = crate::store::Change::Delete(kind, id.to_owned());
                store.inner.write(vec![gone], world.clock.now()).await.unwrap();
            }
            _ => {
                let now = world.clock.now();
                store.alter(kind, id, true, |body| *body = wrong(kind, body, now)).await;
            }
        }
    }
}

/// A certificate's record without its key or its facts, or with others.
fn without(body: &[u8], part: &str, wrong: bool) -> Vec<u8> {
    let mut kept = Kept::read(body).unwrap();
    match (part, wrong) {
        ("key", false) => kept.key = Zeroizing::new(Vec::new()),
        ("key", true) => {
            kept.key = rcgen::KeyPair::generate().unwrap().serialize_der().into();
        }
        (_, true) => kept.origin.issuer = Some("https://gone.example/dir".to_owned()),
        (_, false) => {
            let facts = u32::from_be_bytes(body[4..8].try_into().unwrap()) as usize;
            return [&body[..4], &[0, 0, 0, 2][..], b"{}", &body[8 + facts..]].concat();
        }
    }
    kept.write().unwrap().to_vec()
}

/// A record that was written so, and is not what it should be.
fn wrong(kind: Kind, body: &[u8], now: Timestamp) -> Vec<u8> {
    match kind {
        Kind::History => {
            let mut history = History::from_bytes(body).unwrap();
            let later: Moment =
                now.checked_add(jiff::SignedDuration::from_hours(90_000)).unwrap().into();
            history.failed = vec![later; 4];
            history.issued = Some(later);
            history.to_bytes().unwrap()
        }
        // The key without the account's URL, as a crash in the registration leaves it.
        Kind::Account => {
            let key = u32::from_be_bytes(body[4..8].try_into().unwrap()) as usize;
            body[..8 + key].to_vec()
        }
        _ => {
            let mut kept = Kept::read(body).unwrap();
            let params = rcgen::CertificateParams::new(vec!["b.example".to_owned()]).unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            kept.chain = vec![params.self_signed(&key).unwrap().der().clone()];
            kept.key = key.serialize_der().into();
            kept.write().unwrap().to_vec()
        }
    }
}

/// Looks when the source wants to be looked at, and holds what is served against the clock at each of them.
async fn live(world: &World, source: &AcmeSource, seconds: i64, cell: Cell) -> Vec<String> {
    let end = world.clock.now().as_second() + seconds;
    let mut faults = Vec::new();
    loop {
        let looked = source.look(world.clock.now(), false).await;
        faults.extend(looked.fault);
        let now = world.clock.now();
        let until = source.state().held.as_ref().map(|held| held.loaded.validity);
        let whole = until.is_some_and(|of| of.from <= now && now <= of.until);
        assert!(whole, "{cell:?}: {until:?} is served at {now}: {faults:?}");
        let again = looked.again.expect("a time").as_second().max(now.as_second() + 1);
        if again >= end {
            world.clock.advance(end - now.as_second());
            return faults;
        }
        world.clock.advance(again - now.as_second());
    }
}

fn orders(world: &World) -> usize {
    world.authorities.orders().len()
}

/// Whether a certificate of 90 days from now is served.
fn renewed(world: &World, source: &AcmeSource) -> bool {
    let far = world.clock.now().as_second() + 60 * DAY;
    source.state().held.as_ref().is_some_and(|held| held.loaded.validity.until.as_second() > far)
}

async fn holds(cell: Cell) {
    let world = two_certificates().await;
    world.clock.advance(if cell.ended { 7 * DAY } else { DAY });
    cell.spoil(&world).await;
    *world.store.disk.lock().unwrap() = cell.disk;
    let down = Mood::Fails(Fault::Unavailable, None);
    for directory in [CA, OTHER] {
        world.authorities.mood(directory, if cell.up { Mood::Good } else { down });
    }
    let writable = cell.disk == Disk::Fine;
    let source = world.source();
    let began = source.kept(world.clock.now()).await;
    assert!(began.fresh.is_some(), "{cell:?} begins in the dark: {began:?}");
    let due = cell.ended || cell.loses_the_newest();
    let told = began.fault.is_some() || source.standing().condition != Condition::Whole;
    assert_eq!(told, due || !told_nothing(cell), "{cell:?}: {began:?} {:?}", source.standing());

    let mut faults = Vec::new();
    if !cell.up {
        faults.extend(live(&world, &source, 3 * HOUR, cell).await);
        let most = if writable { 24 } else { 1 };
        assert!(orders(&world) <= most, "{cell:?}: {} orders while it is down", orders(&world));
        assert!(!renewed(&world, &source));
        for directory in [CA, OTHER] {
            world.authorities.mood(directory, Mood::Good);
        }
        world.authorities.state().orders.clear();
    }
    // A budget that nobody knows counts as spent for an hour; a disk that is full costs ten minutes.
    let patience = if cell.record == "history" { HOUR + 60 } else { 0 };
    let patience = patience.max(if writable { 60 } else { SETTLE.as_secs().cast_signed() + 60 });
    let patience = if cell.up { patience } else { HOUR + HOUR / 4 + 60 };
    faults.extend(live(&world, &source, patience, cell).await);
    // The one order without a kept budget was made while the authority was down.
    let spent = !writable && !cell.up && due;
    let context = || {
        let (state, last) = (source.state(), faults.last());
        format!(
            "{cell:?}: {last:?} {:?} {:?} {:?}",
            state.standing,
            state.history,
            world.authorities.orders()
        )
    };
    assert_eq!(renewed(&world, &source), due && !spent, "{}", context());
    assert_eq!(orders(&world), usize::from(due && !spent), "{cell:?}: {faults:?}");
    if !writable && due {
        assert!(faults.iter().any(|fault| fault.contains("the test's store")), "{faults:?}");
    }

    // The disk is mended: what stands in memory is kept, and only what is due is ordered.
    *world.store.disk.lock().unwrap() = Disk::Fine;
    live(&world, &source, HOUR + HOUR / 2, cell).await;
    let expected = usize::from(due);
    assert_eq!(orders(&world), expected, "{cell:?}: {faults:?}");
    live(&world, &source, if due { DAY / 4 } else { 5 * DAY }, cell).await;
    assert!(renewed(&world, &source), "{cell:?}: {faults:?}");
    assert_eq!(orders(&world), 1, "{cell:?}: {:?}", world.authorities.orders());
    assert_eq!(source.look(world.clock.now(), false).await.fault, None, "{cell:?}");
    // A new account only where the old one was lost.
    let lost = cell.record == "account" && cell.damage != "wrong";
    let at_ca = world.authorities.state().registered.iter().filter(|(of, _)| of == CA).count();
    assert_eq!(at_ca, 1 + usize::from(lost), "{cell:?}");
    // Nothing that was damaged is gone.
    if ["flipped", "cut"].contains(&cell.damage) {
        assert!(!world.store.asides().await.unwrap().is_empty(), "{cell:?}");
    }
    let again = world.source();
    let began = again.kept(world.clock.now()).await;
    assert!(began.fresh.is_some() && began.fault.is_none(), "{cell:?}: {began:?}");
    assert!(again.look(world.clock.now(), false).await.fault.is_none());
    assert_eq!(orders(&world), 1, "{cell:?}: a restart ordered");
}

/// Whether there is nothing to tell at the start.
fn told_nothing(cell: Cell) -> bool {
    !(cell.record == "issuance" && cell.damage == "wrong")
}

#[allow(clippy::print_stdout, reason = "the line that the acceptance run gathers")]
#[tokio::test]
async fn nothing_that_befalls_a_record_a_disk_or_an_authority_takes_a_certificate_out_of_service() {
    let cells = cells();
    assert_eq!(cells.len(), 240);
    for cell in &cells {
        Box::pin(holds(*cell)).await;
    }
    println!(
        "acceptance: {} cells of damaged records, authority and disk: what is whole is served at every moment, \
         renewed within the budget, one order each, nothing damaged is lost",
        cells.len()
    );
}

/// What serves only if everything is in order, as this program once did.
async fn strict(world: &World) -> bool {
    let vault = crate::certs::vault::Vault::new(world.store.clone());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let held = vault.load(NAME, world.clock.now(), &provider).await;
    let history = match world.store.read(Kind::History, NAME).await {
        Ok(record) => record.is_none_or(|record| History::from_bytes(&record.body).is_ok()),
        Err(StoreError::Damaged { .. }) => false,
        Err(_) => false,
    };
    history && matches!(held, Ok(Some(held)) if held.info.condition == Condition::Whole)
}

#[tokio::test]
async fn where_doubt_admits_nobody_most_of_these_go_dark() {
    let mut dark = 0;
    for cell in cells() {
        let world = two_certificates().await;
        world.clock.advance(if cell.ended { 7 * DAY } else { DAY });
        cell.spoil(&world).await;
        dark += usize::from(!strict(&world).await);
    }
    assert!((150..240).contains(&dark), "{dark}");
}

#[tokio::test]
async fn a_record_that_is_damaged_under_a_process_that_has_it_whole_costs_no_order() {
    let world = World::new();
    let source = world.source();
    source.look(world.clock.now(), false).await;
    world.authorities.state().orders.clear();
    for day in 1..=5 {
        world.clock.advance(DAY);
        world.store.alter(Kind::Certificate, NAME, false, |body| body.truncate(9)).await;
        let cell =
            Cell { record: "certificate", damage: "cut", ended: false, up: true, disk: Disk::Fine };
        live(&world, &source, HOUR, cell).await;
        let aside = world.store.asides().await.unwrap().len();
        assert_eq!((orders(&world), aside), (0, day), "{:?}", source.standing());
    }
    // It was written again each time.
    let next = world.source();
    assert!(next.kept(world.clock.now()).await.fresh.is_some());
    live(
        &world,
        &next,
        HOUR,
        Cell { record: "certificate", damage: "cut", ended: false, up: true, disk: Disk::Fine },
    )
    .await;
    assert_eq!(orders(&world), 0, "{:?}", next.standing());
}
