//! Who goes when limits are lowered?
//!
//! Part of [`Table`]. Connections without a grant, the longest silent first and those with something under way
//! last. Handshakes and those who wait end at their deadlines.

use tokio::time::Instant;

use super::{
    filter::{Filter, Id},
    record::Kind,
    table::{Entry, Table},
};

impl Table {
    /// Ends what is above the limits; gives how many that are.
    pub(super) fn trim(&mut self, now: Instant) -> usize {
        let strangers = self.records.total(Kind::Stranger);
        let above_theirs = strangers.saturating_sub(self.budget.strangers.total);
        // Where peers are more than all that there may be, no stranger stays.
        let above_all = self.connections().saturating_sub(self.budget.connections);
        let above = above_theirs.max(above_all.min(strangers));
        if above == 0 {
            return 0;
        }
        let of = |(id, entry): (&Id, &Entry)| {
            let since = entry.activity.silent_since();
            (entry.kind() == Some(Kind::Stranger)).then_some((since.is_none(), since, *id))
        };
        let mut all: Vec<_> = self.entries.iter().filter_map(of).collect();
        all.sort_unstable();
        for (_, _, id) in all.into_iter().take(above) {
            self.oust(id, now);
        }
        above
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use futures_util::FutureExt;

    use super::*;
    use crate::{
        admission::{Arrival, Who},
        config::Limits,
        facts::Carrier,
        phase::{Activity, Phase},
    };

    /// Connections of one address each, a second apart.
    fn connect(table: &mut Table, who: Who, hosts: std::ops::Range<u8>) -> Vec<Activity> {
        let start = Instant::now();
        let one = |host: u8| {
            let at = start + Duration::from_secs(host.into());
            let activity = Activity::new(at);
            activity.enter(Phase::Shaken, at);
            let address = Ipv4Addr::new(10, 0, host, 1).into();
            let arrival = Arrival { address, carrier: Carrier::Quic, activity: activity.clone() };
            table.proven(arrival, who, at).unwrap();
            activity
        };
        hosts.map(one).collect()
    }

    fn told(activities: &[Activity]) -> Vec<bool> {
        activities.iter().map(|one| one.gave_way().now_or_never().is_some()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn lowered_connections_end_the_longest_silent_strangers_and_no_peer() {
        let mut table = Table::new(&Limits::default());
        let strangers = connect(&mut table, Who::Stranger, 0..6);
        let peers = connect(&mut table, Who::Known, 10..14);
        let later = Instant::now() + Duration::from_secs(60);
        let _busy = strangers[0].begin(move || later);
        // Three quarters of four are for strangers.
        assert_eq!(table.set_limits(&Limits::default().connections(4), later), 6);
        assert!(told(&strangers).iter().all(|told| *told), "peers fill all that there may be");
        assert!(told(&peers).iter().all(|told| !told));
        assert_eq!(table.connections(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_busy_goes_last_and_a_raised_limit_ends_nobody() {
        let mut table = Table::new(&Limits::default());
        let strangers = connect(&mut table, Who::Stranger, 0..6);
        let later = Instant::now() + Duration::from_secs(60);
        let _busy = strangers[0].begin(move || later);
        assert_eq!(table.set_limits(&Limits::default().connections(20_000), later), 0);
        assert_eq!(table.set_limits(&Limits::default().connections(4), later), 3);
        assert_eq!(told(&strangers), [false, true, true, true, false, false]);
        assert_eq!(table.set_limits(&Limits::default().connections(4), later), 0, "once");
        assert_eq!(table.set_limits(&Limits::default().connections(1), later), 2);
        assert_eq!(told(&strangers), [false, true, true, true, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn lowered_shares_and_memory_hold_from_then_on() {
        let mut table = Table::new(&Limits::default());
        let lowered = Limits::default().waiting_connections(1).tracked_prefixes(1);
        table.set_limits(&lowered, Instant::now());
        assert_eq!(table.budget.waiting(Carrier::Tcp), 1);
        let arrive = |table: &mut Table, host| {
            let activity = Activity::new(Instant::now());
            let address = Ipv4Addr::new(10, 0, host, 1).into();
            table.arrive(Arrival { address, carrier: Carrier::Tcp, activity }, Instant::now())
        };
        arrive(&mut table, 1).unwrap();
        arrive(&mut table, 2).unwrap();
        assert_eq!(table.records.total(Kind::Waiting(Carrier::Tcp)), 1, "one gave way");
    }
}
