//! Whose turn is it? Those who wait are served prefix by prefix, not in the order of their coming.
//!
//! One line for each address, the lines of a prefix in turn, and so on up. A prefix that was not served of late
//! goes before those that were (as new flows do in FQ-CoDel, RFC 8290 §4.2), but every fifth turn is theirs: so
//! a newcomer does not wait behind a crowd, and a crowd of newcomers does not hold up everybody else.
//!
//! Always true: nothing is kept of a prefix in which nobody waits.

use std::collections::{HashMap, VecDeque};

use super::{filter::Id, source::Prefix};

/// Turns of fresh prefixes between two of the others.
const FRESH_IN_A_ROW: u8 = 4;

/// Those who wait in one prefix, or in all.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    fresh: VecDeque<Prefix>,
    served: VecDeque<Prefix>,
    below: HashMap<Prefix, Below>,
    fresh_in_a_row: u8,
    waiting: usize,
}

#[derive(Debug)]
enum Below {
    Turns(Turns),
    Line(VecDeque<Id>),
}

impl Turns {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Puts `id` at the end of its address's line. `path` has its prefixes, the widest first; `fresh` says of
    /// one whether it was not served of late.
    pub(crate) fn push(&mut self, path: &[Prefix], fresh: &impl Fn(Prefix) -> bool, id: Id) {
        let [prefix, rest @ ..] = path else { return };
        self.waiting += 1;
        let below = self.below.entry(*prefix).or_insert_with(|| {
            let line = if fresh(*prefix) { &mut self.fresh } else { &mut self.served };
            line.push_back(*prefix);
            if rest.is_empty() {
                Below::Line(VecDeque::new())
            } else {
                Below::Turns(Self::default())
            }
        });
        match below {
            Below::Line(line) => line.push_back(id),
            Below::Turns(turns) => turns.push(rest, fresh, id),
        }
    }

    /// Takes the one whose turn it is, passing over prefixes that may not have one now. `patience` bounds how
    /// many are passed over in one call.
    pub(crate) fn pop(
        &mut self,
        pass_over: &impl Fn(Prefix) -> bool,
        patience: &mut usize,
    ) -> Option<Id> {
        for _ in 0..self.fresh.len() + self.served.len() {
            let owed = self.fresh_in_a_row >= FRESH_IN_A_ROW && !self.served.is_empty();
            let of_fresh = !self.fresh.is_empty() && !owed;
            let line = if of_fresh { &mut self.fresh } else { &mut self.served };
            let prefix = line.pop_front()?;
            self.fresh_in_a_row = if of_fresh { self.fresh_in_a_row.saturating_add(1) } else { 0 };
            let found = if pass_over(prefix) {
                None
            } else {
                match self.below.get_mut(&prefix) {
                    Some(Below::Line(line)) => line.pop_front(),
                    Some(Below::Turns(turns)) => turns.pop(pass_over, patience),
                    None => None,
                }
            };
            if self.below.get(&prefix).is_none_or(Below::is_empty) {
                self.below.remove(&prefix);
            } else if found.is_none() && of_fresh {
                // It had no turn, so it stays fresh.
                self.fresh.push_back(prefix);
            } else {
                self.served.push_back(prefix);
            }
            if found.is_some() {
                self.waiting -= 1;
                return found;
            }
            *patience = patience.checked_sub(1)?;
        }
        None
    }

    /// The one whose turn would come first, if all might have one.
    pub(crate) fn first(&self) -> Option<Id> {
        let prefix = self.fresh.front().or_else(|| self.served.front())?;
        match self.below.get(prefix)? {
            Below::Line(line) => line.front().copied(),
            Below::Turns(turns) => turns.first(),
        }
    }

    /// Lets the prefix that would come first come last.
    pub(crate) fn pass_first(&mut self) {
        let line = if self.fresh.is_empty() { &mut self.served } else { &mut self.fresh };
        let Some(prefix) = line.pop_front() else { return };
        line.push_back(prefix);
        if let Some(Below::Turns(turns)) = self.below.get_mut(&prefix) {
            turns.pass_first();
        }
    }

