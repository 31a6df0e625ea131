//! Who is here, from where, and who comes next?
//!
//! One table of sources, from a proven address's arrival to the end of its connection: what waits, what shakes
//! hands, what lives, what failed, and from where peers come. Pure; see [`Filter`] for the contract.
//! Not here: whose address is not proven (`unproven`).
//!
//! Always true: a share is asked for only where others want the room; whoever gives way is silent, stands in a
//! prefix that is at least as full as the newcomer's, and holds no grant.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use tokio::time::Instant;

use super::{
    budget::Budget,
    crowd::Told,
    filter::{Arrival, End, Filter, Id, Refusal, Who},
    penalty::{Category, Failure},
    record::{Kind, Records},
    reserve::Reserve,
    source::{Prefix, Source},
    turns::Turns,
    victims::{Candidate, Victims, Wanted, is_fuller},
};
use crate::{
    config::Limits,
    facts::Carrier,
    identity::Fingerprint,
    phase::{Activity, Phase},
};

/// The table of sources.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) budget: Budget,
    pub(super) entries: HashMap<Id, Entry>,
    pub(super) records: Records,
    pub(super) reserve: Reserve,
    pub(super) victims: Victims,
    pub(super) quic: Lane,
    pub(super) tcp: Lane,
    /// Live connections, of peers too.
    connections: usize,
    /// Connections that were told to give way and have not ended.
    leaving: usize,
    waiting_bytes: usize,
    next_id: Id,
    gave_way: u64,
    pub(super) told: Told,
}

/// Those who may wait at an address from which a peer was authorised, before they count as a crowd.
const SPARED_AT_A_KNOWN_ADDRESS: usize = 16;

/// The handshakes of one carrier.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Those that wait at addresses from which a peer was authorised, and the others.
    pub(super) known: Turns,
    pub(super) others: Turns,
    /// Those that shake hands, in the order of their arrival.
    pub(super) shaking: BTreeSet<Id>,
    /// How many of them are at known addresses.
    pub(super) shaking_known: usize,
    pub(super) known_was_last: bool,
    pub(super) last_look: Option<Instant>,
}

/// One arrival.
#[derive(Debug)]
pub(super) struct Entry {
    address: IpAddr,
    pub(super) source: Source,
    pub(super) carrier: Carrier,
    pub(super) activity: Activity,
    pub(super) stage: Stage,
    /// Whether a peer was authorised from its address when it arrived.
    pub(super) known: bool,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Silent,
    Waiting,
    Shaking {
        since: Instant,
    },
    Connected(Who),
    /// It has ended, and what it was made of is still there.
    Closing,
    /// The same for long.
    Lingering,
    /// It was refused or gave way; it counts as nothing.
    Leaving {
        connection: bool,
    },
}

impl Table {
    pub(crate) fn new(limits: &Limits) -> Self {
        let budget = Budget::new(limits);
        Self {
            records: Records::new(budget.tracked),
            budget,
            entries: HashMap::new(),
            reserve: Reserve::default(),
            victims: Victims::default(),
            quic: Lane::default(),
            tcp: Lane::default(),
            connections: 0,
            leaving: 0,
            waiting_bytes: 0,
            next_id: 1,
            gave_way: 0,
            told: Told::default(),
        }
    }

    pub(super) fn lane(&mut self, carrier: Carrier) -> &mut Lane {
        match carrier {
            Carrier::Quic => &mut self.quic,
            Carrier::Tcp => &mut self.tcp,
        }
    }

    fn insert(&mut self, arrival: Arrival, stage: Stage, now: Instant) -> Id {
        let source = Source::of(arrival.address);
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry {
            address: arrival.address,
            source,
            carrier: arrival.carrier,
            activity: arrival.activity,
            stage,
            known: self.reserve.holds(source.address(), now),
            bytes: 0,
        };
        if let Some(kind) = entry.kind() {
            self.records.add(source, kind);
        }
        self.tell_crowd(&entry);
        self.entries.insert(id, entry);
        id
    }

