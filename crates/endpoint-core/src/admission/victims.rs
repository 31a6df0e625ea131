//! Who gives way, when there is no room? The longest silent one of the fullest prefix, and within it of its
//! fullest sub-prefix.
//!
//! Looking through the table costs time, so one look finds several, and the next one waits a little: however
//! fast newcomers come, choosing costs a bounded share of a core.
//!
//! Always true: nobody gives way to a newcomer whose own prefix is as full.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    filter::Id,
    record::{Kind, Records},
    source::{Prefix, Source},
};

/// Somebody who may be told to give way; who stands first in order goes first within an address.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Candidate {
    /// Whether it has said something.
    pub(crate) spoke: bool,
    pub(crate) since: Instant,
    pub(crate) id: Id,
}

/// Candidates found by one look.
const FOUND_AT_ONCE: usize = 256;
/// Pause after a look that found all there were, and after each one in a region.
const PAUSE: Duration = Duration::from_millis(20);
/// Regions of which a look is kept.
const LOOKS_KEPT: usize = 16;

/// Whom a look is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    /// `None`: anywhere.
    pub(crate) region: Option<Prefix>,
    /// Those with something under way, or those that are silent.
    pub(crate) busy: bool,
}

impl Wanted {
    /// Whether a look for the other costs from the same share of a core. All regions have one together: an
    /// attacker has as many of them as it likes. Looks everywhere have their own, which those never hold up.
    fn shares_pause_with(self, other: Self) -> bool {
        (self.kind, self.region.is_some(), self.busy)
            == (other.kind, other.region.is_some(), other.busy)
    }
}

/// What was found of late, by where it was looked for.
#[derive(Debug, Default)]
pub(crate) struct Victims {
    looks: VecDeque<Look>,
    /// The last look of each sort after which a pause is due; as many as there are sorts.
    last: Vec<(Wanted, Instant)>,
}

#[derive(Debug)]
struct Look {
    wanted: Wanted,
    at: Instant,
    found: VecDeque<(Id, Source)>,
}

impl Victims {
    /// The next one of those. `look` lists who may go; `still` says of one that was
    /// found before whether it may go still.
    pub(crate) fn next(
        &mut self,
        wanted: Wanted,
        records: &Records,
        now: Instant,
        look: impl FnOnce() -> Vec<(Source, Candidate)>,
        still: impl Fn(Id, Instant) -> bool,
        wanted_by: impl Fn(Source) -> bool,
    ) -> Option<Id> {
        let at = self.looks.iter().position(|look| look.wanted == wanted);
        if let Some(kept) = at.and_then(|at| self.looks.get_mut(at)) {
            while let Some((id, source)) = kept.found.pop_front() {
                if !still(id, kept.at) {
                    continue;
                }
                if wanted_by(source) {
                    return Some(id);
                }
                kept.found.push_front((id, source));
                return None;
            }
        }
        // Who was found went at one look's cost for many; another look waits if the last of its sort found few.
        let last = self.last.iter().position(|(other, _)| other.shares_pause_with(wanted));
        if let Some((_, at)) = last.and_then(|last| self.last.get(last))
            && now.saturating_duration_since(*at) < PAUSE
        {
            return None;
        }
        if let Some(at) = at {
            self.looks.remove(at);
        } else if self.looks.len() >= LOOKS_KEPT {
            self.looks.pop_front();
        }
        let mut found = fullest_first(look(), wanted.kind, records, FOUND_AT_ONCE);
        if let Some(last) = last {
            self.last.swap_remove(last);
        }
        if found.len() < FOUND_AT_ONCE || wanted.region.is_some() {
            self.last.push((wanted, now));
        }
        let first = found.front().copied();
        let id = match first {
            Some((id, source)) if wanted_by(source) => {
                found.pop_front();
                Some(id)
            }
            _ => None,
        };
        self.looks.push_back(Look { wanted, at: now, found });
        id
    }
}

/// Up to `most` of the candidates, in the order in which they are to go.
pub(crate) fn fullest_first(
    candidates: Vec<(Source, Candidate)>,
    kind: Kind,
    records: &Records,
    most: usize,
) -> VecDeque<(Id, Source)> {
    let mut addresses: BTreeMap<Prefix, (Source, Vec<Candidate>)> = BTreeMap::new();
    for (source, candidate) in candidates {
        let entry = addresses.entry(source.address()).or_insert_with(|| (source, Vec::new()));
        entry.1.push(candidate);
    }
    let mut gone: HashMap<Prefix, usize> = HashMap::new();
    let fullness = |source: Source, gone: &HashMap<Prefix, usize>| -> Vec<usize> {
        let left = |prefix| {
            records.count(prefix, kind).saturating_sub(gone.get(&prefix).copied().unwrap_or(0))
        };
        source.prefixes().map(left).collect()
    };
    let mut heap = BinaryHeap::new();
    for (address, (source, of_address)) in &mut addresses {
        // The first to go stands last.
        of_address.sort_unstable_by(|a, b| b.cmp(a));
        let Some(first) = of_address.last().copied() else { continue };
        heap.push((fullness(*source, &gone), Reverse(first), *address));
    }
    let mut order = VecDeque::new();
    while order.len() < most
        && let Some((fill, first, address)) = heap.pop()
    {
        let Some((source, of_address)) = addresses.get_mut(&address) else { continue };
        // Others of the same prefix went since: it is less full now, and perhaps not the fullest.
        let current = fullness(*source, &gone);
        if current != fill {
            heap.push((current, first, address));
            continue;
        }
        let Some(candidate) = of_address.pop() else { continue };
        order.push_back((candidate.id, *source));
        for prefix in source.prefixes() {
            *gone.entry(prefix).or_default() += 1;
        }
        if let Some(next) = of_address.last().copied() {
            heap.push((fullness(*source, &gone), Reverse(next), address));
        }
    }
    order
}

/// Whether `victim` stands in a fuller prefix than `newcomer` does, or at the same address.
pub(crate) fn is_fuller(victim: Source, newcomer: Source, kind: Kind, records: &Records) -> bool {
    let pairs = victim.prefixes().zip(newcomer.prefixes());
    pairs.into_iter().find(|(of_victim, of_newcomer)| of_victim != of_newcomer).is_none_or(
        |(of_victim, of_newcomer)| {
            records.count(of_victim, kind) > records.count(of_newcomer, kind)
        },
    )
}
