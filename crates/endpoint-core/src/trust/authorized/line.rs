//! Where are the parts of a line? Options, key and comment, before anything is known of their sense.

use super::LineFault;
use crate::identity::{odd, ssh_key_type};

/// A fault at a place counted in bytes, before the line's number is known.
#[derive(Debug)]
pub(in crate::trust) struct Fault {
    at: usize,
    length: usize,
    message: String,
    help: Option<String>,
}

impl Fault {
    pub(in crate::trust) fn new(at: usize, length: usize, message: impl Into<String>) -> Self {
        Self { at, length, message: message.into(), help: None }
    }

    pub(in crate::trust) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Counts in characters of `text`, the line.
    pub(in crate::trust) fn at_line(self, line: usize, text: &str) -> LineFault {
        let count = |from: usize, to: usize| {
            text.char_indices().filter(|(at, _)| (from..to).contains(at)).count()
        };
        LineFault {
            line,
            column: count(0, self.at) + 1,
            length: count(self.at, self.at.saturating_add(self.length)).max(1),
            message: self.message,
            help: self.help,
        }
    }
}

/// Whether the line is blank or a comment, which may hold any bytes.
pub(in crate::trust) fn is_silent(line: &[u8]) -> bool {
    matches!(line.iter().find(|b| !b" \t".contains(b)), None | Some(b'#'))
}

/// Whether a comment line holds a carriage return with something behind it that is no comment: an editor
/// may have taken it for the end of the line. Gives its place.
pub(super) fn hides_a_line(line: &[u8]) -> Option<usize> {
    let mut at = 0;
    for part in line.split(|byte| *byte == b'\r') {
        if at > 0 && !is_silent(part) {
            return Some(at - 1);
        }
        at += part.len() + 1;
    }
    None
}

/// How a faulty line can reach into the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unfinished {
    /// It has options and no key, so a key that begins the next line may belong to them.
    Bare,
    /// It ends in the middle: with `\`, with a comma, or inside quotes.
    Marked,
}

/// Whether the next line can have been meant as the rest of this faulty one.
pub(super) fn unfinished(line: &[u8]) -> Option<Unfinished> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_matches([' ', '\t', '\r']);
    let quotes = text.replace("\\\"", "").matches('"').count();
    if text.ends_with(['\\', ',']) || !quotes.is_multiple_of(2) {
        return Some(Unfinished::Marked);
    }
    let last = text.rsplit(is_blank).next().unwrap_or_default();
    let keyless = last.contains('=') || last.ends_with('"') || KEY_BEGINNINGS.contains(&last);
    (begins_options(text) && keyless).then_some(Unfinished::Bare)
}

/// The line as text; a fault comes with the text up to it, to count in.
pub(in crate::trust) fn text(line: &[u8]) -> Result<&str, (String, Fault)> {
    if line.len() > LONGEST_LINE_BYTES {
        let message =
            format!("the line has {} bytes, allowed are {LONGEST_LINE_BYTES}", line.len());
        return Err((String::new(), Fault::new(0, 1, message)));
    }
    let text = str::from_utf8(line).map_err(|why| {
        let good = line.get(..why.valid_up_to()).unwrap_or_default();
        let good = String::from_utf8_lossy(good).into_owned();
        let fault = Fault::new(good.len(), 1, "this is not UTF-8 text")
            .help("save the file as UTF-8, without a byte-order mark");
        (good, fault)
    })?;
    let hidden = text.char_indices().find(|(_, c)| *c != '\t' && odd::is_hidden(*c));
    match hidden {
        Some((at, c)) => {
            let message = format!("{} has no place here", odd::name(c));
            Err((text.to_owned(), Fault::new(at, c.len_utf8(), message)))
        }
        None => Ok(text),
    }
}

/// A line's parts, with their places in bytes.
pub(super) struct Parts<'a> {
    pub(super) options: Vec<RawOption<'a>>,
    /// One word, or two for an `ssh-…` key.
    pub(super) key: &'a str,
    pub(super) key_at: usize,
    pub(super) comment: &'a str,
    pub(super) comment_at: usize,
}

/// `name=value` as it stands in the line; the value without quotes and escapes.
pub(super) struct RawOption<'a> {
    pub(super) name: &'a str,
    pub(super) at: usize,
    pub(super) value: Option<String>,
    pub(super) value_at: usize,
    pub(super) value_length: usize,
}