    /// Moves an entry on, with everything that is counted by.
    pub(super) fn enter(&mut self, id: Id, stage: Stage, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (before, source, carrier, known) =
            (entry.kind(), entry.source, entry.carrier, entry.known);
        let left = std::mem::replace(&mut entry.stage, stage);
        let after = entry.kind();
        if left == Stage::Waiting {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(entry.bytes);
        }
        if before != after {
            if let Some(kind) = after {
                self.records.add(source, kind);
            }
            if let Some(kind) = before {
                self.records.take_off(source, kind, now);
            }
        }
        self.connections -= usize::from(matches!(left, Stage::Connected(_)));
        self.connections += usize::from(matches!(stage, Stage::Connected(_)));
        self.leaving += usize::from(matches!(stage, Stage::Leaving { connection: true }));
        let lane = self.lane(carrier);
        match left {
            Stage::Waiting => {
                let path: Vec<_> = source.prefixes().collect();
                let line = if known { &mut lane.known } else { &mut lane.others };
                line.remove(&path, id);
            }
            Stage::Shaking { .. } => {
                lane.shaking.remove(&id);
                lane.shaking_known -= usize::from(known);
            }
            Stage::Silent
            | Stage::Connected(_)
            | Stage::Closing
            | Stage::Lingering
            | Stage::Leaving { .. } => {}
        }
        if matches!(stage, Stage::Shaking { .. }) {
            lane.shaking.insert(id);
            lane.shaking_known += usize::from(known);
        }
        if let (Stage::Connected(_), Some(entry)) = (stage, self.entries.get(&id)) {
            self.tell_crowd(entry);
        }
    }

    /// Tells `id` to end.
    pub(super) fn oust(&mut self, id: Id, now: Instant) {
        let Some(entry) = self.entries.get(&id) else { return };
        entry.activity.give_way();
        let connection = matches!(entry.stage, Stage::Connected(_));
        self.enter(id, Stage::Leaving { connection }, now);
        self.gave_way += 1;
    }

    /// What was told to end still holds its descriptor until it has.
    fn leaving_is_bounded(&self) -> bool {
        self.leaving <= self.budget.connections / 8 + 16
    }

    /// Makes room for `newcomer` among those of `kind` in `region`, or anywhere; `None` makes room for a peer.
    fn make_way(
        &mut self,
        kind: Kind,
        region: Option<Prefix>,
        newcomer: Option<Source>,
        now: Instant,
    ) -> bool {
        if !self.leaving_is_bounded() {
            return false;
        }
        let Self { victims, entries, records, .. } = self;
        let look = || {
            let within = |source: Source| region.is_none_or(|r| source.prefixes().any(|p| p == r));
            // A few who wait at an address of peers are none to be thrown out for strangers.
            let spared = |entry: &Entry| {
                entry.known
                    && kind != Kind::Stranger
                    && records.count(entry.source.address(), kind) <= SPARED_AT_A_KNOWN_ADDRESS
            };
            let of = entries.iter().filter(|(_, entry)| entry.kind() == Some(kind));
            of.filter(|(_, entry)| within(entry.source) && !spared(entry))
                .filter_map(|(id, entry)| Some((entry.source, entry.candidate(*id)?)))
                .collect()
        };
        let still = |id: Id, at: Instant| {
            entries.get(&id).is_some_and(|entry| {
                entry.kind() == Some(kind) && entry.candidate(id).is_some_and(|c| c.since <= at)
            })
        };
        let wanted = |victim| newcomer.is_none_or(|n| is_fuller(victim, n, kind, records));
        let found =
            victims.next(Wanted { kind, region, busy: false }, records, now, look, still, wanted);
        if let Some(id) = found {
            self.oust(id, now);
        }
        found.is_some()
    }

