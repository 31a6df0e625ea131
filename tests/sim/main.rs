//! Many runs of peers that meet everything a network and an operator can do to them, each run from a seed.
//!
//! `ENDPOINT_SIM_SEED=N cargo test -p endpoint-tests --test sim -- no_data --nocapture` runs one seed and tells
//! what happened.
//!
//! What a seed repeats: what happens and when, the network's part of it down to each datagram, and the chance in
//! the carrier. Not repeated: keys of TLS, connection ids, the order in which a table of connections is walked,
//! and which of two branches that are ready at one instant tokio takes.

mod calls;
mod model;
mod network;
mod plan;
mod socket;
mod world;

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use endpoint_tests::count;

use self::{
    plan::Plan,
    world::{Outcome, Weakness, run},
};

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// A panic, which can end the process before a run has ended, names its seed too.
fn name_the_seed_of_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("ENDPOINT_SIM_SEED={}", SEED.get());
            tell(info);
        }));
    });
}

/// Runs a seed on a runtime of its own, whose time stands still unless nothing is left to do.
fn simulate(seed: u64, weakness: Weakness, tells: bool) -> Outcome {
    name_the_seed_of_a_panic();
    SEED.set(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run(&Plan::of(seed), weakness, tells))
}

/// Runs the seeds from 1 to `seeds` on all cores.
fn simulate_all(seeds: u64, each: impl Fn(u64, Outcome) + Sync) {
    let next = AtomicU64::new(1);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > seeds {
                        return;
                    }
                    each(seed, simulate(seed, Weakness::None, false));
                }
            });
        }
    });
}

fn asked() -> Option<u64> {
    let seed = std::env::var("ENDPOINT_SIM_SEED").ok()?;
    Some(seed.parse().expect("ENDPOINT_SIM_SEED is a number"))
}

#[derive(Default)]
struct Tally {
    calls: BTreeMap<&'static str, usize>,
    taken: usize,
    failed: Vec<(u64, Vec<String>)>,
}

#[test]
fn no_data_reaches_a_wrong_identity_every_call_ends_in_time_and_nothing_is_left() {
    if let Some(seed) = asked() {
        let outcome = simulate(seed, Weakness::None, true);
        println!("{:#?}", Plan::of(seed));
        println!("{}\n{:?}", outcome.trace.1.join("\n"), outcome.calls);
        assert!(outcome.broken.is_empty(), "seed {seed}: {:#?}", outcome.broken);
        return;
    }
    let seeds = count(2_000, 200_000) as u64;
    let (began, tally) = (Instant::now(), Mutex::new(Tally::default()));
    simulate_all(seeds, |seed, outcome| {
        let mut tally = tally.lock().expect("a lock");
        tally.taken += outcome.taken;
        for (end, count) in outcome.calls {
            *tally.calls.entry(end).or_default() += count;
        }
        if !outcome.broken.is_empty() {
            println!("ENDPOINT_SIM_SEED={seed}: {:?}", outcome.broken);
            tally.failed.push((seed, outcome.broken));
        }
    });
    let Tally { calls, taken, failed } = tally.into_inner().expect("a lock");
    println!(
        "acceptance: {seeds} seeds in {:.0?}: {taken} messages taken, calls ended {calls:?}, {} seeds \
         broke an invariant",
        began.elapsed(),
        failed.len()
    );
    assert!(failed.is_empty(), "run the first with ENDPOINT_SIM_SEED={}: {failed:#?}", failed[0].0);
    // A run in which nothing works shows nothing.
    assert!(calls["ok"] as u64 > 2 * seeds, "only {} messages came back", calls["ok"]);
    for end in ["not authorised", "another key", "silent", "restarted", "closed", "no answer"] {
        assert!(calls.contains_key(end), "no call ended by {end:?}: {calls:?}");
    }
}

/// The runs of a weakened twin, until one breaks what is expected.
fn breaks(weakness: Weakness, what: &str) {
    let broken = |seed| simulate(seed, weakness, false).broken;
    let found = (1..=TWIN_SEEDS).find(|seed| broken(*seed).iter().any(|line| line.contains(what)));
    assert!(found.is_some(), "{weakness:?}: none of {TWIN_SEEDS} seeds broke {what:?}");
}

/// Seeds within which a mistake has to show.
const TWIN_SEEDS: u64 = 300;

#[test]
fn the_simulation_notices_a_rule_that_lets_every_key_in() {
    breaks(Weakness::Open, "which is not allowed, was taken");
}

#[test]
fn the_simulation_notices_peers_that_send_from_outside_of_their_network() {
    breaks(Weakness::Anywhere, "from outside of its network was taken");
}

#[test]
fn the_simulation_notices_a_revocation_that_is_not_told() {
    breaks(Weakness::Deaf, "which is not allowed, was taken");
}

#[test]
fn the_simulation_notices_diallers_that_take_any_key() {
    breaks(Weakness::Trusting, "data for a wrong identity was taken");
}

#[test]
fn the_simulation_notices_what_is_not_given_back() {
    breaks(Weakness::Leaky, "tasks are left");
}

#[test]
fn the_simulation_notices_calls_without_a_deadline() {
    breaks(Weakness::Patient, "took more than");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let seeds = 1..=count(40, 400) as u64;
    let total = *seeds.end();
    let same = |seed: &u64| {
        let [one, other] = [(); 2].map(|()| simulate(*seed, Weakness::None, false));
        (one.trace.0, one.calls, one.taken) == (other.trace.0, other.calls, other.taken)
    };
    let same = seeds.filter(same).count() as u64;
    println!(
        "acceptance: {same} of {total} seeds gave every datagram at the same millisecond again"
    );
    assert!(same * 10 >= total * 9, "only {same} of {total} seeds gave the same run again");
}
