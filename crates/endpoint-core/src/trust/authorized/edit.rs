//! How is a line added to or removed from `authorized_peers`?
//!
//! Pure: text in, text out. Every other line stays byte for byte, faulty ones and comments too.

use super::{LineFault, comment as words, judge, parse};
use crate::identity::{Fingerprint, KeyText, odd};

/// Adds a line for `key` at the end: the new text, and the line as written (without its end).
///
/// The key is written as its fingerprint, whatever form it came in, so that log lines can be found
/// in the file. `options` are names and plain values; quotes are added here. A comment that could be read
/// as an option or a key stands on a `#` line of its own above it.
///
/// # Errors
/// [`EditError`] if the key stands there already, or an option or the comment is refused.
pub fn add_line(
    text: &[u8],
    key: &KeyText,
    options: &[(String, String)],
    comment: &str,
) -> Result<(Vec<u8>, String), EditError> {
    if let Some(grant) = parse(text).grants.lookup(&key.fingerprint()) {
        return Err(EditError::Duplicate { key: key.fingerprint(), line: grant.line() });
    }
    let options: Vec<_> = options
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", value.replace('"', "\\\"")))
        .collect();
    let comment = comment.trim();
    // What is invisible is refused by the reader, on either line.
    let is_plain = comment.contains(odd::is_hidden) || words::doubt(comment).is_none();
    let beside = if is_plain { comment } else { "" };
    let parts = [options.join(","), key.fingerprint().to_string(), beside.to_owned()];
    let written = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>();
    let written = written.join(" ");
    // The same reader decides; what it does not read back as this very key is not written.
    match judge(1, written.as_bytes()) {
        Ok(Some(read))
            if read.grant.fingerprint() == key.fingerprint() && read.grant.comment() == beside => {}
        Ok(_) => return Err(EditError::Unclear { written }),
        Err(fault) => return Err(EditError::Refused { written, fault }),
    }
    let before = parse(text).faults;
    let mut text = text.to_vec();
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    if !is_plain {
        text.extend_from_slice(format!("# {comment}\n").as_bytes());
    }
    text.extend_from_slice(written.as_bytes());
    text.push(b'\n');
    let after = parse(&text);
    if after.grants.lookup(&key.fingerprint()).is_none() {
        let above = before.last().map_or(1, |fault| fault.line);
        return Err(EditError::Unfinished { line: above });
    }
    Ok((text, written))
}

/// Removes every line of a key: the new text, and the number of lines removed.
///
/// Faulty lines that mention the key go too: they admit nobody today, and must not once the fault
/// is mended.
#[must_use]
pub fn remove_key(text: &[u8], key: &Fingerprint) -> (Vec<u8>, usize) {
    let mut kept = Vec::with_capacity(text.len());
    let mut removed = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if is_of_key(line, key) {
            removed += 1;
        } else {
            kept.extend_from_slice(line);
        }
    }
    (kept, removed)
}

fn is_of_key(line: &[u8], key: &Fingerprint) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    match judge(1, line) {
        Ok(None) => false,
        Ok(Some(read)) => read.grant.fingerprint() == *key,
        Err(_) => mentions(&String::from_utf8_lossy(line), key),
    }
}

/// Whether any word of a faulty line, or any SSH key in it, is this key.
fn mentions(line: &str, key: &Fingerprint) -> bool {
    if line.trim_start().starts_with('#') {
        return false;
    }
    let hidden = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    let words: Vec<_> = line.split(hidden).filter(|word| !word.is_empty()).collect();
    let is_key = |text: &str| KeyText::parse(text).is_ok_and(|found| found.fingerprint() == *key);
    words.iter().any(|word| is_key(word))
        || words
            .windows(2)
            .any(|pair| pair.first() == Some(&"ssh-ed25519") && is_key(&pair.join(" ")))
}

/// Why a line cannot be added.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The key is authorised already.
    #[error("{key} is authorised already, on line {line}; `endpoint trust rm {key}` removes it")]
    Duplicate {
        /// The key.
        key: Fingerprint,
        /// Its line, from 1.
        line: usize,
    },
    /// An option or the comment cannot stand in the file.
    #[error("{}{}", fault.message, fault.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default())]
    Refused {
        /// The line that was not written.
        written: String,
        /// What is wrong with it; its line number is 1.
        fault: LineFault,
    },
    /// An option's name or the comment would be read as something else.
    #[error("the line would be read as something else: `{}`", written.escape_debug())]
    Unclear {
        /// The line that was not written.
        written: String,
    },
    /// The last line of the file has no end, so that a new one would be taken for its rest.
    #[error(
        "line {line} has no end, so a line after it would be read as its rest; mend it first: `endpoint trust lint`"
    )]
    Unfinished {
        /// The line, from 1.
        line: usize,
    },
}
