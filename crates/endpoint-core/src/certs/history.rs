//! What was tried for a name, and what came of it?
//!
//! Kept in the store, so that a restart, or another process, cannot forget a budget that is spent. Pure:
//! time is an argument. Not here: what follows from it (`plan`).
//!
//! Always true: an order is entered before it is made; an order whose end nobody saw counts as one that the
//! authority did not answer.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Failing orders that are remembered; the budget looks at four.
const MAX_FAILED: usize = 16;
/// Directories that are remembered.
const MAX_DIRECTORIES: usize = 16;
/// Characters of the last error.
const MAX_ERROR_CHARS: usize = 500;
/// The longest wait that an authority can ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The wait after a limit that did not say how long it lasts.
pub(crate) const UNKNOWN_LIMIT: Duration = Duration::from_secs(3600);
/// Strikes in a row after which the next authority is tried.
pub(crate) const NEXT_AFTER: u32 = 3;

/// A moment, to the millisecond.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Moment(i64);

impl Moment {
    pub(crate) fn time(self) -> Timestamp {
        Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::MAX)
    }
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        // Rounded up: nothing that waits for this moment begins before it.
        let rest = time.as_nanosecond().rem_euclid(1_000_000);
        Self(time.as_millisecond().saturating_add(i64::from(rest > 0 && time.as_nanosecond() > 0)))
    }
}

/// How an order failed, as it counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The authority refused it, or the proof was not found. Counts against the budget.
    Refused,
    /// The authority limits us. Counts too, since it may be one order too many already.
    Limited,
    /// No answer that says anything about the order.
    Unavailable,
}

/// What one directory did lately.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Tried {
    /// Failures of whatever kind since it last did what it should.
    pub(crate) strikes: u32,
    /// Whether the last thing that it said about the name was a refusal.
    pub(crate) refused: bool,
    /// Times in a row that it did not answer.
    pub(crate) silent: u32,
    /// When it last failed.
    pub(crate) last: Option<Moment>,
    /// When it may be asked again, as it said itself.
    pub(crate) wait_until: Option<Moment>,
}

/// When the authority wants a certificate renewed (RFC 9773).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Suggested {
    /// The digest of the leaf that it is about.
    pub(crate) leaf: String,
    /// The window, if the authority has an opinion.
    pub(crate) window: Option<(Moment, Moment)>,
    /// When to ask again.
    pub(crate) ask_at: Moment,
}

/// What was tried for a name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct History {
    /// When orders failed, oldest first, whichever directory they were made at.
    pub(crate) failed: Vec<Moment>,
    /// Orders that failed since the last that did not.
    pub(crate) streak: u32,
    /// By the URL of the directory.
    pub(crate) directories: BTreeMap<String, Tried>,
    /// The order that is under way: where, since when.
    pub(crate) open: Option<(String, Moment)>,
    /// The directory whose staging twin has issued since it last refused.
    pub(crate) passed: Option<String>,
    /// What the authority suggests.
    pub(crate) suggested: Option<Suggested>,
    /// When the last certificate was issued.
    pub(crate) issued: Option<Moment>,
    /// Orders that were begun.
    pub(crate) attempts: u64,
    /// What went wrong last, if nothing went right since.
    pub(crate) last_error: Option<String>,
}

impl History {
    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    pub(crate) fn tried(&self, directory: &str) -> Option<&Tried> {
        self.directories.get(directory)
    }

