//! What speaks against a certificate that is whole by itself?
//!
//! Its authority took it back, or an operator had it replaced before its time, perhaps because its key is
//! known to others. Kept beside the certificate under the digest of its leaf, so that neither a restart nor a
//! damaged newer one brings it back into service while another one can serve.
//!
//! Always true: a mark that cannot be read counts as set while another certificate can serve.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Vault;
use crate::store::Kind;

/// What stands in a mark. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Mark {
    /// When its authority said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<i64>,
    /// When another one was asked for in its place before its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<i64>,
    /// When one came after it that was lost since: its authority need not be told again that it is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) succeeded: Option<i64>,
    /// When a mark was found that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) doubt: Option<i64>,
}

/// Whether something speaks against a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Marked {
    No,
    Unreadable,
    Yes,
}

impl Mark {
    /// The mark of one that came before another that was lost.
    pub(super) fn succeeded(now: Timestamp) -> Self {
        Self { succeeded: Some(now.as_millisecond()), ..Self::default() }
    }

    /// The mark in the place of one that could not be read.
    pub(super) fn doubtful(now: Timestamp) -> Self {
        Self { doubt: Some(now.as_millisecond()), ..Self::default() }
    }

    pub(super) fn body(self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(&self).unwrap_or_default())
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Vault {
    /// The mark of a leaf; `None`: it cannot be read.
    pub(super) async fn mark_of(&self, leaf: &str) -> Option<Mark> {
        match self.store.read(Kind::Mark, leaf).await {
            Ok(None) => Some(Mark::default()),
            Ok(Some(record)) => Mark::read(&record.body),
            Err(_) => None,
        }
    }

    pub(super) async fn marked(&self, leaf: &str) -> Marked {
        match self.mark_of(leaf).await {
            None => Marked::Unreadable,
            Some(mark) if mark.revoked.is_some() || mark.replaced.is_some() => Marked::Yes,
            Some(mark) if mark.doubt.is_some() => Marked::Unreadable,
            Some(_) => Marked::No,
        }
    }
}
