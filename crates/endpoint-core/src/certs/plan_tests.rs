//! Does the plan keep its promises, for each rule and for anything that may come?

use proptest::prelude::*;

use super::*;
use crate::certs::history::{Failure, Suggested};

const ONE: &str = "https://one.example/dir";
const STAGING: &str = "https://staging.one.example/dir";
const TWO: &str = "https://two.example/dir";
const PLAIN: &[Directory<'_>] = &[Directory { url: ONE, staging: None }];
const STAGED: &[Directory<'_>] = &[Directory { url: ONE, staging: Some(STAGING) }];
const BOTH: &[Directory<'_>] =
    &[Directory { url: ONE, staging: None }, Directory { url: TWO, staging: None }];

fn start() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start() + jiff::SignedDuration::from_secs(seconds)
}

fn valid(seconds: i64) -> Option<Validity> {
    Some(Validity { from: start(), until: after(seconds) })
}

fn given<'a>(history: &'a History, directories: &'a [Directory<'a>]) -> Given<'a> {
    Given {
        now: start(),
        held: None,
        leaf: None,
        renew_before: None,
        directories,
        history,
        seed: 7,
        forced: false,
    }
}

const ORDER: Plan = Plan::Order { authority: 0, staging: false };

/// Seconds from the start until the first order, asking for windows in vain.
fn first_order(given: &Given<'_>) -> i64 {
    let mut now = given.now;
    loop {
        match plan(&Given { now, ..*given }) {
            Plan::Wait { until, .. } => {
                assert!(until > now, "a plan waits for the future");
                now = until;
            }
            Plan::Order { .. } => return now.duration_since(start()).as_secs(),
            Plan::AskWindow { .. } => panic!("no leaf to ask about"),
        }
    }
}

#[test]
fn orders_at_once_where_nothing_is_held() {
    let history = History::default();
    assert_eq!(plan(&given(&history, PLAIN)), ORDER);
}

#[test]
fn renews_in_the_last_third_or_the_last_thirty_days() {
    let history = History::default();
    let day = 86_400;
    // Lifetime, renew_before in days; earliest and latest renewal, in seconds.
    let rows = [
        (90 * day, None, 60 * day, 63 * day),
        (398 * day, None, 368 * day, 371 * day),
        (90 * day, Some(10), 80 * day, 81 * day),
        (6 * day, Some(30), 4 * day, 4 * day + day / 5),
        (30, None, 20, 21),
        (30, Some(30), 20, 21),
        // Not later than the last twentieth, whatever was asked for.
        (100 * day, Some(0), 95 * day, 95 * day),
    ];
    for (life, renew_before, from, to) in rows {
        let given = Given {
            held: valid(life),
            renew_before: renew_before.map(|days| Duration::from_secs(days * 86_400)),
            ..given(&history, PLAIN)
        };
        let at = first_order(&given);
        assert!((from..=to).contains(&at), "{life} s, {renew_before:?}: after {at} s");
    }
}

#[test]
fn a_clock_before_the_certificate_orders_nothing() {
    let history = History::default();
    let now = after(-3600);
    let given = Given { now, held: valid(86_400), ..given(&history, PLAIN) };
    assert_eq!(plan(&given), Plan::Wait { until: start(), why: Why::Clock });
}

fn suggesting(window: Option<(i64, i64)>, ask_at: i64) -> History {
    let moment = |seconds| after(seconds).into();
    let suggested = Suggested {
        leaf: "leaf".to_owned(),
        window: window.map(|(from, to)| (moment(from), moment(to))),
        ask_at: moment(ask_at),
    };
    History { suggested: Some(suggested), ..History::default() }
}