    /// Whether one more connection may come, from `source`.
    fn make_connection_room(
        &mut self,
        source: Source,
        known: bool,
        who: Who,
        now: Instant,
    ) -> Result<(), Refusal> {
        let kind = Kind::Stranger;
        if who == Who::Known {
            let room = self.connections < self.budget.connections;
            return (room || self.make_way(kind, None, None, now))
                .then_some(())
                .ok_or(Refusal::Full);
        }
        let room = self.budget.strangers;
        let strangers = self.records.total(kind);
        let limit = if known { room.total } else { room.open() };
        // Peers may have filled more than their quarter.
        let full = strangers >= limit || self.connections >= self.budget.connections;
        let share_is_full =
            |prefix: &Prefix| self.records.count(*prefix, kind) >= room.share(*prefix);
        // Where somebody has to go for it: anywhere, or within the first of its prefixes that is full.
        let region = if full {
            None
        } else if strangers < room.spare() {
            return Ok(());
        } else {
            match source.prefixes().find(share_is_full) {
                Some(prefix) => Some(prefix),
                None => return Ok(()),
            }
        };
        let fits = self.make_way(kind, region, Some(source), now)
            || (self.leaving_is_bounded() && self.make_busy_way(source, now));
        fits.then_some(()).ok_or(Refusal::Full)
    }

    /// Whether an address is refused for what it did of this category.
    fn is_shut_out(&self, address: IpAddr, category: Category, now: Instant) -> bool {
        let place = Source::of(address).address();
        self.records.is_banned(place, category, now) && !self.is_spared(address, now)
    }

    /// Whether nothing is booked on an address and nothing refused to it: by the operator's word, or because a
    /// peer was authorised from there.
    fn is_spared(&self, address: IpAddr, now: Instant) -> bool {
        self.budget.is_exempt(address) || self.reserve.holds(Source::of(address).address(), now)
    }

    fn book(&mut self, id: Id, failure: Failure, now: Instant) {
        let Some(entry) = self.entries.get(&id) else { return };
        if !self.is_spared(entry.address, now) {
            self.records.book(entry.source, failure, &self.budget, now);
        }
    }
}

impl Entry {
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.stage {
            Stage::Silent | Stage::Waiting => Some(Kind::Waiting(self.carrier)),
            Stage::Shaking { .. } => Some(Kind::Shaking(self.carrier)),
            Stage::Connected(Who::Stranger) => Some(Kind::Stranger),
            Stage::Closing => Some(Kind::Closing),
            Stage::Lingering => Some(Kind::Lingering),
            Stage::Connected(Who::Known) | Stage::Leaving { .. } => None,
        }
    }

    /// What it is as somebody who may be told to give way; `None` while something is under way.
    fn candidate(&self, id: Id) -> Option<Candidate> {
        let spoke = self.stage == Stage::Waiting;
        Some(Candidate { spoke, since: self.activity.silent_since()?, id })
    }
}

impl Filter for Table {
    fn arrive(&mut self, arrival: Arrival, now: Instant) -> Result<Id, Refusal> {
        let source = Source::of(arrival.address);
        if self.is_shut_out(arrival.address, Category::Handshake, now) {
            return Err(Refusal::Penalised);
        }
        let kind = Kind::Waiting(arrival.carrier);
        let full = self.records.total(kind) >= self.budget.waiting(arrival.carrier);
        if full && !self.make_way(kind, None, Some(source), now) {
            return Err(Refusal::Full);
        }
        Ok(self.insert(arrival, Stage::Silent, now))
    }

    fn ready(&mut self, id: Id, bytes: usize, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.stage != Stage::Silent {
            return;
        }
        entry.bytes = bytes;
        let (source, carrier, known) = (entry.source, entry.carrier, entry.known);
        if self.waiting_bytes.saturating_add(bytes) > self.budget.waiting_bytes
            && !self.make_way(Kind::Waiting(carrier), None, Some(source), now)
        {
            return self.oust(id, now);
        }
        self.waiting_bytes += bytes;
        self.enter(id, Stage::Waiting, now);
        let path: Vec<_> = source.prefixes().collect();
        let Self { records, quic, tcp, .. } = self;
        let lane = match carrier {
            Carrier::Quic => quic,
            Carrier::Tcp => tcp,
        };
        let line = if known { &mut lane.known } else { &mut lane.others };
        line.push(&path, &|prefix| !records.served_of_late(prefix, now), id);
    }

    fn turns(&mut self, now: Instant) -> Vec<Id> {
        let mut granted = Vec::new();
        for carrier in [Carrier::Quic, Carrier::Tcp] {
            self.give_turns(carrier, now, &mut granted);
        }
        granted
    }

