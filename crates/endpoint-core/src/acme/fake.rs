//! An authority for tests that fails in every way, and a store that does.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;

use super::{issuer::*, schedule::Clients, *};
use crate::{
    certs::challenges::Challenges,
    clock::Clock,
    config::{Acme, AcmeDirectory, AcmeIssuer, ChallengeKind},
    store::{Aside, Change, Kind, Lease, Memory, Pending, Record, Store, StoreError},
};
use jiff::Timestamp;
use std::sync::Arc;

pub(super) const NAME: &str = "a.example";
pub(super) const CA: &str = "https://ca.example/dir";
pub(super) const STAGING: &str = "https://staging.ca.example/dir";
pub(super) const OTHER: &str = "https://other.example/dir";

/// What the authority answers to the next orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mood {
    /// Issues.
    Good,
    Fails(Fault, Option<u64>),
    /// Never answers.
    Silent,
    /// Issues what cannot be served.
    Garbage,
    /// Knows no account that it did not see since this mood began.
    Forgetful,
}

/// An order as the authority saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) directory: String,
    pub(super) replaces: bool,
    pub(super) proofs: Vec<ChallengeKind>,
    pub(super) failed: bool,
}

#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) moods: HashMap<String, Mood>,
    pub(super) lifetime: i64,
    /// Seconds from now to its first one.
    pub(super) begins_in: i64,
    pub(super) orders: Vec<Seen>,
    pub(super) registered: Vec<(String, Vec<u8>)>,
    pub(super) forgotten: HashSet<String>,
    pub(super) windows: u32,
    pub(super) window: Option<(i64, i64)>,
    /// The first of a pair that every certificate shares: making keys is slow.
    key: KeyPair,
}

impl Authorities {
    pub(super) fn new(clock: &Clock) -> Arc<Self> {
        let state = State {
            moods: HashMap::new(),
            lifetime: 90 * 86_400,
            begins_in: 0,
            orders: Vec::new(),
            registered: Vec::new(),
            forgotten: HashSet::new(),
            windows: 0,
            window: None,
            key: KeyPair::generate().unwrap(),
        };
        Arc::new(Self { clock: clock.clone(), state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn mood(&self, directory: &str, mood: Mood) {
        self.state().moods.insert(directory.to_owned(), mood);
    }

    pub(super) fn orders(&self) -> Vec<Seen> {
        self.state().orders.clone()
    }

    fn issued(&self, name: &str, garbage: bool) -> Issued {
        let state = self.state();
        let name = if garbage { "other.example" } else { name };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let time =
            |at: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.cast_unsigned());
        let now = self.clock.now().as_second() + state.begins_in;
        params.not_before = time(now);
        params.not_after = time(now + state.lifetime);
        // Another one each time, also within one second.
        params.serial_number = Some((state.orders.len() as u64 + 1).into());
        let made = params.self_signed(&state.key).unwrap();
        Issued { chain: vec![made.der().clone()], key: state.key.serialize_der().into() }
    }
}

/// One authority as a client sees it.
#[derive(Debug)]
struct Client(Arc<Authorities>, String);

impl Client {
    fn mood(&self) -> Mood {
        self.0.state().moods.get(&self.1).copied().unwrap_or(Mood::Good)
    }
}

fn failed(kind: Fault, retry_after: Option<u64>) -> IssueError {
    let retry_after = retry_after.map(Duration::from_secs);
    IssueError { kind, detail: format!("it says {kind:?}"), retry_after }
}

impl Issuer for Client {
    fn engine(&self) -> &'static str {
        "fake"
    }

    fn register<'a>(&'a self, key: &'a AccountKey) -> Asked<'a, String> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if let Mood::Fails(Fault::Unavailable, after) = self.mood() {
                return Err(failed(Fault::Unavailable, after));
            }
            let mut state = self.0.state();
            state.forgotten.remove(&self.1);
            let entry = (self.1.clone(), key.0.to_vec());
            let known = state.registered.iter().position(|known| *known == entry);
            let place = known.unwrap_or_else(|| {
                state.registered.push(entry);
                state.registered.len() - 1
            });
            Ok(format!("{}/acct/{place}", self.1))
        })
    }

    fn issue<'a>(&'a self, account: &'a Account, order: &'a Order) -> Asked<'a, Issued> {
        Box::pin(async move {
            assert!(account.url.starts_with(&self.1), "{} at {}", account.url, self.1);
            let answer = Answer {
                kind: ChallengeKind::TlsAlpn01,
                name: order.name.clone(),
                token: "token".to_owned(),
                key_authorization: "token.thumb".to_owned(),
            };
            if self.0.state().forgotten.contains(&self.1) {
                return Err(failed(Fault::AccountUnknown, None));
            }
            order.answers.publish(answer.clone()).await?;
            let mood = self.mood();
            let at = self.0.clock.now();
            self.0.state().orders.push(Seen {
                at,
                directory: self.1.clone(),
                replaces: order.replaces.is_some(),
                proofs: order.challenges.clone(),
                failed: match mood {
                    // Nobody looks at what a staging directory issues.
                    Mood::Garbage => self.1 != STAGING,
                    Mood::Fails(kind, _) => matches!(kind, Fault::Refused | Fault::RateLimited),
                    Mood::Good | Mood::Silent | Mood::Forgetful => false,
                },
            });
            tokio::task::yield_now().await;
            let result = match mood {
                Mood::Good => Ok(self.0.issued(&order.name, false)),
                Mood::Garbage => Ok(self.0.issued(&order.name, true)),
                Mood::Fails(kind, after) => Err(failed(kind, after)),
                Mood::Silent => std::future::pending().await,
                Mood::Forgetful => Err(failed(Fault::AccountUnknown, None)),
            };
            order.answers.withdraw(answer).await;
            result
        })
    }

    fn window<'a>(
        &'a self,
        _: &'a Account,
        _: &'a CertificateDer<'static>,
    ) -> Asked<'a, Option<Window>> {
        Box::pin(async move {
            if self.0.state().forgotten.contains(&self.1) {
                return Err(failed(Fault::AccountUnknown, None));
            }
            self.0.state().windows += 1;
            if let Mood::Fails(kind, after) = self.mood() {
                return Err(failed(kind, after));
            }
            let now = self.0.clock.now();
            Ok(self.0.state().window.map(|(start, end)| Window {
                start: now + jiff::SignedDuration::from_secs(start),
                end: now + jiff::SignedDuration::from_secs(end),
                ask_again: Duration::from_secs(21_600),
            }))
        })
    }
}

