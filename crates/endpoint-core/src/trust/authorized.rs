//! Who is authorised? The file `authorized_peers`, with OpenSSH's habits.
//!
//! One line is one key: `[options] KEY [comment]`; `#` begins a comment line; KEY in any form that
//! [`KeyText`] reads, on one line. Options stand before the key, with
//! commas and no spaces between them, as in `alpn="echo/1,ping/1",from="192.0.2.0/24"`:
//!
//! | option | means |
//! |---|---|
//! | `alpn="a,b"` | only these protocols |
//! | `from="CIDR,…"` | only from these networks or addresses; IPv4 also where it comes in IPv6 form |
//! | `expires="…"` | until then: `YYYYMMDD[HHMM[SS]][Z]`, `YYYY-MM-DD` or RFC 3339 |
//! | `scope="a,b"` | holds these scopes |
//! | `tenant=`, `name=` | belongs to this tenant, is called this |
//! | `max-connections=` | at most so many at one time |
//!
//! Times without an offset are UTC. A bare date is the first moment of that day, as OpenSSH has it:
//! `expires="20261201"` is over when 1 December begins.
//!
//! A comment is plain words: what could have been meant as an option or as another key is a fault, because
//! as a comment it would silently admit more than was meant. No line goes on in the next one; one that
//! seems to makes a fault of the next as well. Each fault says, where that can be made out, how the line
//! was probably meant.
//!
//! Pure: text in, grants and faults out. Not here: reading the file (`trust::file`), judging a
//! connection.
//!
//! Always true: no text admits everybody; a faulty line admits nobody and harms no other line but one that
//! may be its rest; a key has at most one grant, that of its first good line.

mod comment;
mod edit;
pub(in crate::trust) mod line;
mod mend;
mod options;
mod place;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;

pub use self::edit::{EditError, add_line, remove_key};
use self::line::{Fault, Unfinished};
use crate::{
    alpn::Alpn,
    config::Scope,
    identity::{Fingerprint, KeyText},
};

/// What one line of `authorized_peers` allows one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    fingerprint: Fingerprint,
    alpns: Option<Vec<Alpn>>,
    from: Option<Vec<IpNet>>,
    expires: Option<Timestamp>,
    scopes: Vec<Scope>,
    tenant: Option<String>,
    max_connections: Option<usize>,
    name: Option<String>,
    comment: String,
    line: usize,
}

impl Grant {
    /// The key's name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The only protocols allowed, at least one; `None` allows all that the access rules give.
    #[must_use]
    pub fn alpns(&self) -> Option<&[Alpn]> {
        self.alpns.as_deref()
    }

    /// The only networks allowed, at least one; `None` allows all. IPv4 networks are never in their
    /// IPv6 form here.
    #[must_use]
    pub fn from(&self) -> Option<&[IpNet]> {
        self.from.as_deref()
    }

    /// The first moment at which the grant is over.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// The scopes held.
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// The tenant: 1 to 64 of `a-z A-Z 0-9 . _ -`.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Connections allowed at one time, at least 1; `None` leaves it to the limits.
    #[must_use]
    pub fn max_connections(&self) -> Option<usize> {
        self.max_connections
    }

    /// What the operator calls the peer: 1 to 64 printable ASCII characters, safe in a header.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The rest of the line after the key, without control characters; often empty.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The line in the file, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Whether the grant names this protocol, or none in particular.
    #[must_use]
    pub fn allows_alpn(&self, alpn: &Alpn) -> bool {
        self.alpns.as_ref().is_none_or(|allowed| allowed.contains(alpn))
    }

    /// Whether the grant covers this remote address. An IPv4 address in IPv6 form
    /// (`::ffff:192.0.2.1`, as dual-stack sockets report it) is judged as IPv4.
    #[must_use]
    pub fn allows_from(&self, remote: IpAddr) -> bool {
        let remote = remote.to_canonical();
        self.from.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&remote)))
    }

    /// Whether the grant is over at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }

    /// Whether the grant holds this scope; everybody holds [`Scope::ANY`].
    #[must_use]
    pub fn has_scope(&self, scope: &Scope) -> bool {
        *scope == Scope::ANY || self.scopes.contains(scope)
    }
}

/// The authorised keys: at most one grant a key. The default is nobody.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants {
    in_order: Vec<Arc<Grant>>,
    by_key: HashMap<Fingerprint, Arc<Grant>>,
}

impl Grants {
    /// The grant of a key; `None` means that it is not authorised.
    #[must_use]
    pub fn lookup(&self, fingerprint: &Fingerprint) -> Option<&Arc<Grant>> {
        self.by_key.get(fingerprint)
    }

    /// All grants in the order of their lines.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Grant>> {
        self.in_order.iter()
    }

    /// The number of authorised keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether nobody is authorised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// The same set without some keys.
    pub(in crate::trust) fn without(&self, keys: &BTreeSet<Fingerprint>) -> Self {
        let mut left = Self::default();
        let kept = self.in_order.iter().filter(|grant| !keys.contains(&grant.fingerprint));
        for grant in kept {
            left.by_key.insert(grant.fingerprint, Arc::clone(grant));
            left.in_order.push(Arc::clone(grant));
        }
        left
    }

    fn insert(&mut self, grant: Grant) {
        let grant = Arc::new(grant);
        self.by_key.insert(grant.fingerprint, Arc::clone(&grant));
        self.in_order.push(grant);
    }
}

/// What a text of `authorized_peers` holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parsed {
    /// The keys of its good lines.
    pub grants: Grants,
    /// What is wrong with the others, at most one fault a line, in their order.
    pub faults: Vec<LineFault>,
}

