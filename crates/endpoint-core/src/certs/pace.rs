//! When is somebody asked again who gave no certificate?

use jiff::{SignedDuration, Timestamp, TimestampArithmetic};

/// The pause after that many failures in a row: seconds first, an hour at last.
pub(crate) fn after_failures(failures: u32) -> SignedDuration {
    SignedDuration::from_secs(match failures {
        0 | 1 => 5,
        2 => 15,
        3 => 60,
        4 => 5 * 60,
        5 => 15 * 60,
        _ => 60 * 60,
    })
}

/// The time after that pause, made longer by up to a tenth, so that many who began together spread out.
pub(crate) fn spread(now: Timestamp, pause: SignedDuration) -> Timestamp {
    let mut byte = [0];
    // Without randomness all ask at once, which is no more than a burden.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let tenth = pause.as_millis() / 10;
    let more = i64::try_from(tenth * i128::from(byte[0]) / 255).unwrap_or(0);
    later(now, pause + SignedDuration::from_millis(more))
}

/// That much later, or the end of time.
pub(crate) fn later(now: Timestamp, pause: impl Into<TimestampArithmetic>) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_by_a_tenth_at_most_and_never_backwards() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for failures in 0..9 {
            let pause = after_failures(failures);
            for _ in 0..50 {
                let at = spread(now, pause);
                assert!(at >= later(now, pause) && at <= later(now, pause * 11 / 10), "{at}");
            }
        }
        assert_eq!(spread(Timestamp::MAX, SignedDuration::from_secs(9)), Timestamp::MAX);
    }
}
