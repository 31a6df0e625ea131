//! Could this comment be meant as something that restricts, or as a key?
//!
//! A comment admits from everywhere, so whatever a writer can have meant as an option or as a second key
//! is a fault, and a comment that wants such letters stands on a `#` line of its own
//! (`adr/0046-a-comment-is-only-words.md`).
//!
//! Always true: no assignment, quote, key, address, network or marker passes for words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{line::is_blank, options};
use crate::identity::KeyText;

/// Where a comment could mean more than words: byte and length within it, and what it looks like.
pub(super) struct Doubt {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) what: &'static str,
}

/// The first place of `comment` that could mean more than words.
pub(super) fn doubt(comment: &str) -> Option<Doubt> {
    let words = || words(comment);
    let in_word = |at: usize, word: &str, what| Doubt { at, length: word.len(), what };
    if let Some((at, word)) = words().find(|(_, word)| is_option(word)) {
        return Some(in_word(at, word, OPTION));
    }
    if let Some((at, word)) = words().find(|(_, word)| is_key(word)) {
        return Some(in_word(at, word, "a second key stands in the comment"));
    }
    if let Some((at, c)) = comment.char_indices().find(|(_, c)| ASSIGNS.contains(c)) {
        return Some(Doubt { at, length: c.len_utf8(), what: "a comment holds no `=`" });
    }
    if let Some((at, c)) = comment.char_indices().find(|(_, c)| QUOTES.contains(c)) {
        return Some(Doubt { at, length: c.len_utf8(), what: "a comment holds no `\"`" });
    }
    if let Some((at, word)) = words().find(|(_, word)| is_place(word)) {
        return Some(in_word(at, word, "an address in a comment restricts nothing"));
    }
    let names = words().zip(words().skip(1));
    for ((at, word), (next_at, next)) in names {
        if speaks_of(word, next) {
            return Some(Doubt { at, length: next_at + next.len() - at, what: OPTION });
        }
    }
    if let Some((at, word)) = words().find(|(_, word)| is_marker(word)) {
        return Some(in_word(at, word, OPTION));
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

/// `from=…` and its like, also `from:`.
fn is_option(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name = word.split(|c: char| c == ':' || ASSIGNS.contains(&c)).next().unwrap_or_default();
    let more = word.get(name.len()..).is_some_and(|rest| !rest.is_empty());
    more && options::restricts(name)
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

/// An address or a network, also one of which a form is wrong. `root@192.0.2.1` is neither.
fn is_place(word: &str) -> bool {
    word.split([',', ';']).any(|part| {
        let part = part.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':' && c != '*');
        let host = part.split(['/', '-', ']', '%']).next().unwrap_or_default();
        let is_ipv4 = host.split('.').count() == 4
            && host.split('.').all(|n| {
                n == "*" || ((1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
            });
        let with_port = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let trimmed = host.strip_suffix(':').unwrap_or(host);
        let is_ipv6 = |text: &str| text.len() > 2 && text.parse::<Ipv6Addr>().is_ok();
        is_ipv4 || with_port.parse::<Ipv4Addr>().is_ok() || is_ipv6(host) || is_ipv6(trimmed)
    })
}

/// Whether two words that follow each other read like an option and its value.
fn speaks_of(word: &str, next: &str) -> bool {
    let plain = |text: &str| -> String {
        text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase()
    };
    let (name, value) = (plain(word), plain(next));
    let begins_with_digit = value.starts_with(|c: char| c.is_ascii_digit());
    match options::synonym(&name) {
        // `from 10.0.0.*`, `from !host`, not `from 3 to 5`.
        Some("from") => {
            next.starts_with('!')
                || next.contains('*')
                || (begins_with_digit && next.contains(['.', ':', '/']))
        }
        Some("expires" | "max-connections") => begins_with_digit,
        // No word of English: nobody writes it by chance.
        Some("alpn") => name == "alpn",
        _ => false,
    }
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
        word.contains(char::is_alphanumeric)
            && !is_key(word)
            && !is_place(word)
            && !is_marker(word)
            && word.parse::<IpAddr>().is_err()
    });
    let text = words.collect::<Vec<_>>().join(" ");
    if doubt(&text).is_some() { String::new() } else { text }
}

const OPTION: &str = "an option stands after the key, where it has no effect";
/// Equals signs, also those of other scripts.
pub(super) const ASSIGNS: [char; 3] = ['=', '\u{fe66}', '\u{ff1d}'];
/// Double quotes, also typographic ones and the opening single one.
pub(super) const QUOTES: [char; 9] = [
    '"', '\u{201c}', '\u{201d}', '\u{201e}', '\u{201f}', '\u{ab}', '\u{bb}', '\u{ff02}', '\u{2018}',
];
const MARKERS: [&str; 4] = ["cert-authority", "restrict", "revoked", "trust-identity"];
/// Hex digits that are no longer a commit or a UUID.
const SHORTEST_HEX: usize = 48;
/// Characters after which base64 that begins with `AAAA` is a key.
const SHORTEST_BLOB: usize = 24;