    /// Takes `id` out of its line, wherever it stands.
    pub(crate) fn remove(&mut self, path: &[Prefix], id: Id) -> bool {
        let [prefix, rest @ ..] = path else { return false };
        let found = match self.below.get_mut(prefix) {
            Some(Below::Line(line)) => {
                line.iter().position(|other| *other == id).and_then(|at| line.remove(at)).is_some()
            }
            Some(Below::Turns(turns)) => turns.remove(rest, id),
            None => false,
        };
        if found {
            self.waiting -= 1;
        }
        if self.below.get(prefix).is_some_and(Below::is_empty) {
            self.below.remove(prefix);
            self.fresh.retain(|other| other != prefix);
            self.served.retain(|other| other != prefix);
        }
        found
    }
}

impl Below {
    fn is_empty(&self) -> bool {
        match self {
            Self::Turns(turns) => turns.is_empty(),
            Self::Line(line) => line.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::source::Source;

    fn path(a: u8, b: u8) -> Vec<Prefix> {
        Source::of(std::net::Ipv4Addr::new(10, 0, a, b).into()).prefixes().collect()
    }

    fn drain(turns: &mut Turns) -> Vec<Id> {
        std::iter::from_fn(|| turns.pop(&|_| false, &mut 100)).collect()
    }

    #[test]
    fn serves_prefixes_in_turn_and_addresses_within_them() {
        let mut turns = Turns::default();
        for id in 0..4 {
            turns.push(&path(1, 1), &|_| false, id);
        }
        turns.push(&path(1, 2), &|_| false, 10);
        turns.push(&path(2, 1), &|_| false, 20);
        turns.push(&path(2, 1), &|_| false, 21);
        assert_eq!(turns.first(), Some(0));
        assert_eq!(drain(&mut turns), [0, 20, 10, 21, 1, 2, 3]);
        assert!(turns.is_empty() && turns.below.is_empty());
    }

    #[test]
    fn a_newcomer_goes_before_a_crowd_and_a_crowd_of_them_does_not_starve_it() {
        let mut turns = Turns::default();
        for n in 0..100 {
            turns.push(&path(n, 1), &|_| false, u64::from(n));
        }
        turns.push(&path(200, 1), &|_| true, 1_000);
        assert_eq!(turns.pop(&|_| false, &mut 100), Some(1_000));
        for n in 200..=255 {
            turns.push(&path(n, 1), &|_| true, 1_000 + u64::from(n));
        }
        let order = drain(&mut turns);
        let old = order.iter().take(50).filter(|id| **id < 1_000).count();
        assert!((8..=12).contains(&old), "{old} of the first fifty");
    }

    #[test]
    fn passes_over_a_full_prefix_and_keeps_its_place() {
        let mut turns = Turns::default();
        turns.push(&path(1, 1), &|_| false, 1);
        turns.push(&path(2, 1), &|_| false, 2);
        let full = path(1, 1)[0];
        assert_eq!(turns.pop(&|prefix| prefix == full, &mut 100), Some(2));
        assert_eq!(turns.pop(&|prefix| prefix == full, &mut 100), None);
        assert_eq!(drain(&mut turns), [1]);
    }

    #[test]
    fn gives_up_passing_over_when_patience_ends() {
        let mut turns = Turns::default();
        for n in 0..100 {
            turns.push(&path(n, 1), &|_| false, u64::from(n));
        }
        let last = path(99, 1);
        let others = |prefix| !last.contains(&prefix);
        assert_eq!(turns.pop(&others, &mut 20), None);
        let found = (0..6).find_map(|_| turns.pop(&others, &mut 20));
        assert_eq!(found, Some(99), "what was passed over went to the end");
    }

    #[test]
    fn forgets_who_left() {
        let mut turns = Turns::default();
        turns.push(&path(1, 1), &|_| true, 1);
        turns.push(&path(1, 1), &|_| true, 2);
        assert!(turns.remove(&path(1, 1), 1) && !turns.remove(&path(1, 1), 1));
        assert_eq!(turns.first(), Some(2));
        assert!(turns.remove(&path(1, 1), 2));
        assert!(turns.is_empty() && turns.fresh.is_empty() && turns.below.is_empty());
    }
}
