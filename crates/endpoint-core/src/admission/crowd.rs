//! How full is it around a connection? The fuller, the shorter a stranger may be silent.
//!
//! Told at its arrival, when it becomes a connection, and once a second to those whose answer may have changed.
//! Not here: how long that is (`phase`).

use super::{
    filter::Who,
    record::Kind,
    source::Source,
    table::{Entry, Stage, Table},
};
use crate::{facts::Carrier, phase::Crowd};

/// What was told last to those who are there.
#[derive(Debug, Default)]
pub(super) struct Told {
    strangers: Crowd,
}

impl Table {
    /// Tells one that has just come, or become a connection.
    pub(super) fn tell_crowd(&self, entry: &Entry) {
        match entry.stage {
            Stage::Silent => entry.activity.feel(self.crowd_before(entry.source, entry.carrier)),
            Stage::Connected(Who::Stranger) => entry.activity.feel(self.crowd_of_strangers()),
            Stage::Waiting
            | Stage::Shaking { .. }
            | Stage::Connected(Who::Known)
            | Stage::Closing
            | Stage::Lingering
            | Stage::Leaving { .. } => {}
        }
    }

    /// Tells those to whom it matters now.
    pub(super) fn tell_crowds(&mut self) {
        let strangers = self.crowd_of_strangers();
        let changed = std::mem::replace(&mut self.told.strangers, strangers) != strangers;
        let told = self.entries.values().filter(|entry| changed || entry.stage == Stage::Silent);
        told.for_each(|entry| self.tell_crowd(entry));
    }

    fn crowd_of_strangers(&self) -> Crowd {
        let room = self.budget.strangers;
        Crowd::of(self.records.total(Kind::Stranger), room.open())
    }

    /// Around one that has said nothing: the whole, and the share of each of its prefixes.
    fn crowd_before(&self, source: Source, carrier: Carrier) -> Crowd {
        let (waiting, room) = (Kind::Waiting(carrier), self.budget.strangers);
        let of_waiting = Crowd::of(self.records.total(waiting), self.budget.waiting(carrier));
        let of_shares = source.prefixes().map(|prefix| {
            let taken = [waiting, Kind::Stranger].map(|kind| self.records.count(prefix, kind));
            Crowd::of(taken.iter().sum(), room.share(prefix))
        });
        of_shares.fold(of_waiting.max(self.crowd_of_strangers()), Crowd::max)
    }
}
