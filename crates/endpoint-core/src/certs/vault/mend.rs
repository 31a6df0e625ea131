//! How does a name get over records that are damaged?
//!
//! They are set aside under a name of their own, and what is whole takes their place: the previous certificate
//! that of the newest, a budget that counts as spent that of a history.
//!
//! Always true: a write is made only if the records still are what was looked at; no key is deleted.

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

use super::{
    Held, Vault, VaultError,
    marks::{Mark, Marked},
    record_name,
};
use crate::store::{Change, Kind, Record, StoreError};

/// How often a mending is tried that others were faster than.
const TRIES: usize = 4;
/// Failing orders that a budget allows within an hour (`certs::plan`): so many begin one that counts as spent.
const SPENT: usize = 4;

/// What was done about a damaged record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Mended {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// In words, past tense.
    pub(crate) done: String,
}

/// A record as it was found.
enum State {
    Absent,
    /// It cannot be trusted (`None`), or it can and is of no use.
    Damaged(Option<u64>, String),
    Whole(Box<Held>, Record),
}

impl Vault {
    /// Sets the damaged certificates of a name aside, and puts the previous one in the place of a newest that
    /// was lost. Gives what was done; nothing, if there was nothing to do.
    ///
    /// # Errors
    /// [`VaultError::Store`] if the store cannot be written; nothing is changed then.
    pub(crate) async fn mend(
        &self,
        name: &str,
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<Vec<Mended>, VaultError> {
        let name = record_name(name)?;
        for _ in 0..TRIES {
            let newest = self.state(Kind::Certificate, &name, provider).await?;
            let previous = self.state(Kind::Previous, &name, provider).await?;
            let (mut changes, mut done) = (Vec::new(), Vec::new());
            for (kind, state) in [(Kind::Certificate, &newest), (Kind::Previous, &previous)] {
                if let State::Damaged(generation, why) = state {
                    changes.push(Change::SetAside(kind, name.clone(), *generation, why.clone()));
                    let done_so = format!("set aside: {why}");
                    done.push(Mended { kind, id: name.clone(), done: done_so });
                }
            }
            if let (State::Damaged(..) | State::Absent, State::Whole(held, record)) =
                (&newest, &previous)
            {
                let holds = now <= held.loaded.validity.until;
                if holds && self.marked(&held.leaf()).await != Marked::Yes {
                    let body = record.body.clone();
                    changes.push(Change::Create(Kind::Certificate, name.clone(), body));
                    let mark = Mark::succeeded(now).body();
                    changes.push(Change::Replace(Kind::Mark, held.leaf(), None, mark));
                    done.push(Mended {
                        kind: Kind::Certificate,
                        id: name.clone(),
                        done: format!(
                            "the one before took its place, valid until {}",
                            held.loaded.validity.until
                        ),
                    });
                }
            }
            if changes.is_empty() {
                return Ok(done);
            }
            match self.store.write(changes, now).await {
                Err(StoreError::Conflict { .. }) => {}
                written => return Ok(written.map(|()| done)?),
            }
        }
        // Somebody else mends at this moment.
        Ok(Vec::new())
    }

    async fn state(
        &self,
        kind: Kind,
        name: &str,
        provider: &CryptoProvider,
    ) -> Result<State, VaultError> {
        let record = match self.store.read(kind, name).await {
            Ok(None) => return Ok(State::Absent),
            Ok(Some(record)) => record,
            Err(StoreError::Damaged { why, .. }) => return Ok(State::Damaged(None, why)),
            Err(error) => return Err(error.into()),
        };
        Ok(match Held::read(name, &record, provider) {
            Ok(held) => State::Whole(Box::new(held), record),
            Err(why) => State::Damaged(Some(record.generation), why),
        })
    }

    /// Sets a damaged history aside and begins another one.
    ///
    /// # Errors
    /// [`VaultError::Store`]; also [`StoreError::Conflict`] if it is not damaged any more.
    pub(crate) async fn begin_anew(
        &self,
        name: &str,
        generation: Option<u64>,
        why: &str,
        history: Zeroizing<Vec<u8>>,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let (id, why) = (name.to_owned(), why.to_owned());
        let changes = vec![
            Change::SetAside(Kind::History, id.clone(), generation, why),
            Change::Create(Kind::History, id, history),
        ];
        Ok(self.store.write(changes, now).await?)
    }

    /// Sets a damaged account or mark aside.
    ///
    /// # Errors
    /// As [`Self::begin_anew`].
    pub(crate) async fn set_aside(
        &self,
        kind: Kind,
        id: &str,
        generation: Option<u64>,
        why: &str,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let mut changes = vec![Change::SetAside(kind, id.to_owned(), generation, why.to_owned())];
        if kind == Kind::Mark {
            // What cannot be read counts as set, also from now on.
            let body = Mark::doubtful(now).body();
            changes.push(Change::Create(kind, id.to_owned(), body));
        }
        Ok(self.store.write(changes, now).await?)
    }
}

/// A history whose budget is spent from now on.
pub(crate) fn spent(now: Timestamp) -> Zeroizing<Vec<u8>> {
    let failed = vec![now.as_millisecond(); SPENT];
    Zeroizing::new(serde_json::json!({ "failed": failed }).to_string().into_bytes())
}
