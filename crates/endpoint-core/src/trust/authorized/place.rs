//! Does a word of a comment hold an address or a network? Also one that stands among other letters, or of which
//! a form is wrong. `root@192.0.2.1` is a user on a machine.

use std::net::{IpAddr, Ipv6Addr};

use super::options;

/// The word comes in ASCII where it only looks like it.
pub(super) fn is_place(word: &str) -> bool {
    !is_login(word) && (has_ipv4(word) || has_ipv6(word))
}

/// `10/8` and its like, which are networks only where words say so.
pub(super) fn is_short_network(text: &str) -> bool {
    let short = |n: &str, longest: usize| {
        (1..=longest).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit())
    };
    text.split_once('/')
        .is_some_and(|(address, bits)| address.split('.').all(|n| short(n, 3)) && short(bits, 2))
}

/// `user@192.0.2.1`, as `ssh-keygen` writes it.
fn is_login(word: &str) -> bool {
    let edge = |c: char| !c.is_ascii_alphanumeric() && c != ':';
    word.trim_matches(edge).split_once('@').is_some_and(|(user, host)| {
        let user = user.to_ascii_lowercase();
        let option = options::synonym(&user).is_some();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !user.is_empty()
            && user.chars().all(plain)
            && !option
            && !has_ipv4(&user)
            && host.parse::<IpAddr>().is_ok()
    })
}

fn has_ipv4(word: &str) -> bool {
    let number = |n: &str| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
    let quad = |run: &str, any: &[&str]| {
        let parts: Vec<_> = run.split('.').collect();
        parts.windows(4).any(|four| four.iter().all(|n| any.contains(n) || number(n)))
    };
    let signs = |c: char| !(c.is_ascii_digit() || ".*".contains(c));
    // `192.168.*`
    let open = |run: &str| {
        run.match_indices(".*").any(|(at, _)| {
            run.get(..at).is_some_and(|before| before.ends_with(|c: char| c.is_ascii_digit()))
        })
    };
    let letters = |c: char| !(c.is_ascii_alphanumeric() || ".*".contains(c));
    // `10.1/16`
    let short = |part: &str| {
        let (before, after) = part.split_once('/').unwrap_or_default();
        let address = before.rsplit(signs).next().unwrap_or_default();
        let bits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        address.contains('.') && is_short_network(&format!("{address}/{bits}"))
    };
    word.split(signs).any(|run| quad(run, &["*"]) || open(run))
        || word
            .split(letters)
            .any(|run| run.contains(|c: char| c.is_ascii_digit()) && quad(run, &["*", "x", "X"]))
        || word.split([',', ';']).any(short)
}

/// Every piece between colons is tried, because letters before an address can be hex digits too.
fn has_ipv6(word: &str) -> bool {
    let inside = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut at = 0;
    while let Some(rest) = word.get(at..).filter(|rest| !rest.is_empty()) {
        let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(length);
        let before = word.get(..at).and_then(|text| text.chars().next_back());
        if run.matches(':').count() >= 2
            && in_run(run, letter(before), letter(after.chars().next()))
        {
            return true;
        }
        at += length + after.chars().next().map_or(0, char::len_utf8);
    }
    false
}

fn in_run(run: &str, joined_before: bool, joined_after: bool) -> bool {
    let is_sign = |c: char| ":.".contains(c);
    let signs = run.match_indices(is_sign).map(|(at, _)| at + 1);
    let mut starts = (!joined_before).then_some(0).into_iter().chain(signs);
    starts.any(|start| {
        let rest = run.get(start..).unwrap_or_default();
        let near = rest.get(..LONGEST_IPV6).unwrap_or(rest);
        let whole = (near.len() == rest.len() && !joined_after).then_some(rest);
        let cut = near.match_indices(is_sign).filter_map(|(at, _)| near.get(..at));
        let mut texts = whole.into_iter().chain(cut);
        texts.any(|text| text.len() > 2 && text.parse::<Ipv6Addr>().is_ok())
    })
}

/// Characters of the longest address, with an IPv4 address in it, and the sign after it.
const LONGEST_IPV6: usize = 46;
