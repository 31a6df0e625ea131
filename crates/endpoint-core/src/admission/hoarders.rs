//! Who gives way when everybody who could is busy?
//!
//! What a prefix has beyond its share it has only while nobody else wants the room; otherwise three addresses
//! with slow readers would keep out everybody else for as long as they like. So where no silent one can go,
//! the one that has been busy for longest goes, of a prefix above its share, for a newcomer whose own prefixes
//! are below theirs.
//!
//! Always true: a busy one whose prefixes are within their shares never gives way, nor one from an address of
//! peers; nobody gives way to a newcomer of a prefix that is itself above its share.

use tokio::time::Instant;

use super::{
    filter::{Id, Who},
    record::{Kind, Records},
    source::{Prefix, Source},
    table::{Entry, Stage, Table},
    victims::{Candidate, Wanted},
};
use crate::phase::Phase;

impl Table {
    /// Makes room for `newcomer` among those that are busy; whether there is some now.
    pub(super) fn make_busy_way(&mut self, newcomer: Source, now: Instant) -> bool {
        let kind = Kind::Stranger;
        let room = self.budget.strangers;
        let count = |records: &Records, prefix| records.count(prefix, kind);
        // The narrowest of its own prefixes that is full: only within it may somebody go.
        let full = |prefix: &Prefix| count(&self.records, *prefix) >= room.share(*prefix);
        let region = newcomer.prefixes().rfind(full);
        if region == Some(newcomer.address()) {
            return false;
        }
        let Self { victims, entries, records, .. } = self;
        let records = &*records;
        let goes = |source: Source| {
            let mut inside = region.is_none();
            source.prefixes().any(|prefix| {
                let above = inside && count(records, prefix) > room.share(prefix);
                inside |= region == Some(prefix);
                above
            })
        };
        let busy = |entry: &Entry| {
            let (phase, since) = entry.activity.place();
            let stranger = entry.stage == Stage::Connected(Who::Stranger) && !entry.known;
            (stranger && phase == Phase::Busy && goes(entry.source)).then_some(since)
        };
        let look = || {
            entries
                .iter()
                .filter_map(|(id, entry)| {
                    let candidate = Candidate { spoke: true, since: busy(entry)?, id: *id };
                    Some((entry.source, candidate))
                })
                .collect()
        };
        let still = |id: Id, _| entries.get(&id).is_some_and(|entry| busy(entry).is_some());
        let wanted = Wanted { kind, region, busy: true };
        let found = victims.next(wanted, records, now, look, still, |_| true);
        if let Some(id) = found {
            self.oust(id, now);
        }
        found.is_some()
    }
}