#[test]
fn obeys_the_window_until_the_last_twentieth() {
    let life = 100_000;
    let rows = [
        // Window, earliest and latest renewal.
        (Some((10_000, 20_000)), 10_000, 20_000),
        (Some((80_000, 90_000)), 80_000, 90_000),
        (Some((99_000, 99_500)), 95_000, 95_000),
        // No window at all: end not after start.
        (Some((20_000, 20_000)), 66_666, 70_001),
        (Some((20_000, 10_000)), 66_666, 70_001),
        (None, 66_666, 70_001),
    ];
    for (window, from, to) in rows {
        let history = suggesting(window, 1_000_000);
        for seed in 0..50 {
            let given = Given {
                held: valid(life),
                leaf: Some(("leaf", 0)),
                seed,
                ..given(&history, PLAIN)
            };
            let at = first_order(&given);
            assert!((from..=to).contains(&at), "{window:?}: after {at} s");
        }
    }
}

#[test]
fn asks_for_a_window_once_for_each_certificate_and_again_when_told() {
    let ask = Plan::AskWindow { authority: 0 };
    let new = History::default();
    let with = |history, now| Given {
        now: after(now),
        held: valid(100_000),
        leaf: Some(("leaf", 0)),
        ..given(history, PLAIN)
    };
    assert_eq!(plan(&with(&new, 0)), ask);
    let asked = suggesting(None, 21_600);
    let wait = Plan::Wait { until: after(21_600), why: Why::Fresh };
    assert_eq!(plan(&with(&asked, 100)), wait);
    assert_eq!(plan(&with(&asked, 21_600)), ask);
    // Of another certificate.
    let other = Given { leaf: Some(("other", 0)), ..with(&asked, 100) };
    assert_eq!(plan(&other), ask);
    // No time left for questions.
    assert_eq!(plan(&with(&new, 96_000)), ORDER);
}

#[test]
fn a_window_that_is_always_over_makes_no_loop() {
    let mut history = suggesting(Some((-1000, -500)), 1_000_000);
    history.issued = Some(start().into());
    let held = valid(90 * 86_400);
    let given = Given { held, leaf: Some(("leaf", 0)), ..given(&history, PLAIN) };
    assert_eq!(first_order(&given), 86_400);
}

#[test]
fn what_was_issued_and_is_of_no_use_is_not_ordered_at_once_again() {
    let history = History { issued: Some(start().into()), ..History::default() };
    assert_eq!(first_order(&given(&history, PLAIN)), 3600);
    let odd = Given { held: valid(-5), now: after(1), ..given(&history, PLAIN) };
    assert!(first_order(&odd) >= 5);
    assert_eq!(plan(&Given { forced: true, ..odd }), ORDER);
}

/// Lets every order fail in the same way; gives when they were made, and where.
fn failing(
    directories: &[Directory<'_>],
    failure: Failure,
    retry_after: Option<u64>,
    until: i64,
) -> Vec<(i64, String)> {
    let mut history = History::default();
    let mut now = start();
    let mut orders = Vec::new();
    while now < after(until) {
        match plan(&Given { now, ..given(&history, directories) }) {
            Plan::Wait { until, .. } => now = until,
            Plan::Order { authority, staging } => {
                let directory = directories[authority];
                let url = if staging { directory.staging.unwrap() } else { directory.url };
                let twin = staging.then_some(directory.url);
                let wait = retry_after.map(Duration::from_secs);
                orders.push((now.duration_since(start()).as_secs(), url.to_owned()));
                history.begin(url, now);
                history.failed(url, twin, failure, wait, "no", now);
            }
            Plan::AskWindow { .. } => panic!("nothing is held"),
        }
    }
    orders
}

#[test]
fn waits_longer_after_each_failure_up_to_six_hours() {
    let orders = failing(PLAIN, Failure::Refused, None, 3 * 86_400);
    let gaps: Vec<i64> = orders.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let wanted = [60, 600, 1800, 3600, 7200, 14_400, 21_600, 21_600];
    for (gap, wanted) in gaps.iter().zip(wanted) {
        assert!((wanted..=wanted + wanted / 10 + 1).contains(gap), "{gaps:?}");
    }
    assert!(gaps.iter().all(|gap| *gap <= 21_600));
}

#[test]
fn a_silent_authority_is_asked_again_after_seconds_then_minutes() {
    let orders = failing(PLAIN, Failure::Unavailable, None, 86_400);
    let gaps: Vec<i64> = orders.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let wanted = [5, 15, 60, 120, 300, 600, 1800, 3600, 3600];
    for (gap, wanted) in gaps.iter().zip(wanted) {
        assert!((wanted..=wanted + wanted / 4 + 1).contains(gap), "{gaps:?}");
    }
}

#[test]
fn obeys_retry_after_to_the_second_and_waits_an_hour_for_a_limit_without_one() {
    for failure in [Failure::Limited, Failure::Unavailable, Failure::Refused] {
        let orders = failing(PLAIN, failure, Some(7200), 86_400);
        let gaps: Vec<i64> = orders.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.iter().all(|gap| *gap >= 7200), "{failure:?} {gaps:?}");
        assert_eq!(gaps[0], 7200);
    }
    let orders = failing(PLAIN, Failure::Limited, None, 20_000);
    assert_eq!(orders[1].0, 3600);
    // One that asks for little does not get more orders for it.
    let orders = failing(PLAIN, Failure::Limited, Some(1), 3600);
    assert!(orders.len() <= PER_HOUR, "{orders:?}");
}

