//! A store that ends with its process: for tests, and for programs that order anew at each start.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{Aside, Change, Kind, Lease, Pending, Record, Store, StoreError};

/// Records in memory; wiped when dropped.
#[derive(Default)]
pub struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    records: BTreeMap<(Kind, String), Record>,
    locks: BTreeMap<String, Lease>,
    aside: Vec<(Aside, Record)>,
    number: u64,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, changes: Vec<Change>, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        let generation = state.number + 1;
        // A copy, so that a conflict in the midst leaves everything as it was.
        let mut records = state.records.clone();
        let mut moved = Vec::new();
        for change in changes {
            let (kind, id) = change.about();
            let key = (kind, id.to_owned());
            let standing = records.get(&key).map(|record| record.generation);
            let mut why = None;
            let (expected, body) = match change {
                Change::Create(_, _, body) => (None, Some(body)),
                Change::Replace(_, _, Some(generation), body) => (Some(generation), Some(body)),
                Change::Replace(_, _, None, body) => (standing, Some(body)),
                Change::Delete(..) => (standing, None),
                Change::SetAside(_, _, generation, reason) => {
                    why = Some(reason);
                    (generation, None)
                }
            };
            // Everything here can be trusted, so only a record of some generation is set aside.
            if expected != standing || (why.is_some() && standing.is_none()) {
                return Err(StoreError::Conflict { kind, id: key.1 });
            }
            match body {
                Some(body) => records.insert(key, Record { generation, written: now, body }),
                None => {
                    let gone = records.remove(&key);
                    if let (Some(why), Some(record)) = (why, gone.clone()) {
                        moved.push((key, why, record));
                    }
                    gone
                }
            };
        }
        for ((kind, id), why, record) in moved {
            let number = u64::try_from(state.aside.len()).unwrap_or(u64::MAX).saturating_add(1);
            let kind = kind.as_str().to_owned();
            state.aside.push((Aside { number, kind, id, at: now, why }, record));
        }
        state.records = records;
        state.number = generation;
        Ok(())
    }
}

impl Store for Memory {
    fn place(&self) -> String {
        "memory".into()
    }

    fn read<'a>(&'a self, kind: Kind, id: &'a str) -> Pending<'a, Option<Record>> {
        let record = self.state().records.get(&(kind, id.to_owned())).cloned();
        Box::pin(async { Ok(record) })
    }

    fn list(&self, kind: Kind) -> Pending<'_, Vec<(String, u64)>> {
        let state = self.state();
        let ids = state.records.iter().filter(|((of, _), _)| *of == kind);
        let ids = ids.map(|((_, id), record)| (id.clone(), record.generation)).collect();
        Box::pin(async { Ok(ids) })
    }

    fn write<'a>(&'a self, changes: Vec<Change>, now: Timestamp) -> Pending<'a, ()> {
        Box::pin(async move { self.write_all(changes, now) })
    }

    fn asides(&self) -> Pending<'_, Vec<Aside>> {
        let asides = self.state().aside.iter().map(|(aside, _)| aside.clone()).collect();
        Box::pin(async { Ok(asides) })
    }

    fn version(&self) -> Pending<'_, u64> {
        Box::pin(async { Ok(self.state().number) })
    }

    fn lock<'a>(
        &'a self,
        name: &'a str,
        now: Timestamp,
        time: Duration,
    ) -> Pending<'a, Option<Lease>> {
        Box::pin(async move {
            let owner = super::owner()
                .map_err(|why| StoreError::Unusable { place: self.place(), why: why.into() })?;
            let mut state = self.state();
            let until = now.checked_add(time).unwrap_or(Timestamp::MAX);
            // Nobody may have taken it for longer: the clock was set back.
            let longest = until.checked_add(time).unwrap_or(Timestamp::MAX);
            let holds = |lease: &Lease| lease.until > now && lease.until <= longest;
            if state.locks.get(name).is_some_and(holds) {
                return Ok(None);
            }
            let lease = Lease { name: name.to_owned(), owner, until };
            state.locks.insert(name.to_owned(), lease.clone());
            Ok(Some(lease))
        })
    }

    fn unlock(&self, lease: Lease) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut state = self.state();
            if state.locks.get(&lease.name).is_some_and(|held| held.owner == lease.owner) {
                state.locks.remove(&lease.name);
            }
            Ok(())
        })
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory(..)")
    }
}
