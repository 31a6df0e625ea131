//! What did a person answer to a question of trust?
//!
//! Yes, no, or the fingerprint itself, as ssh takes it. Pure.

use endpoint_core::identity::{Fingerprint, KeyText};

/// What a line typed at the question means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Yes,
    No,
    /// A fingerprint, but of another key.
    Other,
    /// Ask again.
    Unclear,
}

/// Reads a line. A bare `y` is no yes: trust takes three letters.
pub(super) fn answer(line: &str, shown: Fingerprint) -> Answer {
    let line = line.trim();
    if line.eq_ignore_ascii_case("yes") {
        return Answer::Yes;
    }
    if line.eq_ignore_ascii_case("no") {
        return Answer::No;
    }
    match KeyText::parse(line) {
        Ok(key) if key.fingerprint() == shown => Answer::Yes,
        Ok(_) => Answer::Other,
        Err(_) => Answer::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_yes_no_or_the_fingerprint_and_asks_again_for_less() {
        let shown = Fingerprint::from_bytes([1; 32]);
        let other = Fingerprint::from_bytes([2; 32]);
        assert_eq!(answer("yes\n", shown), Answer::Yes);
        assert_eq!(answer("No\n", shown), Answer::No);
        assert_eq!(answer(&format!("{shown}\n"), shown), Answer::Yes);
        assert_eq!(answer(&format!("{other}\n"), shown), Answer::Other);
        for unclear in ["y\n", "\n", "ja\n", "sha256:0101\n"] {
            assert_eq!(answer(unclear, shown), Answer::Unclear, "{unclear}");
        }
    }
}
