//! What is to be done about a certificate, and when?
//!
//! Pure: time is an argument, and the jitter comes from a seed. Not here: doing it (`acme`).
//!
//! Always true, whatever the authority answers: at most [`PER_HOUR`] failing orders an hour a name, at most
//! [`AT_FIRST`] in any [`FIRST`]; nothing is ordered before the time that an authority asked to wait for;
//! a certificate that was just issued is not ordered again, however short its life and however odd its dates.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::{
    history::{History, NEXT_AFTER},
    pace::later,
    validity::Validity,
};

/// Failing orders that a name may cost within an hour. Let's Encrypt allows five failed validations.
pub(crate) const PER_HOUR: usize = 4;
/// Failing orders within [`FIRST`].
pub(crate) const AT_FIRST: usize = 2;
/// See [`AT_FIRST`].
pub(crate) const FIRST: Duration = Duration::from_secs(600);

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long before its end a certificate is renewed, if nobody said otherwise.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Waits after failing orders; the last one for all that follow.
const AFTER_FAILURES: [Duration; 7] =
    [minutes(1), minutes(10), minutes(30), minutes(60), minutes(120), minutes(240), minutes(360)];
/// Waits after an authority did not answer.
const AFTER_SILENCE: [Duration; 8] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    minutes(1),
    minutes(2),
    minutes(5),
    minutes(10),
    minutes(30),
    minutes(60),
];
/// The shortest time between an issue and the next order that nobody forced.
const SETTLE: Duration = Duration::from_secs(5);

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// An authority, as far as the plan needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a> {
    /// Its URL.
    pub(crate) url: &'a str,
    /// Where an order is tried first after a refusal.
    pub(crate) staging: Option<&'a str>,
}

/// What the plan is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) now: Timestamp,
    /// The certificate that is held.
    pub(crate) held: Option<Validity>,
    /// The digest of its leaf, and which of the authorities issued it.
    pub(crate) leaf: Option<(&'a str, usize)>,
    pub(crate) renew_before: Option<Duration>,
    /// In the order in which they are tried.
    pub(crate) directories: &'a [Directory<'a>],
    pub(crate) history: &'a History,
    /// Another one for each name.
    pub(crate) seed: u64,
    /// An operator asked for it.
    pub(crate) forced: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plan {
    /// Nothing until then.
    Wait {
        /// When to plan again.
        until: Timestamp,
        /// What is waited for.
        why: Why,
    },
    /// Order at that authority, or at its staging twin.
    Order {
        /// Its place in [`Given::directories`].
        authority: usize,
        staging: bool,
    },
    /// Ask that authority when it wants the certificate renewed (RFC 9773).
    AskWindow {
        /// Its place in [`Given::directories`].
        authority: usize,
    },
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Why {
    /// The authority asked us to wait.
    Asked,
    /// The pause after a failure.
    BackOff,
    /// The failure budget is spent.
    Budget,
    /// The certificate is not valid yet: this machine's clock is behind, or the authority's ahead.
    Clock,
    /// The certificate is fresh.
    Fresh,
    /// One was issued a moment ago.
    JustIssued,
    /// No authority is configured.
    Nobody,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "order, when the authority's limit ends",
            Self::BackOff => "order again after a failure",
            Self::Budget => "order, when the failure budget allows it",
            Self::Clock => {
                "look again: the certificate is not valid yet; is this machine's clock right?"
            }
            Self::Fresh => "renew",
            Self::JustIssued => "order, if the one just issued is still of no use",
            Self::Nobody => "nothing: no authority is configured",
        })
    }
}

/// Makes the plan.
pub(crate) fn plan(given: &Given<'_>) -> Plan {
    let Given { now, history, .. } = *given;
    let wait = |until, why| Plan::Wait { until, why };
    if given.directories.is_empty() {
        return wait(later(now, DAY), Why::Nobody);
    }
    if !given.forced {
        match need(given) {
            Need::Now => {}
            Need::At(at, why) if at > now => {
                return match given.leaf {
                    Some((leaf, authority)) if why == Why::Fresh && asks(given, leaf) => {
                        Plan::AskWindow { authority }
                    }
                    _ => wait(at.min(next_ask(given).unwrap_or(at)), why),
                };
            }
            Need::At(..) => {
                // Due by the rule of thumb; but the authority may know better, unless time is short.
                if let (Some((leaf, authority)), Some(held)) = (given.leaf, given.held)
                    && asks(given, leaf)
                    && now < emergency(held)
                {
                    return Plan::AskWindow { authority };
                }
            }
        }
    }
    let (authority, staging, ready, why) = choose(given);
    let (budget, spent) = (budget(history, now), Why::Budget);
    let (at, why) = if budget > ready { (budget, spent) } else { (ready, why) };
    if at > now { wait(at, why) } else { Plan::Order { authority, staging } }
}

