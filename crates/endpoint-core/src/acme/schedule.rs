//! Who orders what, where and when?
//!
//! A [`Desk`] stands for one way of ordering: a store, the authorities in their order, the proofs. All names
//! that are obtained in this way share its accounts, its challenge answers and its places for orders at once.
//! What happens for one name stands in `source`, what is to be done when in `certs::plan`.
//!
//! Always true: one account at each directory, however many names and processes there are; a key is kept
//! before the authority sees it, as long as the store can be written; one that cannot be read is set aside, never
//! written over.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{
    answers::Board,
    engine,
    issuer::{Account, Answers, Fault, IssueError, Issuer},
};
use crate::{
    certs::{
        challenges::{Challenges, Elsewhere},
        vault::Vault,
    },
    clock::Clock,
    config::{Acme, AcmeDirectory, AcmeEngine, AcmeIssuer},
    store::{Kind, Store},
};

/// Orders that this process makes at once with one desk.
const ORDERS_AT_ONCE: usize = 16;
/// How often the store is asked whether anything has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How often answers that nobody took back are swept away.
const SWEEP: Duration = Duration::from_secs(3600);

/// Makes the clients of authorities. Tests have their own.
pub(super) trait Clients: fmt::Debug + Send + Sync {
    /// The client for that name, its engine, and why that one.
    fn client(&self, issuer: &AcmeIssuer, name: &str) -> Result<(Arc<dyn Issuer>, String), String>;
}

/// One way of ordering.
pub(crate) struct Desk {
    pub(super) vault: Vault,
    pub(super) authorities: Vec<Authority>,
    pub(super) config: Acme,
    pub(super) clock: Clock,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) places: Semaphore,
    pub(super) clients: Arc<dyn Clients>,
    /// When this process began to order.
    pub(super) started: Timestamp,
    board: Arc<Board>,
    /// Accounts that could not be kept yet, by what they are kept under.
    pub(super) unkept: std::sync::Mutex<Vec<(String, Account)>>,
    /// Which write the certificate of each name is, as of a second ago.
    generations: ArcSwap<HashMap<String, u64>>,
}

/// An authority and our account there.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) issuer: AcmeIssuer,
    pub(super) account: Mutex<Option<Account>>,
    /// Where an order is tried first after a refusal.
    pub(super) staging: Option<Box<Authority>>,
}

impl Authority {
    fn new(issuer: &AcmeIssuer) -> Self {
        let twin = match (&issuer.staging, &issuer.directory) {
            (Some(staging), _) => Some(staging.clone()),
            (None, AcmeDirectory::Production) => Some(AcmeDirectory::Staging),
            (None, _) => None,
        };
        let staging = twin.map(|directory| {
            let issuer = AcmeIssuer { directory, staging: None, ..issuer.clone() };
            Box::new(Self { issuer, account: Mutex::default(), staging: None })
        });
        Self { issuer: issuer.clone(), account: Mutex::default(), staging }
    }

    /// The URL of its directory.
    pub(super) fn url(&self) -> &str {
        self.issuer.directory.url()
    }

    /// What our account is kept under: another binding is another account.
    pub(super) fn account_id(&self) -> String {
        match &self.issuer.eab {
            Some(eab) => format!("{} {}", self.url(), eab.kid),
            None => self.url().to_owned(),
        }
    }
}

impl Desk {
    /// Prepares everything; asks nobody.
    ///
    /// # Errors
    /// A sentence, if the configuration of an authority cannot be used.
    pub(crate) async fn new(
        config: &Acme,
        store: Arc<dyn Store>,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
        clock: Clock,
    ) -> Result<Self, String> {
        let clients = Arc::new(Engines {
            provider: Arc::clone(&provider),
            clock: clock.clone(),
            made: std::sync::Mutex::default(),
        });
        let desk = Self::with(config, store, challenges, provider, clock, clients);
        // One record that cannot be trusted must not keep the others from being served; whose it is, says so.
        if let Err(error) = desk.look().await {
            warn!(%error, "the store cannot be listed");
        }
        for authority in &desk.authorities {
            // What its configuration names is read now, not when a certificate is about to end.
            desk.clients.client(&authority.issuer, "name.example")?;
        }
        Ok(desk)
    }

    /// The same with other clients; looks at nothing yet.
    pub(super) fn with(
        config: &Acme,
        store: Arc<dyn Store>,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
        clock: Clock,
        clients: Arc<dyn Clients>,
    ) -> Self {
        let board =
            Board::new(Arc::clone(&store), challenges, Arc::clone(&provider), clock.clone());
        let clock_now = clock.now();
        Self {
            vault: Vault::new(store),
            authorities: config.issuers.iter().map(Authority::new).collect(),
            config: config.clone(),
            clock,
            provider,
            places: Semaphore::new(ORDERS_AT_ONCE),
            clients,
            started: clock_now,
            board: Arc::new(board),
            unkept: std::sync::Mutex::default(),
            generations: ArcSwap::default(),
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.vault.store()
    }

    /// Where challenge answers are published.
    pub(super) fn answers(&self) -> Arc<dyn Answers> {
        Arc::clone(&self.board) as Arc<dyn Answers>
    }

    /// Where the answers of other processes stand.
    pub(crate) fn elsewhere(&self) -> Arc<dyn Elsewhere> {
        Arc::clone(&self.board) as Arc<dyn Elsewhere>
    }

    /// Which write the certificate of a name is, as of a second ago.
    pub(super) fn generation(&self, name: &str) -> Option<u64> {
        self.generations.load().get(name).copied()
    }

    /// Follows the store: other processes write there too. Never ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut version = None;
        let mut swept: Option<Instant> = None;
        loop {
            looks.tick().await;
            if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
                swept = Some(Instant::now());
                if let Err(error) = self.board.sweep().await {
                    debug!(%error, "old challenge answers not swept away");
                }
            }
            let newest = self.store().version().await.ok();
            if newest.is_some() && newest != version {
                match self.look().await {
                    Ok(()) => version = newest,
                    Err(error) => debug!(%error, "the store cannot be listed"),
                }
            }
        }
    }

    pub(super) async fn look(&self) -> Result<(), crate::store::StoreError> {
        let list = self.store().list(Kind::Certificate).await?;
        self.generations.store(Arc::new(list.into_iter().collect()));
        Ok(())
    }
}

/// A fault of ours, which says nothing about the order.
pub(super) fn fault(detail: String) -> IssueError {
    IssueError { kind: Fault::Store, detail, retry_after: None }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("store", &self.store().place())
            .field("authorities", &self.authorities.iter().map(Authority::url).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The two engines; one client for each authority and engine.
#[derive(Debug)]
struct Engines {
    provider: Arc<CryptoProvider>,
    clock: Clock,
    made: std::sync::Mutex<Vec<Made>>,
}

/// A client that was made, and for whom.
type Made = (AcmeIssuer, AcmeEngine, Arc<dyn Issuer>);

impl Clients for Engines {
    fn client(&self, issuer: &AcmeIssuer, name: &str) -> Result<(Arc<dyn Issuer>, String), String> {
        let (engine, why) = engine::pick(issuer, name);
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((.., client)) =
            made.iter().find(|(of, with, _)| of == issuer && *with == engine)
        {
            return Ok((Arc::clone(client), why));
        }
        let (provider, clock) = (Arc::clone(&self.provider), self.clock.clone());
        let client =
            engine::build(issuer, engine, provider, clock).map_err(|error| error.to_string())?;
        made.push((issuer.clone(), engine, Arc::clone(&client)));
        Ok((client, why))
    }
}
