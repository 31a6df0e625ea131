//! Which of the certificates that are kept for a name is served?
//!
//! The newest that is whole. Whole is what opens under the seal, whose key fits, whose dates hold, which comes
//! from whom it should and has no mark against it. Not here: mending what is not (`mend`).
//!
//! Always true: what is less than whole is served only while nothing better is there, and says so; one that
//! begins later never replaces one that is valid now; a store that cannot be read says nothing about its
//! certificates.

use std::fmt;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;

use super::{Held, Origin, Vault, VaultError, marks::Marked, record_name};
use crate::{certs::validity::Validity, store::Kind};

/// How the newest certificate of a name stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// In order, and served.
    #[default]
    Whole,
    /// Whole but for its dates: it has ended or is yet to begin.
    OutOfDate,
    /// It cannot be read, or its key does not fit.
    Damaged,
    /// Its authority or its operator took it back, or it is from an authority that is not asked any more.
    TakenBack,
    /// It stands in memory only, because the store cannot be written; a restart loses it.
    Unkept,
}

impl Condition {
    /// As status and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::OutOfDate => "out-of-date",
            Self::Damaged => "damaged",
            Self::TakenBack => "taken-back",
            Self::Unkept => "unkept",
        }
    }

    /// Every condition but the good one, for metrics.
    pub const FAULTS: [Self; 4] = [Self::OutOfDate, Self::Damaged, Self::TakenBack, Self::Unkept];
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From whom a certificate may come. Pure.
pub(crate) type Wanted<'a> = &'a (dyn Fn(&Origin) -> bool + Send + Sync);

impl Vault {
    /// The certificate under a name, ready to serve. The previous one, with a fault in its facts, if the newest
    /// cannot be used.
    pub(crate) async fn load(
        &self,
        name: &str,
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<Option<Held>, VaultError> {
        self.load_from(name, now, provider, &|_| true).await
    }

    /// The same, where those of some sources are served only if there is nothing else.
    pub(crate) async fn load_from(
        &self,
        name: &str,
        now: Timestamp,
        provider: &CryptoProvider,
        wanted: Wanted<'_>,
    ) -> Result<Option<Held>, VaultError> {
        let name = record_name(name)?;
        let newest = match self.held(Kind::Certificate, &name, provider).await {
            // A store that cannot be read at all says nothing about the certificate.
            Err(VaultError::Store(error)) if error.is_of_the_store() => {
                return Err(VaultError::Store(error));
            }
            newest => newest,
        };
        if let Ok(Some(held)) = &newest
            && self.rank(held, now, wanted).await == 0
        {
            return Ok(newest.ok().flatten());
        }
        let previous = match self.held(Kind::Previous, &name, provider).await {
            Err(VaultError::Store(error)) if error.is_of_the_store() => {
                return Err(VaultError::Store(error));
            }
            previous => previous.ok().flatten(),
        };
        let (newest, fault, condition) = match newest {
            Ok(Some(held)) => {
                let (fault, condition) = fault(&held, now);
                (Some(held), fault, condition)
            }
            Ok(None) if previous.is_none() => return Ok(None),
            // Both are written at once, so a previous one alone is what was left of a loss.
            Ok(None) => (None, "the newest certificate is gone".to_owned(), Condition::Damaged),
            Err(why) => (None, why.to_string(), Condition::Damaged),
        };
        let (held, is_newest) = match (newest, previous) {
            (Some(newest), Some(previous)) => {
                let ranks = (
                    self.rank(&newest, now, wanted).await,
                    self.rank(&previous, now, wanted).await,
                );
                let validity = newest.newest;
                let (mut held, is_newest) =
                    if ranks.1 < ranks.0 { (previous, false) } else { (newest, true) };
                held.newest = validity;
                (held, is_newest)
            }
            (Some(newest), None) => (newest, true),
            (None, Some(previous)) => (Held { newest: None, ..previous }, false),
            (None, None) => return Err(VaultError::Lost { name, why: fault }),
        };
        let mut held = held;
        held.info.condition = condition;
        if is_newest {
            held.info.fault = (condition != Condition::TakenBack).then_some(fault);
        } else {
            held.generation = 0;
            held.info.fault = Some(format!("{fault}; the one before is used"));
        }
        Ok(Some(held))
    }

    /// How far a certificate is from whole; 0 is whole.
    async fn rank(&self, held: &Held, now: Timestamp, wanted: Wanted<'_>) -> u32 {
        let dates = match dates(held.loaded.validity, now) {
            Dates::Hold => 0,
            Dates::Early => 30,
            Dates::Ended => 40,
        };
        let marked = match self.marked(&held.leaf()).await {
            Marked::No => 0,
            // Counts as set while another one can serve.
            Marked::Unreadable => 5,
            Marked::Yes => 10,
        };
        dates + marked + if wanted(&held.info.origin) { 0 } else { 10 }
    }
}

/// How a time stands to a validity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dates {
    Early,
    Hold,
    Ended,
}

fn dates(validity: Validity, now: Timestamp) -> Dates {
    if now > validity.until {
        Dates::Ended
    } else if now < validity.from {
        Dates::Early
    } else {
        Dates::Hold
    }
}

/// Why a certificate that opens is not whole.
fn fault(held: &Held, now: Timestamp) -> (String, Condition) {
    let (name, Validity { from, until }) = (&held.info.name, held.loaded.validity);
    match dates(held.loaded.validity, now) {
        Dates::Ended => {
            (format!("the certificate for `{name}` ended on {until}"), Condition::OutOfDate)
        }
        Dates::Early => (
            format!(
                "the certificate for `{name}` begins on {from}; is the clock of this machine right?"
            ),
            Condition::OutOfDate,
        ),
        Dates::Hold => (
            format!(
                "the newest certificate for `{name}` was taken back, or is from an authority that is not asked any more"
            ),
            Condition::TakenBack,
        ),
    }
}