/// Until when the failure budget lets nobody order; the past, if it is not spent.
pub(crate) fn budget(history: &History, now: Timestamp) -> Timestamp {
    let allowed = |count: usize, within: Duration| {
        let nth = history.failed.len().checked_sub(count)?;
        // A moment after: an order exactly an hour later would still be the fifth within an hour.
        let moment = Duration::from_millis(1);
        history.failed.get(nth).map(|failed| later(failed.time(), within + moment))
    };
    let until = allowed(PER_HOUR, HOUR).max(allowed(AT_FIRST, FIRST));
    // A clock that was set back must not turn minutes into years.
    until.unwrap_or(Timestamp::MIN).min(later(now, HOUR + Duration::from_millis(1)))
}

/// Until when nobody may order, not even an operator; the past, if somebody may.
pub(crate) fn spent_until(given: &Given<'_>) -> Option<Timestamp> {
    let forced = Given { forced: true, ..*given };
    match plan(&forced) {
        Plan::Wait { until, .. } => Some(until),
        _ => None,
    }
}

/// When the certificate that is held is going to be renewed, as far as is known.
pub(crate) fn renewal(given: &Given<'_>) -> Option<Timestamp> {
    given.held.map(|held| due(given, held))
}

enum Need {
    Now,
    At(Timestamp, Why),
}

/// When a new certificate is needed.
fn need(given: &Given<'_>) -> Need {
    let Some(held) = given.held else {
        // None at hand, although one was issued: an order an hour is enough to find out why.
        return match given.history.issued {
            Some(issued) => {
                Need::At(later(issued.time(), HOUR).min(later(given.now, HOUR)), Why::JustIssued)
            }
            None => Need::Now,
        };
    };
    if given.now < held.from {
        return Need::At(held.from, Why::Clock);
    }
    let at = due(given, held);
    // Odd dates or odd windows must not make a loop of orders.
    if let Some(issued) = given.history.issued {
        // One that has ended is as good as none: an hour is enough to find out why.
        let longest = if given.now > held.until { HOUR } else { DAY };
        let settle = (lifetime(held) / 6).clamp(SETTLE, longest);
        let settled = later(issued.time(), settle).min(later(given.now, settle));
        if settled > at && settled > given.now {
            return Need::At(settled, Why::JustIssued);
        }
    }
    Need::At(at, Why::Fresh)
}

/// When the certificate that is held is to be renewed.
fn due(given: &Given<'_>, held: Validity) -> Timestamp {
    let life = lifetime(held);
    let margin = given.renew_before.unwrap_or(RENEW_BEFORE).min(life / 3);
    let rule = earlier(held.until, margin);
    let rule = later(rule, part(margin / 10, given.seed, held.until.as_second()));
    let at = window(given).map_or(rule, |(start, end)| {
        let width = Duration::try_from(end.duration_since(start)).unwrap_or_default();
        later(start, part(width, given.seed, end.as_second()))
    });
    at.min(emergency(held))
}

/// When the last twentieth of the life begins, where an authority's wishes no longer count.
fn emergency(held: Validity) -> Timestamp {
    earlier(held.until, lifetime(held) / 20)
}

/// The window that the authority suggested for the certificate that is held.
fn window(given: &Given<'_>) -> Option<(Timestamp, Timestamp)> {
    let suggested = given.history.suggested.as_ref()?;
    let (start, end) = suggested.window.filter(|_| Some(suggested.leaf.as_str()) == leaf(given))?;
    // RFC 9773 §4.2: the end comes after the start.
    (start < end).then(|| (start.time(), end.time()))
}

fn leaf<'a>(given: &Given<'a>) -> Option<&'a str> {
    given.leaf.map(|(leaf, _)| leaf)
}