#[test]
fn an_operator_cannot_overdraw_the_budget_nor_what_the_authority_asked_for() {
    let mut history = History::default();
    history.failed(ONE, None, Failure::Refused, None, "no", start());
    let forced = |history: &History, now| {
        plan(&Given { now: after(now), forced: true, ..given(history, PLAIN) })
    };
    assert_eq!(forced(&history, 1), ORDER, "one failure leaves another try");
    history.failed(ONE, None, Failure::Refused, None, "no", after(1));
    let Plan::Wait { until, why: Why::Budget } = forced(&history, 2) else { panic!() };
    assert!(until >= after(600) && until <= after(601));
    let mut limited = History::default();
    limited.failed(ONE, None, Failure::Limited, Some(Duration::from_secs(900)), "no", start());
    assert_eq!(forced(&limited, 1), Plan::Wait { until: after(900), why: Why::Asked });
}

#[test]
fn tries_staging_after_a_refusal_and_production_when_that_works() {
    let orders = failing(STAGED, Failure::Refused, None, 86_400);
    assert_eq!(orders[0].1, ONE);
    assert!(orders[1..].iter().all(|(_, url)| url == STAGING), "{orders:?}");
    let mut history = History::default();
    history.failed(ONE, None, Failure::Refused, None, "no", start());
    let staged = Plan::Order { authority: 0, staging: true };
    let at = |history: &History, now| plan(&Given { now: after(now), ..given(history, STAGED) });
    assert_eq!(at(&history, 70), staged);
    history.succeeded(STAGING, Some(ONE), after(70));
    assert_eq!(at(&history, 70), ORDER);
    history.failed(ONE, None, Failure::Refused, None, "no", after(70));
    assert_eq!(at(&history, 1000), staged, "it is refused there only: staging comes first again");
    // A staging environment that is down must not keep production waiting for ever.
    for i in 0..3 {
        history.failed(STAGING, Some(ONE), Failure::Unavailable, None, "no", after(1000 + i));
    }
    assert_eq!(at(&history, 100_000), ORDER);
}