    fn connected(&mut self, id: Id, who: Who, now: Instant) -> Result<(), Refusal> {
        let Some(entry) = self.entries.get(&id) else { return Err(Refusal::Full) };
        if !matches!(entry.stage, Stage::Shaking { .. }) {
            return Err(Refusal::Full);
        }
        let (source, known) = (entry.source, entry.known);
        // First out of the handshakes, so that it never gives way to itself.
        self.enter(id, Stage::Leaving { connection: false }, now);
        self.make_connection_room(source, known, who, now)?;
        self.enter(id, Stage::Connected(who), now);
        Ok(())
    }

    fn proven(&mut self, arrival: Arrival, who: Who, now: Instant) -> Result<Id, Refusal> {
        let source = Source::of(arrival.address);
        // Its address was not proven when it came; whoever shows a key with a grant is no part of the ban.
        if who == Who::Stranger && self.is_shut_out(arrival.address, Category::Handshake, now) {
            return Err(Refusal::Penalised);
        }
        let known = self.reserve.holds(source.address(), now);
        self.make_connection_room(source, known, who, now)?;
        self.records.serve(source, &self.budget, now);
        let id = self.insert(arrival, Stage::Leaving { connection: false }, now);
        self.enter(id, Stage::Connected(who), now);
        Ok(id)
    }

    fn authorised(&mut self, id: Id, key: Fingerprint, now: Instant) {
        if let Some(entry) = self.entries.get(&id) {
            self.reserve.remember(key, entry.source.address(), now);
        }
    }

    fn failed(&mut self, id: Id, failure: Failure, now: Instant) {
        self.book(id, failure, now);
    }

    fn closing(&mut self, id: Id, failure: Option<Failure>, now: Instant) {
        if let Some(failure) = failure {
            self.book(id, failure, now);
        }
        self.enter(id, Stage::Closing, now);
    }

    fn lingers(&mut self, address: IpAddr, now: Instant) -> Id {
        let arrival = Arrival { address, carrier: Carrier::Quic, activity: Activity::new(now) };
        self.insert(arrival, Stage::Lingering, now)
    }

    fn is_full_of_lingering(&self) -> bool {
        self.records.total(Kind::Lingering) >= self.budget.handshakes.total / 2
    }

    fn is_banned(&self, id: Id, category: Category, now: Instant) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| self.is_shut_out(entry.address, category, now))
    }

    fn gone(&mut self, id: Id, end: End, now: Instant) {
        let Some(entry) = self.entries.get(&id) else { return };
        let (stage, source, phase) = (entry.stage, entry.source, entry.activity.came_to());
        match (end, stage) {
            (End::Failed(failure), _) => self.book(id, failure, now),
            (End::Fair, Stage::Connected(Who::Stranger)) => match phase {
                Phase::Busy | Phase::Idle => {
                    self.records.forgive(source, &self.budget, now);
                }
                Phase::Shaken => self.book(id, Failure::Left, now),
                Phase::Arrived | Phase::Hello | Phase::Ending => {}
            },
            (End::Fair, _) => {}
        }
        self.leaving -= usize::from(stage == Stage::Leaving { connection: true });
        self.enter(id, Stage::Leaving { connection: false }, now);
        self.entries.remove(&id);
    }

    fn tick(&mut self, now: Instant) {
        self.records.expire(now);
        self.reserve.expire(now);
        self.tell_crowds();
    }

    fn set_limits(&mut self, limits: &Limits, now: Instant) -> usize {
        self.budget = Budget::new(limits);
        self.records.track(self.budget.tracked);
        let ended = self.trim(now);
        self.tell_crowds();
        ended
    }

    fn has_waiting(&self) -> bool {
        [&self.quic, &self.tcp].iter().any(|lane| lane.has_waiting())
    }

    fn handshakes(&self) -> usize {
        self.quic.shaking.len() + self.tcp.shaking.len()
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn gave_way(&mut self) -> u64 {
        std::mem::take(&mut self.gave_way)
    }
}
