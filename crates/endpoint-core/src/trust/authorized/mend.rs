//! What can the writer of this faulty line have meant?
//!
//! Gives a line that reads without a fault and restricts by everything that looked like an option, or
//! nothing. Only ever shown: no connection is judged by a mended line.

use super::{
    comment::{self, ASSIGNS, QUOTES},
    line::is_blank,
    options, read_whole,
};
use crate::identity::{KeyText, odd};

/// The line as it was probably meant.
pub(super) fn mended(text: &str) -> Option<String> {
    let text = plain_signs(text);
    let (keys, rest) = keys(&text);
    let (written, words) = assignments(&rest);
    let options = written.join(",");
    match keys.as_slice() {
        [key] => {
            // Nothing was made out of what is in doubt: it may have been words.
            let beside = written.is_empty() && comment::doubt(&words).is_some();
            // But what can only have been meant to restrict was not.
            if beside && comment::restricts(&words) {
                return None;
            }
            let comment = if beside { String::new() } else { comment::plain(&words) };
            let parts = [options.as_str(), key.as_str(), comment.as_str()];
            let line =
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            if !is_right(&line, written.len()) {
                return None;
            }
            Some(match beside {
                true => format!("`# {words}` on a line of its own, above `{line}`"),
                false => format!("`{line}`"),
            })
        }
        [first, second] => {
            let line = |key: &String| match options.as_str() {
                "" => key.clone(),
                options => format!("{options} {key}"),
            };
            let (first, second) = (line(first), line(second));
            let right = first != second
                && is_right(&first, written.len())
                && is_right(&second, written.len());
            right.then(|| format!("`{first}` and `{second}` on a line each"))
        }
        _ => None,
    }
}

/// Whether a line reads without a fault, and restricts in so many ways.
fn is_right(line: &str, options: usize) -> bool {
    read_whole(line).is_some_and(|found| found == options)
}

/// The text with plain quotes, equals signs and spaces in place of those of a word processor.
fn plain_signs(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            c if QUOTES.contains(&c) => Some('"'),
            c if ASSIGNS.contains(&c) => Some('='),
            '\t' => Some(' '),
            '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' => None,
            c if odd::is_hidden(c) || c.is_whitespace() => Some(' '),
            c => Some(c),
        })
        .collect()
}

/// The keys in a text, by their own form, and the text without them.
fn keys(text: &str) -> (Vec<String>, String) {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if word == "ssh-ed25519" {
            let key = words.peek().map(|base64| format!("{word} {base64}"));
            if let Some(key) = key.filter(|key| KeyText::parse(key).is_ok()) {
                found.push(key);
                words.next();
                rest.push(' ');
                continue;
            }
        }
        let (before, key, after) = cut_out(word);
        if let Some(key) = key {
            found.push(key.to_owned());
        }
        rest.push_str(before);
        rest.push(' ');
        rest.push_str(after);
        rest.push(' ');
    }
    (found, rest)
}

/// A key within a word: what stands before it, the key, what stands after it.
fn cut_out(word: &str) -> (&str, Option<&str>, &str) {
    let whole = |text: &str| KeyText::parse(text).is_ok();
    if whole(word) {
        return ("", Some(word), "");
    }
    for (prefix, length) in [("sha256:", 71), ("ed25519:", 72), ("sha256//", 52)] {
        let Some(at) = word.find(prefix) else { continue };
        let (Some(before), Some(key), Some(after)) =
            (word.get(..at), word.get(at..at + length), word.get(at + length..))
        else {
            continue;
        };
        if whole(key) {
            return (before, Some(key), after);
        }
    }
    let edge = |c: char| !c.is_ascii_hexdigit();
    let inner = word.trim_matches(edge);
    match word.find(inner) {
        Some(at) if inner.len() >= 64 && whole(inner) => {
            let after = word.get(at + inner.len()..).unwrap_or_default();
            (word.get(..at).unwrap_or_default(), Some(inner), after)
        }
        _ => (word, None, ""),
    }
}

/// Everything that reads like an option with its value, as it should be written, and the other words.
fn assignments(text: &str) -> (Vec<String>, String) {
    let mut written: Vec<(&'static str, String)> = Vec::new();
    let mut words = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let name_length =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_length);
        if let Some((option, value, length)) = option(name, after)
            && written.iter().all(|(known, _)| *known != option)
        {
            written.push((option, value));
            rest = after.get(length..).unwrap_or_default();
            continue;
        }
        let step = name_length.max(c.len_utf8());
        words.push_str(rest.get(..step).unwrap_or_default());
        rest = rest.get(step..).unwrap_or_default();
    }
    // A network that is left restricts, whatever its option was called.
    let mut left = String::new();
    for word in words.split(is_blank) {
        let value = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != ':');
        let fits = options::mended_value("from", value).filter(|_| value.contains(['.', ':']));
        match fits {
            Some(value) if written.iter().all(|(known, _)| *known != "from") => {
                written.push(("from", value));
            }
            _ => {
                left.push_str(word);
                left.push(' ');
            }
        }
    }
    let written = written.into_iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    (written, left.trim().to_owned())
}

/// An option whose name is `name` or near it, its value in `after`, and how far that reaches.
fn option(name: &str, after: &str) -> Option<(&'static str, String, usize)> {
    let known = options::near(name)?;
    let blank = |text: &str| text.len() - text.trim_start_matches(is_blank).len();
    let mut at = blank(after);
    let sign = after.get(at..)?.chars().next().filter(|c| "=:".contains(*c));
    if sign.is_none() && !options::restricts(known) {
        return None;
    }
    at += sign.map_or(0, char::len_utf8);
    at += blank(after.get(at..)?);
    let rest = after.get(at..)?;
    let (value, length) = match rest.strip_prefix(['"', '\'']) {
        Some(inner) => match inner.find(['"', '\'']) {
            Some(end) => (inner.get(..end)?, end + 2),
            None => (inner.split(is_blank).next()?, inner.split(is_blank).next()?.len() + 1),
        },
        None => {
            let end = rest.find(|c| is_blank(c) || c == '"').unwrap_or(rest.len());
            // `"from=10.0.0.0/8"` closes a quote that was opened too early.
            let closing = rest.get(end..).is_some_and(|more| more.starts_with('"'));
            (rest.get(..end)?, end + usize::from(closing))
        }
    };
    let value = value.trim_end_matches([',', ';', ')', ']']);
    Some((known, options::mended_value(known, value)?, at + length))
}
