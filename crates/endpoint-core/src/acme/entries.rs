//! How is entered what was tried for a name?
//!
//! Several processes enter at once: one asks when to renew while another one orders.
//!
//! Always true: an entry changes the history as it stands in the store at that moment, so that none is lost.

use jiff::Timestamp;
use tracing::{error, warn};

use super::source::AcmeSource;
use crate::{
    certs::{history::History, vault::mend::spent},
    store::{Change, Kind, StoreError},
};

/// How often an entry is tried that others were faster than.
const TRIES: usize = 16;

/// Why something was not entered.
#[derive(Debug)]
pub(super) enum NoteError {
    /// The store cannot be written; it stands in memory.
    Store(String),
    /// Anything else.
    Other(String),
}

/// Why a history could not be read.
enum Unread {
    /// It is damaged: the generation of one that can be trusted, and what is wrong.
    Damaged(Option<u64>, String),
    Store(StoreError),
}

impl AcmeSource {
    /// Reads what was tried, as the store has it. One that cannot be read is never taken for none: what this
    /// process knows goes on, or a budget that counts as spent.
    pub(super) async fn read_history(&self, now: Timestamp) {
        match self.entries().await {
            Ok((history, _)) => {
                let mut state = self.state();
                let ahead = state.adrift || state.unkept.is_some();
                state.history =
                    if ahead { state.history.clone().merged(history, now) } else { history };
                state.known = true;
            }
            Err(Unread::Store(_)) => _ = self.known_history(now),
            Err(Unread::Damaged(generation, why)) => {
                let history = self.known_history(now);
                match self.begin_anew(generation, &why, &history).await {
                    Ok(()) => self.state().adrift = false,
                    Err(reason) => {
                        warn!(name = self.name, reason, why, "damaged history not set aside yet");
                    }
                }
            }
        }
    }

    /// What this process knows; else that everything was tried in vain a moment ago.
    fn known_history(&self, now: Timestamp) -> History {
        let mut state = self.state();
        if !state.known {
            state.history = History::from_bytes(&spent(now)).unwrap_or_default();
            // An authority may have refused the name: staging first.
            for authority in &self.desk.authorities {
                state.history.doubt(authority.url());
            }
            state.known = true;
        }
        state.adrift = true;
        state.history.clone()
    }

    /// Sets the damaged history aside and puts ours in its place.
    async fn begin_anew(
        &self,
        generation: Option<u64>,
        why: &str,
        history: &History,
    ) -> Result<(), String> {
        let body = self.body(history).map_err(|error| error.to_string())?;
        let now = self.desk.clock.now();
        let done = self.desk.vault.begin_anew(&self.name, generation, why, body, now).await;
        done.map_err(|error| error.to_string())?;
        error!(
            name = self.name,
            reason = why,
            "damaged history of orders set aside; the budget counts as spent"
        );
        Ok(())
    }

    /// What was tried with the number of its write.
    async fn entries(&self) -> Result<(History, Option<u64>), Unread> {
        let record = match self.desk.store().read(Kind::History, &self.name).await {
            Ok(None) => return Ok((History::default(), None)),
            Ok(Some(record)) => record,
            Err(StoreError::Damaged { why, .. }) => return Err(Unread::Damaged(None, why)),
            Err(error) => return Err(Unread::Store(error)),
        };
        let history = History::from_bytes(&record.body)
            .map_err(|why| Unread::Damaged(Some(record.generation), why))?;
        Ok((history, Some(record.generation)))
    }

    fn body(&self, history: &History) -> Result<zeroize::Zeroizing<Vec<u8>>, StoreError> {
        let unusable = |why| StoreError::Unusable { place: self.desk.store().place(), why };
        Ok(history.to_bytes().map_err(unusable)?.into())
    }

    /// Changes the history and keeps it. What cannot be kept holds in memory.
    pub(super) async fn note(&self, change: impl Fn(&mut History)) -> Result<(), NoteError> {
        let (ours, adrift) = {
            let mut state = self.state();
            change(&mut state.history);
            (state.history.clone(), state.adrift || state.unkept.is_some())
        };
        let kept = self.kept(&ours, adrift, &change).await;
        let mut state = self.state();
        match kept {
            Ok(history) => {
                state.history = history;
                state.adrift = false;
                state.ordered_unkept = false;
                Ok(())
            }
            Err(error) if error.is_of_the_store() => {
                state.adrift = true;
                state.trouble = Some(error.to_string());
                Err(NoteError::Store(error.to_string()))
            }
            Err(error) => Err(NoteError::Other(error.to_string())),
        }
    }

    /// Writes the change upon what stands in the store; all of ours, if that is ahead. Gives what stands there.
    async fn kept(
        &self,
        ours: &History,
        ahead: bool,
        change: &impl Fn(&mut History),
    ) -> Result<History, StoreError> {
        let (id, now) = (self.name.clone(), self.desk.clock.now());
        for _ in 0..TRIES {
            let (history, writing) = match self.entries().await {
                Ok((theirs, generation)) => {
                    let history = if ahead {
                        ours.clone().merged(theirs, now)
                    } else {
                        let mut history = theirs;
                        change(&mut history);
                        history
                    };
                    let (id, body) = (id.clone(), self.body(&history)?);
                    let one = match generation {
                        Some(_) => Change::Replace(Kind::History, id, generation, body),
                        None => Change::Create(Kind::History, id, body),
                    };
                    (history, vec![one])
                }
                Err(Unread::Damaged(generation, why)) => {
                    let aside = Change::SetAside(Kind::History, id.clone(), generation, why);
                    let anew = Change::Create(Kind::History, id.clone(), self.body(ours)?);
                    (ours.clone(), vec![aside, anew])
                }
                Err(Unread::Store(error)) => return Err(error),
            };
            match self.desk.store().write(writing, now).await {
                Ok(()) => return Ok(history),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict { kind: Kind::History, id })
    }

    /// Brings what lies in the future back to now: nobody waits for years because the clock was set back.
    pub(super) async fn rewind(&self, now: Timestamp) {
        let future = self.state().history.clone().rewind(now);
        if !future {
            return;
        }
        warn!(
            name = self.name,
            "the history of orders lies in the future: was the clock set back?"
        );
        if let Err(NoteError::Other(reason)) = self.note(|history| _ = history.rewind(now)).await {
            warn!(name = self.name, reason, "the history of orders stays as it is");
        }
    }
}
