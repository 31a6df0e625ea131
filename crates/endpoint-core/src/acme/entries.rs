//! How is entered what was tried for a name?
//!
//! Several processes enter at once: one asks when to renew while another one orders.
//!
//! Always true: an entry changes the history as it stands in the store at that moment, so that none is lost.

use jiff::Timestamp;
use tracing::warn;

use super::source::AcmeSource;
use crate::{
    certs::history::History,
    store::{Change, Kind, StoreError},
};

/// How often an entry is tried that others were faster than.
const TRIES: usize = 16;

impl AcmeSource {
    /// What was tried, as the store has it.
    pub(super) async fn read_history(&self) -> Result<History, String> {
        Ok(self.entries().await?.0)
    }

    /// The same with the number of its write.
    async fn entries(&self) -> Result<(History, Option<u64>), String> {
        let record = self.desk.store().read(Kind::History, &self.name).await;
        let Some(record) = record.map_err(|error| error.to_string())? else {
            return Ok((History::default(), None));
        };
        let history = History::from_bytes(&record.body).map_err(|why| {
            format!(
                "the record history `{}` in {} cannot be read: {why}; delete it only if no order failed lately",
                self.name,
                self.desk.store().place()
            )
        })?;
        Ok((history, Some(record.generation)))
    }

    /// Writes over whatever stands there.
    pub(super) async fn write_history(&self, history: &History) -> Result<(), StoreError> {
        let (id, body) = (self.name.clone(), self.body(history)?);
        self.write(Change::Replace(Kind::History, id, None, body)).await
    }

    fn body(&self, history: &History) -> Result<zeroize::Zeroizing<Vec<u8>>, StoreError> {
        let unusable = |why| StoreError::Unusable { place: self.desk.store().place(), why };
        Ok(history.to_bytes().map_err(unusable)?.into())
    }

    async fn write(&self, change: Change) -> Result<(), StoreError> {
        self.desk.store().write(vec![change], self.desk.clock.now()).await
    }

    /// Changes the history and keeps it.
    pub(super) async fn note(&self, change: impl Fn(&mut History)) -> Result<(), String> {
        let (ours, newer) = {
            let mut state = self.state();
            change(&mut state.history);
            (state.history.clone(), state.unkept.is_some())
        };
        if newer {
            // What was issued is not entered there yet.
            return self.write_history(&ours).await.map_err(|error| error.to_string());
        }
        for _ in 0..TRIES {
            let (mut history, generation) = self.entries().await?;
            change(&mut history);
            let (id, body) = (self.name.clone(), self.body(&history).map_err(|e| e.to_string())?);
            let written = self
                .write(match generation {
                    Some(_) => Change::Replace(Kind::History, id, generation, body),
                    None => Change::Create(Kind::History, id, body),
                })
                .await;
            match written {
                Ok(()) => {
                    self.state().history = history;
                    return Ok(());
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("others change the history of `{}` all the time", self.name))
    }

    /// Brings what lies in the future back to now: nobody waits for years because the clock was set back.
    pub(super) async fn rewind(&self, now: Timestamp) -> Result<(), String> {
        let future = self.state().history.clone().rewind(now);
        if !future {
            return Ok(());
        }
        warn!(
            name = self.name,
            "the history of orders lies in the future: was the clock set back?"
        );
        self.note(|history| _ = history.rewind(now)).await
    }
}
