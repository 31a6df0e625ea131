//! Who orders for this name now?
//!
//! A lock in the store that its holder keeps for as long as it works, and that ends a minute after its holder
//! died. It has two halves: whoever begins must find both free; the holder takes one of them again before
//! the other ends.
//!
//! Always true: while a holder lives, one half at least is held, unless the clock is set back by more than a
//! minute.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    clock::Clock,
    store::{Lease, Store, StoreError},
};

/// How long a half lasts.
const LEASE: Duration = Duration::from_secs(60);
/// How often one of them is taken again.
const RENEW: Duration = Duration::from_secs(30);
/// The pause after one that could not be taken again.
const RETRY: Duration = Duration::from_secs(1);

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Hold {
    store: Arc<dyn Store>,
    names: [String; 2],
    leases: [Option<Lease>; 2],
    clock: Clock,
}

impl Hold {
    /// Takes the lock; `None`: somebody else holds it.
    pub(super) async fn take(
        store: &Arc<dyn Store>,
        name: &str,
        clock: &Clock,
    ) -> Result<Option<Self>, StoreError> {
        let names = [format!("{name} (a)"), format!("{name} (b)")];
        let Some(first) = store.lock(&names[0], clock.now(), LEASE).await? else {
            return Ok(None);
        };
        let mut hold = Self {
            store: Arc::clone(store),
            names,
            leases: [Some(first), None],
            clock: clock.clone(),
        };
        match store.lock(&hold.names[1], clock.now(), LEASE).await? {
            Some(second) => {
                // Free, so nobody works; the holder needs it later.
                store.unlock(second).await?;
                Ok(Some(hold))
            }
            None => {
                hold.release().await;
                Ok(None)
            }
        }
    }

    /// Does `work` and keeps the lock meanwhile.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.keep() => match never {},
        }
    }

    async fn keep(&mut self) -> std::convert::Infallible {
        loop {
            for half in [1, 0] {
                sleep(RENEW).await;
                let (Some(name), Some(lease)) = (self.names.get(half), self.leases.get_mut(half))
                else {
                    continue;
                };
                loop {
                    match self.store.lock(name, self.clock.now(), LEASE).await {
                        Ok(Some(taken)) => {
                            *lease = Some(taken);
                            break;
                        }
                        Ok(None) | Err(_) => sleep(RETRY).await,
                    }
                }
            }
        }
    }

    /// Gives the lock back. What cannot be given back ends by itself.
    pub(super) async fn release(&mut self) {
        for lease in &mut self.leases {
            if let Some(lease) = lease.take() {
                let _ = self.store.unlock(lease).await;
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let leases: Vec<Lease> = self.leases.iter_mut().filter_map(Option::take).collect();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !leases.is_empty() {
            let store = Arc::clone(&self.store);
            runtime.spawn(async move {
                for lease in leases {
                    let _ = store.unlock(lease).await;
                }
            });
        }
    }
}
