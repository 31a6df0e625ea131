//! How is a mark set, and what does an order want to know of one?

use jiff::Timestamp;

use super::{Vault, marks::Mark};
use crate::store::{Change, Kind, StoreError};

impl Mark {
    /// The mark of one that its authority took back.
    pub(crate) fn revoked(now: Timestamp) -> Self {
        Self { revoked: Some(now.as_millisecond()), ..Self::default() }
    }

    /// The mark of one that an operator had replaced.
    pub(crate) fn replaced(now: Timestamp) -> Self {
        Self { replaced: Some(now.as_millisecond()), ..Self::default() }
    }
}

impl Vault {
    /// Whether another one came after it that was lost since.
    pub(crate) async fn was_succeeded(&self, leaf: &str) -> bool {
        self.mark_of(leaf).await.is_none_or(|mark| mark.succeeded.is_some())
    }

    /// Adds to the mark of a leaf.
    pub(crate) async fn mark(
        &self,
        leaf: &str,
        more: Mark,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = self.mark_of(leaf).await.unwrap_or_else(|| Mark::doubtful(now));
        let mark = Mark {
            revoked: known.revoked.or(more.revoked),
            replaced: known.replaced.or(more.replaced),
            succeeded: known.succeeded.or(more.succeeded),
            doubt: known.doubt,
        };
        let change = Change::Replace(Kind::Mark, leaf.to_owned(), None, mark.body());
        self.store.write(vec![change], now).await
    }
}
