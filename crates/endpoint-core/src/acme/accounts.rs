//! Which account do we order with?
//!
//! Always true: one account at each directory, however many names and processes there are; a key is kept
//! before the authority sees it, as long as the store can be written; an account that cannot be read is set
//! aside, and another one made.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    hold::Hold,
    issuer::{Account, AccountKey, Fault, IssueError, Issuer},
    schedule::{Authority, Desk, fault},
};
use crate::{
    certs::vault::VaultError,
    store::{Kind, StoreError},
};

/// How often, and with what pauses, an account is waited for that somebody else makes.
const ACCOUNT_TRIES: usize = 120;
const ACCOUNT_PAUSE: Duration = Duration::from_millis(500);

impl Desk {
    /// Our account at an authority; made, if there is none.
    pub(super) async fn account(
        &self,
        authority: &Authority,
        client: &dyn Issuer,
    ) -> Result<Account, IssueError> {
        let mut known = authority.account.lock().await;
        if let Some(account) = known.as_ref() {
            return Ok(account.clone());
        }
        let account = self.found_or_made(authority, client).await?;
        Ok(known.insert(account).clone())
    }

    /// The authority knows the account no longer: registers the same key again.
    pub(super) async fn register_again(
        &self,
        authority: &Authority,
        client: &dyn Issuer,
        unknown: &Account,
    ) -> Result<Account, IssueError> {
        let mut known = authority.account.lock().await;
        // Another name's order may have done it meanwhile.
        if let Some(account) = known.as_ref().filter(|known| known.url != unknown.url) {
            return Ok(account.clone());
        }
        let url = client.register(&unknown.key).await?;
        let account = Account { key: unknown.key.clone(), url };
        self.keep_or_remember(authority, &account).await?;
        info!(directory = authority.url(), "account registered again");
        Ok(known.insert(account).clone())
    }

    async fn found_or_made(
        &self,
        authority: &Authority,
        client: &dyn Issuer,
    ) -> Result<Account, IssueError> {
        let id = authority.account_id();
        let begun = match self.kept_account(&id).await {
            Ok(Some(account)) if !account.url.is_empty() => return Ok(account),
            Ok(begun) => begun.map(|begun| begun.key),
            Err(error) => {
                self.give_up(&id, error).await?;
                None
            }
        };
        for _ in 0..ACCOUNT_TRIES {
            let held = Hold::take(self.store(), &format!("account {id}"), &self.clock).await;
            let held = match held {
                // Nothing can be kept now; at most one such account is made by each process.
                Err(error) if error.is_of_the_store() => {
                    let made = match begun {
                        Some(begun) => begun,
                        None => AccountKey::generate().map_err(|error| fault(error.to_string()))?,
                    };
                    return self.register_unkept(&id, authority, client, made, &error).await;
                }
                held => held.map_err(|error| fault(error.to_string()))?,
            };
            let Some(mut hold) = held else {
                sleep(ACCOUNT_PAUSE).await;
                let kept =
                    self.kept_account(&id).await.map_err(|error| fault(error.to_string()))?;
                match kept.filter(|kept| !kept.url.is_empty()) {
                    Some(account) => return Ok(account),
                    None => continue,
                }
            };
            let made = hold.during(self.make_account(&id, authority, client)).await;
            hold.release().await;
            return made;
        }
        Err(IssueError {
            kind: Fault::Store,
            detail: format!("another process has been making the account at {id} for too long"),
            retry_after: None,
        })
    }

    async fn make_account(
        &self,
        id: &str,
        authority: &Authority,
        client: &dyn Issuer,
    ) -> Result<Account, IssueError> {
        let key = match self.kept_account(id).await {
            Ok(Some(account)) if !account.url.is_empty() => return Ok(account),
            Ok(Some(begun)) => begun.key,
            // One that cannot be read is set aside when this one is kept, now or later.
            Ok(None) | Err(_) => {
                let made = AccountKey::generate().map_err(|error| fault(error.to_string()))?;
                // Kept before the authority sees it: after a crash the same key gives the same account.
                let begun = Account { key: made, url: String::new() };
                match self.keep_account(authority, &begun).await {
                    Err(VaultError::Store(error)) if error.is_of_the_store() => {
                        return self
                            .register_unkept(id, authority, client, begun.key, &error)
                            .await;
                    }
                    kept => kept.map_err(|error| fault(error.to_string()))?,
                }
                begun.key
            }
        };
        let url = client.register(&key).await?;
        let account = Account { key, url };
        self.keep_or_remember(authority, &account).await?;
        info!(directory = authority.url(), "account registered");
        Ok(account)
    }

    async fn kept_account(&self, id: &str) -> Result<Option<Account>, VaultError> {
        let Some((key, url)) = self.vault.account(id).await? else { return Ok(None) };
        let key = AccountKey::from_pkcs8(key).map_err(|error| VaultError::Invalid {
            kind: Kind::Account,
            name: id.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Some(Account { key, url }))
    }

    /// Sets an account aside that cannot be used, so that another one is made. A store that fails is no reason
    /// to give an account up, only to go on without keeping anything.
    async fn give_up(&self, id: &str, error: VaultError) -> Result<(), IssueError> {
        if matches!(&error, VaultError::Store(error) if error.is_of_the_store()) {
            return Ok(());
        }
        let why = error.to_string();
        match self.vault.set_account_aside(id, &why, self.clock.now()).await {
            Ok(true) => {
                warn!(account = id, reason = why, "damaged account set aside, another one is made");
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(VaultError::Store(error)) if error.is_of_the_store() => Ok(()),
            Err(error) => Err(fault(error.to_string())),
        }
    }

    /// Registers a key that stands in memory only, because the store cannot be written.
    async fn register_unkept(
        &self,
        id: &str,
        authority: &Authority,
        client: &dyn Issuer,
        key: AccountKey,
        error: &StoreError,
    ) -> Result<Account, IssueError> {
        let url = client.register(&key).await?;
        let account = Account { key, url };
        warn!(directory = authority.url(), reason = %error, "account registered and not kept yet");
        self.unkept().push((id.to_owned(), account.clone()));
        Ok(account)
    }

    /// Keeps an account, as soon as the store can be written.
    async fn keep_or_remember(
        &self,
        authority: &Authority,
        account: &Account,
    ) -> Result<(), IssueError> {
        match self.keep_account(authority, account).await {
            Err(VaultError::Store(error)) if error.is_of_the_store() => {
                warn!(directory = authority.url(), reason = %error, "account not kept yet");
                self.unkept().push((authority.account_id(), account.clone()));
                Ok(())
            }
            kept => kept.map_err(|error| fault(error.to_string())),
        }
    }

    async fn keep_account(
        &self,
        authority: &Authority,
        account: &Account,
    ) -> Result<(), VaultError> {
        let (id, now) = (authority.account_id(), self.clock.now());
        self.vault.keep_account(&id, &account.key.0, &account.url, now).await
    }

    /// Keeps what could not be kept before.
    ///
    /// # Errors
    /// Why not, if it cannot be kept yet either.
    pub(super) async fn keep_accounts(&self) -> Result<(), String> {
        loop {
            let Some((id, account)) = self.unkept().first().cloned() else { return Ok(()) };
            let now = self.clock.now();
            let kept = self.vault.keep_account(&id, &account.key.0, &account.url, now).await;
            kept.map_err(|error| error.to_string())?;
            self.unkept().retain(|(of, kept)| *of != id || kept.url != account.url);
        }
    }

    fn unkept(&self) -> MutexGuard<'_, Vec<(String, Account)>> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