    fn entry(&mut self, directory: &str) -> &mut Tried {
        if self.directories.len() >= MAX_DIRECTORIES && !self.directories.contains_key(directory) {
            // Configurations come and go; the one heard of longest ago is not missed.
            let oldest = self.directories.iter().min_by_key(|(_, tried)| tried.last);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.directories.remove(&name);
            }
        }
        self.directories.entry(directory.to_owned()).or_default()
    }

    /// Brings what lies in the future back to `now`, or to the longest wait from it: the clock was set back.
    /// What was spent stays spent. Gives whether anything lay there.
    pub(crate) fn rewind(&mut self, now: Timestamp) -> bool {
        let latest = Moment::from(now);
        let longest = Moment::from(now.checked_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX));
        let mut any = false;
        let mut back = |moment: &mut Moment, most: Moment| {
            if *moment > most {
                (*moment, any) = (most, true);
            }
        };
        self.failed.iter_mut().for_each(|at| back(at, latest));
        self.issued.iter_mut().for_each(|at| back(at, latest));
        self.open.iter_mut().for_each(|(_, since)| back(since, latest));
        self.suggested.iter_mut().for_each(|of| back(&mut of.ask_at, longest));
        for tried in self.directories.values_mut() {
            tried.last.iter_mut().for_each(|at| back(at, latest));
            tried.wait_until.iter_mut().for_each(|at| back(at, longest));
        }
        any
    }

    /// What both know, where this one is later: another process entered something while this one could not.
    pub(crate) fn merged(mut self, theirs: Self, now: Timestamp) -> Self {
        if theirs.clone().rewind(now) {
            // From before the clock was set back, which was brought back to its time once already.
            return self;
        }
        self.failed.extend(theirs.failed);
        self.failed.sort();
        self.failed.dedup();
        let surplus = self.failed.len().saturating_sub(MAX_FAILED);
        self.failed.drain(..surplus);
        for (directory, tried) in theirs.directories {
            let newest = self.tried(&directory).and_then(|own| own.last).max(self.issued);
            if newest < tried.last {
                *self.entry(&directory) = tried;
            }
        }
        self.issued = self.issued.max(theirs.issued);
        self.attempts = self.attempts.max(theirs.attempts);
        self.suggested = self.suggested.or(theirs.suggested);
        self
    }

    /// Nobody knows what that directory said last: as if it had refused.
    pub(crate) fn doubt(&mut self, directory: &str) {
        self.entry(directory).refused = true;
    }

    /// An order is about to be made.
    pub(crate) fn begin(&mut self, directory: &str, now: Timestamp) {
        self.open = Some((directory.to_owned(), now.into()));
        self.attempts = self.attempts.saturating_add(1);
    }

    /// The process that made the open order is gone. The caller holds the name's lock. Gives whether there
    /// was one.
    pub(crate) fn broken_off(&mut self) -> bool {
        let Some((directory, since)) = self.open.take() else { return false };
        let tried = self.entry(&directory);
        tried.silent = tried.silent.saturating_add(1);
        tried.last = Some(since);
        true
    }

    /// The order at `directory` was issued. `staging_of`: it was the staging twin of that directory.
    pub(crate) fn succeeded(&mut self, directory: &str, staging_of: Option<&str>, now: Timestamp) {
        self.open = None;
        self.directories.remove(directory);
        match staging_of {
            Some(production) => self.passed = Some(production.to_owned()),
            None => {
                self.directories.clear();
                self.streak = 0;
                self.passed = None;
                self.last_error = None;
                self.suggested = None;
                self.issued = Some(now.into());
            }
        }
    }

    /// The order at `directory` failed.
    pub(crate) fn failed(
        &mut self,
        directory: &str,
        staging_of: Option<&str>,
        failure: Failure,
        retry_after: Option<Duration>,
        text: &str,
        now: Timestamp,
    ) {
        self.open = None;
        self.last_error = Some(text.chars().take(MAX_ERROR_CHARS).collect());
        let unknown = (failure == Failure::Limited).then_some(UNKNOWN_LIMIT);
        let wait = retry_after.or(unknown).map(|wait| wait.min(LONGEST_WAIT));
        let wait_until = wait.and_then(|wait| now.checked_add(wait).ok()).map(Moment::from);
        let tried = self.entry(directory);
        tried.last = Some(now.into());
        tried.strikes = tried.strikes.saturating_add(1);
        tried.wait_until = wait_until;
        match failure {
            Failure::Unavailable => tried.silent = tried.silent.saturating_add(1),
            Failure::Refused => {
                tried.refused = true;
                tried.silent = 0;
            }
            Failure::Limited => {
                tried.strikes = tried.strikes.max(NEXT_AFTER);
                tried.silent = 0;
            }
        }
        if let Some(production) = staging_of {
            let tried = self.entry(production);
            tried.strikes = tried.strikes.saturating_add(1);
        }
        if failure != Failure::Unavailable {
            self.passed = None;
            self.streak = self.streak.saturating_add(1);
            self.failed.push(now.into());
            let surplus = self.failed.len().saturating_sub(MAX_FAILED);
            self.failed.drain(..surplus);
        }
    }
}

impl super::probe::CertProbe {
    /// What was tried for a name, as the store keeps it, read and written again; feature `acme`.
    #[must_use]
    pub fn history(record: &[u8]) -> Option<Vec<u8>> {
        History::from_bytes(record).ok()?.to_bytes().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "https://ca.example/dir";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn survives_its_own_bytes_and_refuses_others() {
        let mut history = History::default();
        let now = at("2026-11-26T12:00:00.123456789Z");
        history.begin(CA, now);
        history.failed(CA, None, Failure::Limited, None, "no", now);
        let again = History::from_bytes(&history.to_bytes().unwrap()).unwrap();
        assert_eq!(again, history);
        assert!(again.failed[0].time() >= now, "rounded up");
        for bad in [&b""[..], b"{", b"7", b"{\"failed\":3}"] {
            assert!(History::from_bytes(bad).is_err());
        }
    }

    #[test]
    fn stays_bounded_whatever_happens() {
        let mut history = History::default();
        for i in 0..1000 {
            let directory = format!("https://{i}.example/dir");
            let text = "x".repeat(10_000);
            history.failed(
                &directory,
                None,
                Failure::Refused,
                None,
                &text,
                at("2026-11-26T12:00:00Z"),
            );
        }
        assert!(history.to_bytes().unwrap().len() < 8192);
        assert_eq!(history.streak, 1000);
    }

    #[test]
    fn an_order_that_nobody_saw_the_end_of_is_no_success() {
        let mut history = History::default();
        history.begin(CA, at("2026-11-26T12:00:00Z"));
        assert!(history.broken_off());
        assert!(!history.broken_off());
        assert_eq!(history.tried(CA).unwrap().silent, 1);
    }
}