#[derive(Debug)]
struct FakeClients(Arc<Authorities>);

impl Clients for FakeClients {
    fn client(&self, issuer: &AcmeIssuer, _: &str) -> Result<(Arc<dyn Issuer>, String), String> {
        let url = issuer.directory.url().to_owned();
        Ok((Arc::new(Client(Arc::clone(&self.0), url)), "a test asks for it".to_owned()))
    }
}

/// What the disk does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Disk {
    #[default]
    Fine,
    /// Takes nothing new.
    Full,
    /// Takes nothing at all, locks neither.
    ReadOnly,
}

/// A store that fails when it is told to, and knows what was altered behind its back as a seal does.
#[derive(Debug, Default)]
pub(super) struct Shaky {
    pub(super) inner: Memory,
    /// Records that cannot be trusted.
    pub(super) damaged: Mutex<HashSet<(Kind, String)>>,
    /// Kinds that cannot be written.
    pub(super) full: Mutex<HashSet<Kind>>,
    pub(super) disk: Mutex<Disk>,
    pub(super) reads: std::sync::atomic::AtomicUsize,
}

impl Shaky {
    /// Alters what stands in a record, with the seal (`true`: it looks as if we had written it) or without.
    pub(super) async fn alter(
        &self,
        kind: Kind,
        id: &str,
        sealed: bool,
        alter: impl FnOnce(&mut Vec<u8>),
    ) {
        let record = self.inner.read(kind, id).await.unwrap().expect("a record to alter");
        let mut body = record.body.to_vec();
        alter(&mut body);
        let change = Change::Replace(kind, id.to_owned(), None, body.into());
        self.inner.write(vec![change], record.written).await.unwrap();
        if !sealed {
            self.damaged.lock().unwrap().insert((kind, id.to_owned()));
        }
    }

    fn refuses(&self, change: &Change) -> Option<&'static str> {
        let kind = change.about().0;
        let disk = *self.disk.lock().unwrap();
        match (disk, change) {
            (Disk::ReadOnly, _) => Some("it is read-only"),
            (Disk::Full, Change::Create(..) | Change::Replace(..) | Change::SetAside(..)) => {
                Some("no space")
            }
            _ if self.full.lock().unwrap().contains(&kind) => Some("no space"),
            _ => None,
        }
    }

    /// As the seal's keeper sees it: what cannot be trusted is moved or written over, whatever stands there.
    async fn seen(&self, change: Change) -> Result<Vec<Change>, StoreError> {
        let (kind, id) = change.about();
        let key = (kind, id.to_owned());
        let damaged = self.damaged.lock().unwrap().contains(&key);
        Ok(match change {
            Change::SetAside(_, id, None, why) => {
                if !damaged {
                    return Err(StoreError::Conflict { kind, id });
                }
                let standing = self.inner.read(kind, &id).await?.map(|record| record.generation);
                vec![Change::SetAside(kind, id, standing, why)]
            }
            change if damaged => {
                let standing = self.inner.read(kind, &key.1).await?.map(|record| record.generation);
                vec![Change::SetAside(kind, key.1, standing, "altered".to_owned()), change]
            }
            change => vec![change],
        })
    }
}

