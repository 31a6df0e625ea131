//! Could this comment be meant as something that restricts, or as a key?
//!
//! A comment admits from everywhere, so whatever a writer can have meant as an option or as a second key
//! is a fault, and a comment that wants such letters stands on a `#` line of its own
//! (`adr/0046-a-comment-is-only-words.md`).
//!
//! Always true: no assignment, quote, key, address, network or marker passes for words.

use super::{line::is_blank, options, place};
use crate::identity::KeyText;

/// Where a comment could mean more than words: byte and length within it, and what it looks like.
pub(super) struct Doubt {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) what: &'static str,
}

/// The first place of `comment` that could mean more than words.
pub(super) fn doubt(comment: &str) -> Option<Doubt> {
    let all: Vec<_> = words(comment).map(|(at, word)| (at, word.len(), fold(word))).collect();
    let first = |is: fn(&str) -> bool, what| {
        let found = all.iter().find(|(_, _, word)| is(word));
        found.map(|(at, length, _)| Doubt { at: *at, length: *length, what })
    };
    let word =
        first(is_option, OPTION).or_else(|| first(is_key, "a second key stands in the comment"));
    if word.is_some() {
        return word;
    }
    if let Some((at, c)) = comment.char_indices().find(|(_, c)| ASSIGNS.contains(c)) {
        return Some(Doubt { at, length: c.len_utf8(), what: "a comment holds no `=`" });
    }
    if let Some((at, c)) = comment.char_indices().find(|(_, c)| QUOTES.contains(c)) {
        return Some(Doubt { at, length: c.len_utf8(), what: "a comment holds no `\"`" });
    }
    if let Some(place) = first(place::is_place, PLACE) {
        return Some(place);
    }
    for (i, (at, _, word)) in all.iter().enumerate() {
        let next: Vec<_> = all.iter().skip(i + 1).take(3).collect();
        let texts: Vec<_> = next.iter().map(|(_, _, text)| text.as_str()).collect();
        if let Some(reach) = speaks_of(word, &texts)
            && let Some((last, length, _)) = next.get(reach)
        {
            return Some(Doubt { at: *at, length: last + length - at, what: OPTION });
        }
    }
    if let Some(marker) = first(is_marker, OPTION) {
        return Some(marker);
    }
    comment.ends_with('\\').then(|| Doubt {
        at: comment.len() - 1,
        length: 1,
        what: "a line does not go on in the next one",
    })
}

/// The words of a text and where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    let mut at = 0;
    text.split(is_blank).filter_map(move |word| {
        let begins = at;
        at += word.len() + 1;
        (!word.is_empty()).then_some((begins, word))
    })
}

/// The word in ASCII where it only looks like it: full-width letters and signs, and look-alikes of signs.
fn fold(word: &str) -> String {
    let fold = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => {
            u32::from(c).checked_sub(0xfee0).and_then(char::from_u32).unwrap_or(c)
        }
        '\u{2236}' | '\u{a789}' | '\u{2d0}' | '\u{fe55}' | '\u{fe13}' => ':',
        '\u{3002}' | '\u{ff61}' | '\u{2024}' | '\u{fe52}' | '\u{b7}' => '.',
        '\u{2044}' | '\u{2215}' | '\u{29f8}' => '/',
        '\u{2217}' | '\u{fe61}' | '\u{d7}' => '*',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' => '-',
        c => c,
    };
    word.chars().map(fold).collect()
}

/// `from=…` and its like: an option's name, or a word for it, with any sign and a value behind it.
fn is_option(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
    options::words_for_restrictions().any(|name| {
        let Some(rest) = word.strip_prefix(name) else { return false };
        let Some(sign) = rest.chars().next() else { return false };
        let value = rest.trim_start_matches(|c: char| !c.is_alphanumeric() && !"!*".contains(c));
        let digit = value.starts_with(|c: char| c.is_ascii_digit());
        let exact = options::restricts(name);
        let alpn = options::synonym(name) == Some("alpn");
        let from = options::synonym(name) == Some("from");
        match sign {
            ':' => true,
            sign if ASSIGNS.contains(&sign) => true,
            // `expire20261201`, `from10.0.0.0/8`, not `ip6`.
            '0'..='9' => exact || is_date(value) || (from && value.contains(['.', ':', '/'])),
            sign if sign.is_alphanumeric() => false,
            _ if value.is_empty() => false,
            '(' | '[' | '{' | '<' | '|' | '~' | '\'' | '`' | '>' => exact || alpn || digit,
            // `ip-10-0-0-1` is the name of a machine.
            _ if from && !exact => false,
            _ => name == "alpn" || digit || value.starts_with(['!', '*']),
        }
    })
}

/// `20261201`, `2026-12-01`, `202612010930Z` and their like.
fn is_date(text: &str) -> bool {
    let text = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let others = |c: char| c.is_ascii_digit() || "-./:tTzZ+".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit())
        && (8..=14).contains(&digits)
        && text.chars().all(others)
}