#[test]
fn goes_on_to_the_next_authority_after_three_strikes_and_at_once_after_a_limit() {
    let hosts = |orders: &[(i64, String)]| -> Vec<usize> {
        orders.iter().map(|(_, url)| if url == ONE { 1 } else { 2 }).collect()
    };
    let orders = failing(BOTH, Failure::Unavailable, None, 600);
    assert_eq!(hosts(&orders)[..6], [1, 1, 1, 2, 2, 2]);
    let orders = failing(BOTH, Failure::Refused, None, 86_400);
    assert_eq!(hosts(&orders)[..6], [1, 1, 1, 2, 2, 2]);
    let orders = failing(BOTH, Failure::Limited, None, 600);
    assert_eq!(hosts(&orders)[..2], [1, 2]);
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_everything() {
    let mut history = History::default();
    let future = after(10 * 365 * 86_400);
    for _ in 0..5 {
        history.failed(ONE, None, Failure::Refused, None, "no", future);
    }
    let Plan::Wait { until, .. } = plan(&given(&history, PLAIN)) else { panic!() };
    assert!(until <= after(6 * 3600));
}

fn failures() -> impl Strategy<Value = (Failure, Option<u64>)> {
    let failure =
        prop_oneof![Just(Failure::Refused), Just(Failure::Limited), Just(Failure::Unavailable)];
    (failure, proptest::option::of(0_u64..100_000))
}

proptest! {
    /// Whatever an authority answers and however often an operator insists.
    #[test]
    fn never_overdraws_the_budget(
        answers in proptest::collection::vec((failures(), 0_i64..1200, any::<bool>()), 1..120),
        two in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let directories: &[Directory<'_>] = if two { BOTH } else { STAGED };
        let mut history = History::default();
        let mut now = start();
        let mut counted: Vec<Timestamp> = Vec::new();
        let mut limits: Vec<(String, Timestamp)> = Vec::new();
        for ((failure, retry_after), step, forced) in answers {
            now = later(now, Duration::from_secs(step.cast_unsigned()));
            let given = Given { now, forced, seed, ..given(&history, directories) };
            match plan(&given) {
                Plan::Wait { until, .. } => prop_assert!(until > now),
                Plan::AskWindow { .. } => prop_assert!(false, "nothing is held"),
                Plan::Order { authority, staging } => {
                    let directory = directories[authority];
                    let url = if staging { directory.staging.unwrap() } else { directory.url };
                    for (asked, until) in &limits {
                        prop_assert!(asked != url || now >= *until, "asked to wait until {until}");
                    }
                    let wait = retry_after.map(Duration::from_secs);
                    let twin = staging.then_some(directory.url);
                    history.begin(url, now);
                    history.failed(url, twin, failure, wait, "no", now);
                    limits.retain(|(asked, _)| asked != url);
                    if let Some(wait) = wait {
                        limits.push((url.to_owned(), later(now, wait)));
                    }
                    if failure != Failure::Unavailable {
                        counted.push(now);
                    }
                }
            }
        }
        for (place, first) in counted.iter().enumerate() {
            let within = |time| {
                counted[place..].iter().filter(|at| **at <= later(*first, time)).count()
            };
            prop_assert!(within(HOUR) <= PER_HOUR);
            prop_assert!(within(FIRST) <= AT_FIRST);
        }
    }

    /// Any certificate, any window, any moment: a plan, and one that waits for the future.
    #[test]
    fn never_loops_and_never_sleeps_past_the_end(
        life in -10_i64..40_000_000,
        now in -100_i64..40_000_000,
        window in proptest::option::of((-1000_i64..50_000_000, -1000_i64..50_000_000)),
        renew_before in proptest::option::of(0_u64..100_000_000),
        seed in any::<u64>(),
    ) {
        let history = suggesting(window, 100_000_000);
        let given = Given {
            now: after(now),
            held: valid(life),
            leaf: Some(("leaf", 0)),
            renew_before: renew_before.map(Duration::from_secs),
            seed,
            ..given(&history, PLAIN)
        };
        match plan(&given) {
            Plan::Wait { until, why } => {
                prop_assert!(until > after(now));
                prop_assert!(why == Why::Clock || until <= after(life));
            }
            Plan::Order { .. } => prop_assert!(now >= 0),
            Plan::AskWindow { .. } => prop_assert!(false, "the window is known"),
        }
    }
}