/// What is wrong with a line. Counted in characters, not in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LineFault {
    /// The line, from 1.
    pub line: usize,
    /// Where the fault begins, from 1.
    pub column: usize,
    /// How far it reaches, at least 1.
    pub length: usize,
    /// What is wrong: lower case, no full stop, safe to print.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for LineFault {}

/// Reads a whole `authorized_peers`. Never fails: what cannot be read is a fault of its line.
///
/// Time and memory grow with the text; of more than 1,000 faults the last one tells how many more there are.
#[must_use]
pub fn parse(text: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut more = 0_usize;
    let mut above: Option<(usize, Unfinished)> = None;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Mending costs more than reading; who has so many faults has another trouble.
        let read = match parsed.faults.len() < MAX_MENDED {
            true => read_line(number, line),
            false => judge(number, line),
        };
        let fault = match read {
            Ok(None) => continue,
            Ok(Some(read)) => match (above.take(), parsed.grants.lookup(&read.grant.fingerprint)) {
                (Some((above, how)), _) if how == Unfinished::Marked || !read.grant.restricts() => {
                    read.key_span.rest_of(above)
                }
                (_, Some(first)) => read.key_span.again(first.line),
                (_, None) => {
                    parsed.grants.insert(read.grant);
                    continue;
                }
            },
            Err(fault) => {
                above = line::unfinished(line).map(|how| (number, how));
                fault
            }
        };
        match parsed.faults.len() < MAX_FAULTS {
            true => parsed.faults.push(fault),
            false => more += 1,
        }
    }
    if let (Some(last), 1..) = (parsed.faults.last_mut(), more) {
        last.message = format!("{}, and {more} more lines are faulty", last.message);
    }
    parsed
}

/// Faults that are told one by one.
const MAX_FAULTS: usize = 1_000;
/// Faults that come with the line as it was probably meant.
const MAX_MENDED: usize = 64;

impl Grant {
    /// Whether an option makes it less than a bare key is.
    fn restricts(&self) -> bool {
        let Self { alpns, from, expires, max_connections, .. } = self;
        alpns.is_some() || from.is_some() || expires.is_some() || max_connections.is_some()
    }
}

/// A good line.
struct Read {
    grant: Grant,
    key_span: KeySpan,
    /// Options it has.
    options: usize,
}

/// Where the key of a line stands, should another line have it already.
struct KeySpan {
    line: usize,
    column: usize,
    length: usize,
}

impl KeySpan {
    fn again(self, first: usize) -> LineFault {
        let Self { line, column, length } = self;
        let message = format!("this key stands on line {first} already");
        let help = Some(format!("join both into one line, or remove line {line}"));
        LineFault { line, column, length, message, help }
    }

    fn rest_of(self, above: usize) -> LineFault {
        let Self { line, column, length } = self;
        let message = format!("line {above} has no end, so this key may belong to it");
        let help = Some(format!("write both as one line, or mend line {above}"));
        LineFault { line, column, length, message, help }
    }
}

/// Reads a line; a fault comes with the line as it was probably meant.
fn read_line(number: usize, line: &[u8]) -> Result<Option<Read>, LineFault> {
    judge(number, line).map_err(|mut fault| {
        if line.len() <= line::LONGEST_LINE_BYTES
            && let Some(mended) = str::from_utf8(line).ok().and_then(mend::mended)
        {
            let before = fault.help.take().map(|help| format!("{help}; ")).unwrap_or_default();
            fault.help = Some(format!("{before}write {mended}"));
        }
        fault
    })
}

/// The number of options of a line that has no fault.
fn read_whole(line: &str) -> Option<usize> {
    judge(1, line.as_bytes()).ok().flatten().map(|read| read.options)
}

fn judge(number: usize, line: &[u8]) -> Result<Option<Read>, LineFault> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line::is_silent(line) {
        let Some(at) = line::hides_a_line(line) else { return Ok(None) };
        let shown = String::from_utf8_lossy(line.get(..at).unwrap_or_default()).into_owned();
        let fault = Fault::new(shown.len(), 1, "a carriage return ends no line")
            .help("save the file with line feeds, or take the carriage return out");
        return Err(fault.at_line(number, &shown));
    }
    let text = line::text(line).map_err(|(shown, fault)| fault.at_line(number, &shown))?;
    let place = |fault: Fault| fault.at_line(number, text);
    let parts = line::split(text).map_err(place)?;
    let options = options::read(&parts.options).map_err(place)?;
    if parts.key.starts_with("-----") {
        let fault = Fault::new(parts.key_at, parts.key.len(), "a key stands on one line here");
        return Err(place(fault.help("`endpoint trust add` reads PEM and writes its fingerprint")));
    }
    let key = KeyText::parse(parts.key)
        .map_err(|why| place(Fault::new(parts.key_at, parts.key.len(), why.to_string())))?;
    if let Some(doubt) = comment::doubt(parts.comment) {
        let fault = Fault::new(parts.comment_at + doubt.at, doubt.length, doubt.what);
        return Err(place(fault.help(
            "a line is `[options] KEY [comment]`; what is no plain words stands on a `#` line of its own",
        )));
    }
    let span = Fault::new(parts.key_at, parts.key.len(), String::new()).at_line(number, text);
    let grant = Grant {
        fingerprint: key.fingerprint(),
        alpns: options.alpns,
        from: options.from,
        expires: options.expires,
        scopes: options.scopes,
        tenant: options.tenant,
        max_connections: options.max_connections,
        name: options.name,
        comment: parts.comment.to_owned(),
        line: number,
    };
    let key_span = KeySpan { line: number, column: span.column, length: span.length };
    Ok(Some(Read { grant, key_span, options: parts.options.len() }))
}

#[cfg(test)]
mod spelling_tests;
#[cfg(test)]
mod tests;