/// A key in any form, whole, cut, or of a kind that is refused; also with other letters around it.
fn is_key(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let prefixed = ["sha256:", "sha256//", "ed25519:", "-----begin", "md5:"];
    let ssh = ["ssh-ed25519", "ssh-rsa", "ssh-dss", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    if prefixed.iter().chain(&ssh).any(|form| lower.contains(form)) || KeyText::parse(word).is_ok()
    {
        return true;
    }
    // The base64 of an SSH key begins with the length of its kind, whatever the kind.
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/".contains(c);
    let blob = word.find("AAAA").and_then(|at| word.get(at..));
    let long = |text: &str| text.chars().take_while(|c| base64(*c)).count() >= SHORTEST_BLOB;
    if blob.is_some_and(long) {
        return true;
    }
    let mut digits = 0_usize;
    for c in word.chars() {
        digits = match c {
            c if c.is_ascii_hexdigit() => digits + 1,
            ':' => digits,
            _ => 0,
        };
        if digits >= SHORTEST_HEX {
            return true;
        }
    }
    false
}

/// Whether a word and those after it read like an option and its value; how many lie between.
fn speaks_of(word: &str, after: &[&str]) -> Option<usize> {
    let plain = |text: &str| -> String {
        text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase()
    };
    let name = plain(word);
    let next = after.first()?;
    let value = plain(next);
    let digit = value.starts_with(|c: char| c.is_ascii_digit());
    let is_it = match options::synonym(&name) {
        // `from 10.0.0.*`, `from !host`, not `from 3 to 5`.
        Some("from") => {
            next.starts_with('!') || next.contains('*') || (digit && next.contains(['.', ':', '/']))
        }
        Some("expires" | "max-connections") => digit,
        // No word of English: nobody writes it by chance.
        Some("alpn") => name == "alpn",
        _ => false,
    };
    if is_it {
        return Some(0);
    }
    // `net 10/8`, not `24/7`.
    if NETWORK.contains(&name.as_str()) && place::is_short_network(&value) {
        return Some(0);
    }
    // `max 3 connections`, `connections 3`.
    let counts = |text: &str| text.starts_with("connection") || text.starts_with("conns");
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if (number(&name) && counts(&value)) || (counts(&name) && number(&value)) {
        return Some(0);
    }
    // `valid 20261201`, `expires on 2026-12-01`.
    if options::synonym(&name) == Some("expires") || END.contains(&name.as_str()) {
        let fillers =
            after.iter().take_while(|word| FILLERS.contains(&plain(word).as_str())).count();
        return after.get(fillers).filter(|word| is_date(word)).map(|_| fillers);
    }
    None
}

/// Words that OpenSSH or a later release takes for options without a value.
fn is_marker(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    MARKERS.iter().any(|marker| word.eq_ignore_ascii_case(marker))
}

/// A comment without what is in doubt about it: plain words, as few as needed.
pub(super) fn plain(comment: &str) -> String {
    let spoken: String = comment
        .chars()
        .map(|c| if ASSIGNS.contains(&c) || QUOTES.contains(&c) { ' ' } else { c })
        .collect();
    let words = spoken.split(is_blank).filter(|word| {
        let folded = fold(word);
        word.contains(char::is_alphanumeric)
            && !is_key(&folded)
            && !place::is_place(&folded)
            && !is_marker(&folded)
    });
    let text = words.collect::<Vec<_>>().join(" ");
    if doubt(&text).is_some() { String::new() } else { text }
}

/// Whether a text holds what can only have been meant to restrict.
pub(super) fn restricts(text: &str) -> bool {
    doubt(text).is_some_and(|doubt| [OPTION, PLACE].contains(&doubt.what))
}

const PLACE: &str = "an address in a comment restricts nothing";
const OPTION: &str = "an option stands after the key, where it has no effect";
/// Equals signs, also those of other scripts.
pub(super) const ASSIGNS: [char; 3] = ['=', '\u{fe66}', '\u{ff1d}'];
/// Double quotes, also typographic ones and the opening single one.
pub(super) const QUOTES: [char; 9] = [
    '"', '\u{201c}', '\u{201d}', '\u{201e}', '\u{201f}', '\u{ab}', '\u{bb}', '\u{ff02}', '\u{2018}',
];
/// Words after which a short network is one.
const NETWORK: [&str; 12] = [
    "net", "network", "subnet", "cidr", "only", "range", "host", "source", "ip", "address", "from",
    "allow",
];
/// Words after which a date is an end.
const END: [&str; 10] = [
    "valid",
    "validity",
    "till",
    "through",
    "thru",
    "ends",
    "ending",
    "expired",
    "expiring",
    "not-after",
];
const FILLERS: [&str; 9] = ["on", "at", "by", "after", "to", "till", "the", "date", ""];
const MARKERS: [&str; 4] = ["cert-authority", "restrict", "revoked", "trust-identity"];
/// Hex digits that are no longer a commit or a UUID.
const SHORTEST_HEX: usize = 48;
/// Characters after which base64 that begins with `AAAA` is a key.
const SHORTEST_BLOB: usize = 24;