impl Store for Shaky {
    fn place(&self) -> String {
        "the test's store".to_owned()
    }

    fn read<'a>(&'a self, kind: Kind, id: &'a str) -> Pending<'a, Option<Record>> {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.damaged.lock().unwrap().contains(&(kind, id.to_owned())) {
            let (id, place, why) = (id.to_owned(), self.place(), "altered".to_owned());
            return Box::pin(async move { Err(StoreError::Damaged { kind, id, place, why }) });
        }
        self.inner.read(kind, id)
    }

    fn list(&self, kind: Kind) -> Pending<'_, Vec<(String, u64)>> {
        self.inner.list(kind)
    }

    fn write<'a>(&'a self, changes: Vec<Change>, now: Timestamp) -> Pending<'a, ()> {
        if let Some(why) = changes.iter().find_map(|change| self.refuses(change)) {
            let (place, why) = (self.place(), why.to_owned());
            return Box::pin(async move { Err(StoreError::Unwritable { place, why }) });
        }
        Box::pin(async move {
            let mut seen = Vec::new();
            let mut mended = Vec::new();
            for change in changes {
                let (kind, id) = change.about();
                let key = (kind, id.to_owned());
                if mended.contains(&key) {
                    seen.push(change);
                    continue;
                }
                mended.push(key);
                seen.extend(self.seen(change).await?);
            }
            self.inner.write(seen, now).await?;
            let mut damaged = self.damaged.lock().unwrap();
            damaged.retain(|key| !mended.contains(key));
            Ok(())
        })
    }

    fn asides(&self) -> Pending<'_, Vec<Aside>> {
        self.inner.asides()
    }

    fn version(&self) -> Pending<'_, u64> {
        self.inner.version()
    }

    fn lock<'a>(
        &'a self,
        name: &'a str,
        now: Timestamp,
        time: Duration,
    ) -> Pending<'a, Option<Lease>> {
        if *self.disk.lock().unwrap() == Disk::ReadOnly {
            let (place, why) = (self.place(), "it is read-only".to_owned());
            return Box::pin(async move { Err(StoreError::Unwritable { place, why }) });
        }
        self.inner.lock(name, now, time)
    }

    fn unlock(&self, lease: Lease) -> Pending<'_, ()> {
        self.inner.unlock(lease)
    }
}

/// A world of one store and its authorities; processes are desks.
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) store: Arc<Shaky>,
    pub(super) authorities: Arc<Authorities>,
    pub(super) config: Acme,
}

impl World {
    pub(super) fn new() -> Self {
        let clock = Clock::manual("2026-11-26T12:00:00Z".parse().unwrap());
        let directory = AcmeDirectory::Custom(CA.to_owned());
        let mut config = Acme::new([NAME]).directory(directory);
        config.challenges = vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01];
        Self { store: Arc::default(), authorities: Authorities::new(&clock), config, clock }
    }

    pub(super) fn with_staging(mut self) -> Self {
        let first = self.config.issuers.first_mut().unwrap();
        first.staging = Some(AcmeDirectory::Custom(STAGING.to_owned()));
        self
    }

    pub(super) fn with_other(mut self) -> Self {
        let directory = AcmeDirectory::Custom(OTHER.to_owned());
        self.config.issuers.push(AcmeIssuer { directory, ..AcmeIssuer::default() });
        self
    }

    /// Another process.
    pub(super) fn process(&self) -> Arc<Desk> {
        self.process_with(&Arc::default())
    }

    pub(super) fn process_with(&self, challenges: &Arc<Challenges>) -> Arc<Desk> {
        Arc::new(Desk::with(
            &self.config,
            self.store.clone(),
            Arc::clone(challenges),
            Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            self.clock.clone(),
            Arc::new(FakeClients(self.authorities.clone())),
        ))
    }

    pub(super) fn source(&self) -> AcmeSource {
        AcmeSource::new(self.process(), NAME).unwrap()
    }
}