/// Whether the authority should be asked for a window now.
fn asks(given: &Given<'_>, leaf: &str) -> bool {
    match &given.history.suggested {
        Some(suggested) if suggested.leaf == leaf => suggested.ask_at.time() <= given.now,
        _ => true,
    }
}

/// When the authority will be asked for a window.
fn next_ask(given: &Given<'_>) -> Option<Timestamp> {
    let suggested = given.history.suggested.as_ref()?;
    let at = suggested.ask_at.time();
    (Some(suggested.leaf.as_str()) == leaf(given) && at > given.now).then_some(at)
}

/// Who is asked for the next order, and from when on.
fn choose(given: &Given<'_>) -> (usize, bool, Timestamp, Why) {
    let strikes = |directory: &Directory<'_>| {
        given.history.tried(directory.url).map_or(0, |tried| tried.strikes)
    };
    let ready = |directory: &Directory<'_>| {
        let staging = staging(given, directory);
        let (at, why) = ready(given, if let Some(url) = staging { url } else { directory.url });
        // Whom its staging twin stands for may itself have asked to wait.
        let (own, own_why) = ready(given, directory.url);
        if own > at { (staging.is_some(), own, own_why) } else { (staging.is_some(), at, why) }
    };
    let candidates = given.directories.iter().enumerate();
    let first = candidates.clone().find(|(_, directory)| strikes(directory) < NEXT_AFTER);
    let chosen = first.or_else(|| candidates.min_by_key(|(_, directory)| ready(directory).1));
    match chosen {
        Some((place, directory)) => {
            let (staging, at, why) = ready(directory);
            (place, staging, at, why)
        }
        None => (0, false, given.now, Why::Nobody),
    }
}

/// The staging twin, if the next order goes there.
fn staging<'a>(given: &Given<'_>, directory: &Directory<'a>) -> Option<&'a str> {
    let twin = directory.staging?;
    let refused = given.history.tried(directory.url).is_some_and(|tried| tried.refused);
    let passed = given.history.passed.as_deref() == Some(directory.url);
    let silent = given.history.tried(twin).is_some_and(|tried| tried.silent >= NEXT_AFTER);
    (refused && !passed && !silent).then_some(twin)
}

/// From when on a directory may be asked for an order.
fn ready(given: &Given<'_>, url: &str) -> (Timestamp, Why) {
    let Given { now, history, seed, forced, .. } = *given;
    let mut at = (Timestamp::MIN, Why::Fresh);
    let mut consider = |until: Timestamp, why| {
        if until > at.0 {
            at = (until, why);
        }
    };
    let tried = history.tried(url);
    if let Some(asked) = tried.and_then(|tried| tried.wait_until) {
        consider(asked.time(), Why::Asked);
    }
    if forced {
        return at;
    }
    if let Some(tried) = tried
        && let (Some(last), Some(wait)) = (tried.last, step(&AFTER_SILENCE, tried.silent))
    {
        // Never in a far future, if the clock was set back.
        let wait = wait + part(wait / 4, seed, i64::from(tried.silent));
        consider(later(last.time(), wait).min(later(now, wait)), Why::BackOff);
    }
    let passed = history.passed.is_some();
    if let (Some(last), Some(wait)) =
        (history.failed.last().filter(|_| !passed), step(&AFTER_FAILURES, history.streak))
    {
        let longest = minutes(360);
        let wait = (wait + part(wait / 10, seed, i64::from(history.streak))).min(longest);
        consider(later(last.time(), wait).min(later(now, wait)), Why::BackOff);
    }
    at
}

/// The wait after that many failures in a row; none after none.
fn step(waits: &[Duration], count: u32) -> Option<Duration> {
    let place = usize::try_from(count.checked_sub(1)?).unwrap_or(usize::MAX);
    waits.get(place).or(waits.last()).copied()
}

/// Zero if the dates are the wrong way round.
fn lifetime(held: Validity) -> Duration {
    Duration::try_from(held.until.duration_since(held.from)).unwrap_or_default()
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// A part of `whole`, from nothing to all, that looks random and is the same each time.
fn part(whole: Duration, seed: u64, salt: i64) -> Duration {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut x = seed ^ salt.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let thousandths = u32::try_from((x ^ (x >> 31)) % 1001).unwrap_or(0);
    whole / 1000 * thousandths
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
