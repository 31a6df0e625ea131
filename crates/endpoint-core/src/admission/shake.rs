//! Who shakes hands next, and who has been silent for too long in a handshake?
//!
//! The part of the table that gives out handshakes: the reserve first, then everybody in turn, with shares where
//! the room is scarce. A full share delays; only a handshake that has been silent for a while gives way, and
//! only to somebody whose prefix has fewer.

use tokio::time::Instant;

use super::{
    budget::Room,
    filter::Id,
    record::{Kind, Records},
    source::{Prefix, Rank, Source},
    table::{Lane, Stage, Table},
    victims::{Candidate, fullest_first, is_fuller},
};
use crate::facts::Carrier;

/// What a site may keep for long of what has ended, whatever the number of handshakes: one for each of the 256
/// addresses of IPv4 and a share fit in. All that strangers may keep is four times as much.
pub(super) const SITE_LINGERING: usize = 512;
/// Prefixes passed over in search of one that may have a turn.
const PATIENCE: usize = 64;
/// Silent handshakes that give way in one go.
const GIVE_WAY_AT_ONCE: usize = 8;
/// Pause between two such goes.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Whether too much of what has ended from there is still in memory. An address may keep its share of handshakes.
/// Of what is kept for long, one in a wider prefix that keeps more than its own share may keep none, so that it
/// can still come.
fn keeps_too_many(records: &Records, room: &Room, prefix: Prefix) -> bool {
    let lingering = |prefix: Prefix| records.count(prefix, Kind::Lingering);
    match prefix.rank() {
        Rank::Address => {
            let crowded = prefix.wider().any(|wider| lingering(wider) >= room.share(wider));
            records.count(prefix, Kind::Closing) >= room.share(prefix)
                || lingering(prefix) >= if crowded { 1 } else { room.share(prefix) }
        }
        Rank::Site => lingering(prefix) >= SITE_LINGERING,
        Rank::Region => lingering(prefix) >= 2 * SITE_LINGERING,
        Rank::Provider => lingering(prefix) >= 3 * SITE_LINGERING,
    }
}

impl Lane {
    pub(super) fn has_waiting(&self) -> bool {
        !self.known.is_empty() || !self.others.is_empty()
    }
}

impl Table {
    /// Gives handshakes to those whose turn it is.
    pub(super) fn give_turns(&mut self, carrier: Carrier, now: Instant, granted: &mut Vec<Id>) {
        self.give_free(carrier, now, granted);
        let lane = self.lane(carrier);
        let paused = lane.last_look.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        if !lane.has_waiting() || paused {
            return;
        }
        lane.last_look = Some(now);
        for _ in 0..GIVE_WAY_AT_ONCE {
            let lane = self.lane(carrier);
            let Some(first) = lane.known.first().or_else(|| lane.others.first()) else { return };
            match self.silent_one_for(first, carrier, now) {
                Some(victim) => {
                    self.oust(victim, now);
                    self.give_free(carrier, now, granted);
                }
                None => self.lane(carrier).others.pass_first(),
            }
        }
    }

    /// Gives away what is free.
    fn give_free(&mut self, carrier: Carrier, now: Instant, granted: &mut Vec<Id>) {
        while let Some(id) = self.next_turn(carrier, now) {
            let Some(entry) = self.entries.get(&id) else { continue };
            let source = entry.source;
            self.records.serve(source, &self.budget, now);
            self.enter(id, Stage::Shaking { since: now }, now);
            granted.push(id);
        }
    }

    fn next_turn(&mut self, carrier: Carrier, now: Instant) -> Option<Id> {
        let room = self.budget.handshakes;
        let Self { records, budget, quic, tcp, .. } = self;
        let lane = match carrier {
            Carrier::Quic => quic,
            Carrier::Tcp => tcp,
        };
        if lane.shaking.len() >= room.total {
            return None;
        }
        let others = lane.shaking.len() - lane.shaking_known;
        let lingering = records.total(Kind::Lingering);
        let others_fit =
            !lane.others.is_empty() && others < room.open() && lingering < 4 * SITE_LINGERING;
        let known_first = lane.shaking_known < room.reserved || !lane.known_was_last || !others_fit;
        if !lane.known.is_empty() && known_first {
            lane.known_was_last = true;
            return lane.known.pop(&|_| false, &mut PATIENCE.clone());
        }
        lane.known_was_last = false;
        if !others_fit {
            return None;
        }
        // What has ended takes room from nobody, but memory until it is gone.
        let closing = records.total(Kind::Closing);
        let scarce = others >= room.spare() || closing + lingering >= room.total;
        let kind = Kind::Shaking(carrier);
        let over_its_share = |prefix: Prefix| {
            if keeps_too_many(records, &room, prefix) {
                return true;
            }
            scarce
                && (records.count(prefix, kind) >= room.share(prefix)
                    || !records.conforms(prefix, budget, now)
                    || records.is_banned(prefix, super::penalty::Category::Handshake, now))
        };
        lane.others.pop(&over_its_share, &mut PATIENCE.clone())
    }

    /// A handshake that has been silent for long enough to give way to `waiting`.
    fn silent_one_for(&self, waiting: Id, carrier: Carrier, now: Instant) -> Option<Id> {
        let (kind, room) = (Kind::Shaking(carrier), self.budget.handshakes);
        let newcomer = self.entries.get(&waiting)?;
        let lane = match carrier {
            Carrier::Quic => &self.quic,
            Carrier::Tcp => &self.tcp,
        };
        let others = lane.shaking.len() - lane.shaking_known;
        let full = lane.shaking.len() >= room.total || others >= room.open();
        // Where there is room for others, only its own prefix can make room for it.
        let own = newcomer
            .source
            .prefixes()
            .find(|prefix| self.records.count(*prefix, kind) >= room.share(*prefix));
        let region = if full { None } else { Some(own?) };
        let may_go = |id: &Id| -> Option<(Source, Candidate)> {
            let entry = self.entries.get(id)?;
            let Stage::Shaking { since } = entry.stage else { return None };
            let since = entry.activity.silent_since().map_or(now, |silent| silent.max(since));
            // Who is above a share is there as long as nobody else wants the room.
            let over = |prefix| self.records.count(prefix, kind) > room.share(prefix);
            let over = entry.source.prefixes().any(over);
            let patience = self.budget.give_way_after / if over { 2 } else { 1 };
            let silent = now.saturating_duration_since(since) >= patience;
            let within = region.is_none_or(|r| entry.source.prefixes().any(|p| p == r));
            let kept = entry.known && lane.shaking_known <= room.reserved;
            (silent && within && !kept)
                .then_some((entry.source, Candidate { spoke: false, since, id: *id }))
        };
        let candidates = lane.shaking.iter().filter_map(may_go).collect();
        let (victim, source) = fullest_first(candidates, kind, &self.records, 1).pop_front()?;
        is_fuller(source, newcomer.source, kind, &self.records).then_some(victim)
    }
}
