//! Many runs of peers that meet everything a network and an operator can do to them, each run from a seed.
//!
//! `ENDPOINT_SIM_SEED=N cargo test -p endpoint-tests --test sim` runs one seed and tells what happened.

mod model;
mod network;
mod plan;
mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use endpoint_tests::count;

use self::{
    plan::Plan,
    world::{Outcome, Weakness, run},
};

/// Runs a seed on a runtime of its own, whose time stands still unless nothing is left to do.
fn simulate(seed: u64, weakness: Weakness, tells: bool) -> Outcome {
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