/// Finds the parts of a line that is not silent.
pub(super) fn split(text: &str) -> Result<Parts<'_>, Fault> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip(is_blank);
    let mut options = Vec::new();
    if begins_options(cursor.rest()) {
        loop {
            options.push(option(&mut cursor)?);
            match cursor.peek() {
                Some(',') => cursor.bump(),
                Some(c) if is_blank(c) => break,
                None => break,
                Some(c) => {
                    let fault = Fault::new(cursor.at, c.len_utf8(), unexpected(c));
                    return Err(fault.help("options are separated by one comma and no space"));
                }
            }
        }
        cursor.skip(is_blank);
    }
    let key_at = cursor.at;
    let is_ssh = ssh_key_type(cursor.rest()).is_some();
    cursor.skip(|c| !is_blank(c));
    let mut key_end = cursor.at;
    if is_ssh {
        cursor.skip(is_blank);
        cursor.skip(|c| !is_blank(c));
        key_end = cursor.at.max(key_end);
    }
    let key = text.get(key_at..key_end).unwrap_or_default().trim_end_matches(is_blank);
    if key.is_empty() {
        let fault = Fault::new(key_at, 1, "there is no key after the options");
        return Err(fault.help("a line is `[options] KEY [comment]`"));
    }
    cursor.skip(is_blank);
    let comment_at = cursor.at;
    let comment = cursor.rest().trim_end_matches(is_blank);
    Ok(Parts { options, key, key_at, comment, comment_at })
}

/// Whether the first word is a list of options and not a key.
fn begins_options(rest: &str) -> bool {
    if ssh_key_type(rest).is_some() {
        return false;
    }
    let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return false;
    }
    match rest.get(name.len()..).and_then(|after| after.chars().next()) {
        Some('=' | ',' | '"') => true,
        // A word alone is an option without a value if a key can follow it, and no key itself.
        Some(c) if is_blank(c) => {
            let hex = name.len() >= 8 && name.chars().all(|c| c.is_ascii_hexdigit());
            !hex && name.len() <= LONGEST_NAME
        }
        _ => false,
    }
}

fn option<'a>(cursor: &mut Cursor<'a>) -> Result<RawOption<'a>, Fault> {
    let at = cursor.at;
    let name = cursor.skip(is_name);
    if name.is_empty() {
        let (length, message) = match cursor.peek() {
            Some(c) if !is_blank(c) => (c.len_utf8(), unexpected(c)),
            _ => (1, "there is no option after the comma".to_owned()),
        };
        return Err(
            Fault::new(at, length, message).help("options are separated by one comma and no space")
        );
    }
    if cursor.peek() != Some('=') {
        let unquoted = at > 0 && cursor.peek().is_some_and(|c| !is_blank(c) && c != ',');
        if unquoted {
            let c = cursor.peek().unwrap_or_default();
            return Err(Fault::new(cursor.at, c.len_utf8(), unexpected(c)).help(
                "a value that holds a comma or a space needs quotes: alpn=\"echo/1,ping/1\"",
            ));
        }
        return Ok(RawOption { name, at, value: None, value_at: at, value_length: name.len() });
    }
    cursor.bump();
    let value_at = cursor.at;
    let value = match cursor.peek() {
        Some('"') => quoted(cursor)?,
        _ => cursor.skip(|c| !is_blank(c) && c != ',' && c != '"').to_owned(),
    };
    let value_length = cursor.at - value_at;
    Ok(RawOption { name, at, value: Some(value), value_at, value_length })
}

/// A value in quotes; `\"` stands for a quote, every other `\` for itself, as in OpenSSH.
fn quoted(cursor: &mut Cursor<'_>) -> Result<String, Fault> {
    let open = cursor.at;
    cursor.bump();
    let mut value = String::new();
    loop {
        match cursor.peek() {
            None => {
                let fault = Fault::new(open, cursor.at - open, "the quote is never closed");
                return Err(fault.help("put a `\"` after the value"));
            }
            Some('"') => {
                cursor.bump();
                return Ok(value);
            }
            Some('\\') if cursor.rest().starts_with("\\\"") => {
                cursor.bump();
                cursor.bump();
                value.push('"');
            }
            Some(c) => {
                cursor.bump();
                value.push(c);
            }
        }
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    /// Passes over all characters that `want` takes, and gives them.
    fn skip(&mut self, want: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !want(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }
}

pub(in crate::trust) fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn unexpected(c: char) -> String {
    format!("{} was not expected here", odd::name(c))
}

/// The longest line, without its end.
pub(super) const LONGEST_LINE_BYTES: usize = 4096;
/// What a key begins with, that can be cut off from it.
const KEY_BEGINNINGS: [&str; 7] =
    ["ed25519:", "sha256:", "sha256//", "ssh-ed25519", "ed25519", "sha256", "sha256/"];
/// No option's name is longer; a longer word is a damaged key.
const LONGEST_NAME: usize = 32;
