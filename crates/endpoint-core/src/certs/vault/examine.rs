//! Is everything in the store whole, and what is done about what is not?
//!
//! Reads every record and holds what stands in it against what a record of its kind must be. For operators;
//! a running endpoint mends what it meets by itself.
//!
//! Always true: looking changes nothing; mending deletes no key and no account, it sets them aside.

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;

use super::{Condition, Held, Vault, VaultError, marks::Mark, mend::spent, record_name};
use crate::store::{Aside, Change, Kind, StoreError};

/// A record that is not in order.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ailing {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// [`Condition::Damaged`], or [`Condition::OutOfDate`], about which nothing is done here.
    pub condition: Condition,
    /// What is wrong.
    pub why: String,
    /// What mending does about it.
    pub remedy: String,
    /// `None`: it cannot be trusted.
    generation: Option<u64>,
}

/// What a look at everything found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Examined {
    /// Records that were read.
    pub records: usize,
    /// Those that are not in order.
    pub ailing: Vec<Ailing>,
    /// What was set aside before.
    pub asides: Vec<Aside>,
}

impl Vault {
    /// Reads everything that is kept.
    ///
    /// # Errors
    /// [`VaultError::Store`] if the store itself cannot be read; a damaged record is none.
    pub async fn examine(&self, now: Timestamp) -> Result<Examined, VaultError> {
        let mut found = Examined { asides: self.store.asides().await?, ..Examined::default() };
        for kind in Kind::ALL {
            for (id, _) in self.store.list(kind).await? {
                found.records += 1;
                let (generation, condition, why) = match self.store.read(kind, &id).await {
                    Ok(None) => continue,
                    Ok(Some(record)) => {
                        let Err((condition, why)) = judge(kind, &id, &record, now) else {
                            continue;
                        };
                        (Some(record.generation), condition, why)
                    }
                    Err(StoreError::Damaged { why, .. }) => (None, Condition::Damaged, why),
                    Err(error) => return Err(error.into()),
                };
                let remedy = match condition {
                    Condition::Damaged => self.remedy(kind, &id, now).await,
                    _ => "nothing; it is renewed or replaced when its time comes".to_owned(),
                };
                found.ailing.push(Ailing { kind, id, condition, why, remedy, generation });
            }
        }
        Ok(found)
    }

    async fn remedy(&self, kind: Kind, id: &str, now: Timestamp) -> String {
        match kind {
            Kind::Certificate => {
                let previous = match record_name(id) {
                    Ok(name) => self.held(Kind::Previous, &name, &default_provider()).await,
                    Err(_) => Ok(None),
                };
                match previous {
                    Ok(Some(held)) if now <= held.loaded.validity.until => format!(
                        "set aside; the one before takes its place, valid until {}",
                        held.loaded.validity.until
                    ),
                    _ => "set aside; a new one is ordered, or import one".to_owned(),
                }
            }
            Kind::History => {
                "set aside; the next order waits an hour, as if the budget were spent".to_owned()
            }
            Kind::Account => "set aside; the next order registers another account".to_owned(),
            Kind::Challenge => "deleted; it was the answer to a challenge".to_owned(),
            Kind::Staple => "deleted; it is fetched again".to_owned(),
            Kind::Mark => "set aside; it counts as set from then on".to_owned(),
            Kind::Previous => "set aside".to_owned(),
        }
    }

    /// Does about a damaged record what [`Ailing::remedy`] says. Gives what was done, in words; nothing, if
    /// somebody else was faster or nothing is to be done.
    ///
    /// # Errors
    /// [`VaultError::Store`] if the store cannot be written; nothing is changed then.
    pub async fn repair(
        &self,
        ailing: &Ailing,
        now: Timestamp,
    ) -> Result<Option<String>, VaultError> {
        if ailing.condition != Condition::Damaged {
            return Ok(None);
        }
        let Ailing { kind, id, generation, why, .. } = ailing;
        let done = match kind {
            Kind::Certificate | Kind::Previous if record_name(id).is_ok() => {
                let mended = self.mend(id, now, &default_provider()).await?;
                // Both records of the name were looked at, and are told together.
                let words: Vec<_> = mended
                    .into_iter()
                    .map(|mended| format!("{} `{}` {}", mended.kind, mended.id, mended.done))
                    .collect();
                return Ok((!words.is_empty()).then(|| words.join("; ")));
            }
            Kind::History => self.begin_anew(id, *generation, why, spent(now), now).await,
            Kind::Challenge | Kind::Staple => {
                let change = Change::Delete(*kind, id.clone());
                self.store.write(vec![change], now).await.map_err(VaultError::from)
            }
            _ => self.set_aside(*kind, id, *generation, why, now).await,
        };
        match done {
            Ok(()) => Ok(Some(ailing.remedy.clone())),
            Err(VaultError::Store(StoreError::Conflict { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a record that can be trusted holds what it should.
fn judge(
    kind: Kind,
    id: &str,
    record: &crate::store::Record,
    now: Timestamp,
) -> Result<(), (Condition, String)> {
    let damaged = |why: &str| Err((Condition::Damaged, why.to_owned()));
    let body = record.body.as_slice();
    match kind {
        Kind::Certificate | Kind::Previous => {
            let held = Held::read(id, record, &default_provider())
                .map_err(|why| (Condition::Damaged, why))?;
            let until = held.loaded.validity.until;
            match now > until {
                true => Err((Condition::OutOfDate, format!("it ended on {until}"))),
                false if now < held.loaded.validity.from => {
                    let from = held.loaded.validity.from;
                    Err((Condition::OutOfDate, format!("it begins on {from}")))
                }
                false => Ok(()),
            }
        }
        Kind::Account if !body.starts_with(b"acc1") => damaged("its form is unknown"),
        Kind::History if !is_history(body) => damaged("it is no history of orders"),
        Kind::Mark if Mark::read(body).is_none() => damaged("it is no mark"),
        Kind::Challenge if serde_json::from_slice::<serde_json::Value>(body).is_err() => {
            damaged("it is no answer to a challenge")
        }
        _ => Ok(()),
    }
}

/// Whether a body can be a history of orders, also in a build that orders nothing.
fn is_history(body: &[u8]) -> bool {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Outline {
        failed: Vec<i64>,
    }
    serde_json::from_slice::<Outline>(body).is_ok_and(|outline| outline.failed.len() <= 64)
}
