//! What does this client ask for?
//!
//! Step 3, first half: reads the four fields of a ClientHello (RFC 8446 §4.1.2) that decide the
//! profile: server name, protocols, and the two lists of certificate types (RFC 7250 §3). Pure.
//! Not here: what is made of them (`choose`); rustls reads the same bytes again and judges the rest.
//!
//! Always true: nothing is allocated but one name of at most 253 bytes; a message above
//! [`MAX_HELLO_BYTES`], a duplicate extension and trailing bytes are refused; no input panics.

use rustls_pki_types::ServerName;

/// The largest ClientHello that is read: 64 KiB, header included.
pub const MAX_HELLO_BYTES: usize = 64 * 1024;

/// A fatal alert (RFC 8446 §6.2): all that a refused client is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Alert(u8);

impl Alert {
    /// The message does not belong here.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// A field is well-formed and wrong.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// The message does not parse.
    pub const DECODE_ERROR: Self = Self(50);
    /// The endpoint failed, not the client.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// Nothing is served under that name (RFC 6066 §3).
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// No protocol in common (RFC 7301 §3.2).
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);

    /// The alert's number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// The fields of a ClientHello that decide how hands are shaken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hello<'a> {
    /// The host name asked for, in lower case and without a trailing dot. An IP address, which RFC
    /// 6066 §3 forbids but some clients send, counts as no name.
    pub server_name: Option<String>,
    /// The protocols offered; `None` if the extension is absent.
    pub protocols: Option<Protocols<'a>>,
    /// The server certificate types that the client takes (extension 20), in its order.
    pub server_types: Option<&'a [u8]>,
    /// The client certificate types that the client can show (extension 19), in its order.
    pub client_types: Option<&'a [u8]>,
}

impl Hello<'_> {
    /// Whether the client takes a raw public key from the server.
    #[must_use]
    pub fn takes_raw_server_key(&self) -> bool {
        self.server_types.is_some_and(|types| types.contains(&RAW_PUBLIC_KEY))
    }

    /// Whether the client can show a raw public key.
    #[must_use]
    pub fn shows_raw_client_key(&self) -> bool {
        self.client_types.is_some_and(|types| types.contains(&RAW_PUBLIC_KEY))
    }
}

/// A list of protocol names (RFC 7301 §3.1) whose form has been checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Protocols<'a>(&'a [u8]);

impl<'a> Protocols<'a> {
    /// Takes the list without its two length bytes: names of 1 to 255 bytes, each after its length.
    ///
    /// # Errors
    /// [`Alert::DECODE_ERROR`] if the list is empty, holds an empty name or is cut;
    /// [`Alert::ILLEGAL_PARAMETER`] if it holds more than 128 names.
    pub fn new(list: &'a [u8]) -> Result<Self, Alert> {
        let mut rest = Reader(list);
        let mut names = 0;
        while !rest.0.is_empty() {
            if rest.short_list()?.is_empty() {
                return Err(Alert::DECODE_ERROR);
            }
            names += 1;
        }
        match names {
            0 => Err(Alert::DECODE_ERROR),
            1..=MAX_PROTOCOLS => Ok(Self(list)),
            _ => Err(Alert::ILLEGAL_PARAMETER),
        }
    }

    /// The names, in the client's order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = Reader(self.0);
        std::iter::from_fn(move || rest.short_list().ok())
    }

    /// Whether the client offers `name`.
    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        self.iter().any(|offered| offered == name)
    }
}

/// The whole length of the message that `bytes` begins, header included; `None` if the four bytes
/// of the header are not there yet.
///
/// # Errors
/// The alert for a message that is no ClientHello, or larger than [`MAX_HELLO_BYTES`].
pub fn whole_length(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    match bytes {
        [] | [CLIENT_HELLO] | [CLIENT_HELLO, _] | [CLIENT_HELLO, _, _] => Ok(None),
        [CLIENT_HELLO, a, b, c, ..] => {
            let length =
                HEADER_BYTES + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c));
            if length > MAX_HELLO_BYTES {
                return Err(Alert::DECODE_ERROR);
            }
            Ok(Some(length))
        }
        _ => Err(Alert::UNEXPECTED_MESSAGE),
    }
}

/// Reads one whole ClientHello, header included.
///
/// # Errors
/// The alert to send: [`Alert::UNEXPECTED_MESSAGE`] for another message or bytes after it,
/// [`Alert::DECODE_ERROR`] for bad form, [`Alert::ILLEGAL_PARAMETER`] for a duplicate extension, more
/// than 128 extensions, or a host name that is none.
pub fn parse(message: &[u8]) -> Result<Hello<'_>, Alert> {
    let length = whole_length(message)?.ok_or(Alert::DECODE_ERROR)?;
    if message.len() > length {
        return Err(Alert::UNEXPECTED_MESSAGE);
    }
    let mut body = Reader(message);
    body.take(HEADER_BYTES)?;
    if body.0.len() != length - HEADER_BYTES {
        return Err(Alert::DECODE_ERROR);
    }
    body.take(2 + 32)?; // legacy_version, random
    if body.short_list()?.len() > 32 {
        return Err(Alert::DECODE_ERROR); // legacy_session_id
    }
    let suites = body.list()?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Alert::DECODE_ERROR);
    }
    if body.short_list()?.is_empty() {
        return Err(Alert::DECODE_ERROR); // legacy_compression_methods
    }
    let mut hello = Hello::default();
    if body.0.is_empty() {
        return Ok(hello); // a TLS 1.2 hello without extensions (RFC 5246 §7.4.1.2)
    }
    let mut extensions = Reader(body.list()?);
    body.end()?;

    let mut seen = [0_u16; MAX_EXTENSIONS];
    let mut count = 0;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let mut content = Reader(extensions.list()?);
        //= https://www.rfc-editor.org/rfc/rfc8446#section-4.2
        //# There MUST NOT be more than one extension of the same type in a given extension block.
        if seen.iter().take(count).any(|earlier| *earlier == kind) {
            return Err(Alert::ILLEGAL_PARAMETER);
        }
        *seen.get_mut(count).ok_or(Alert::ILLEGAL_PARAMETER)? = kind;
        count += 1;

        match kind {
            SERVER_NAME => {
                hello.server_name = server_name(&mut content)?;
                content.end()?;
            }
            ALPN => {
                hello.protocols = Some(Protocols::new(content.list()?)?);
                content.end()?;
            }
            CLIENT_CERTIFICATE_TYPE => hello.client_types = Some(types(&mut content)?),
            SERVER_CERTIFICATE_TYPE => hello.server_types = Some(types(&mut content)?),
            _ => {}
        }
    }
    Ok(hello)
}

/// The one host name of a `ServerNameList` (RFC 6066 §3).
fn server_name(content: &mut Reader<'_>) -> Result<Option<String>, Alert> {
    let mut list = Reader(content.list()?);
    let kind = list.take(1)?;
    let name = list.list()?;
    if kind != [HOST_NAME] || !list.0.is_empty() {
        return Err(Alert::ILLEGAL_PARAMETER);
    }
    normalized(name)
}

/// A host name as it is compared; `None` for an IP address.
pub(crate) fn normalized(name: &[u8]) -> Result<Option<String>, Alert> {
    match ServerName::try_from(name).map_err(|_| Alert::ILLEGAL_PARAMETER)? {
        ServerName::DnsName(name) => {
            let mut name = name.as_ref().to_ascii_lowercase();
            if name.ends_with('.') {
                name.pop();
            }
            Ok(Some(name))
        }
        _ => Ok(None),
    }
}

/// A list of certificate types (RFC 7250 §3), at least one.
fn types<'a>(content: &mut Reader<'a>) -> Result<&'a [u8], Alert> {
    let list = content.short_list()?;
    content.end()?;
    if list.is_empty() {
        return Err(Alert::DECODE_ERROR);
    }
    Ok(list)
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Alert> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Alert::DECODE_ERROR)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Alert> {
        let (bytes, rest) = self.0.split_first_chunk::<2>().ok_or(Alert::DECODE_ERROR)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// Bytes after a length of two bytes.
    fn list(&mut self) -> Result<&'a [u8], Alert> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    /// Bytes after a length of one byte.
    fn short_list(&mut self) -> Result<&'a [u8], Alert> {
        let (length, rest) = self.0.split_first().ok_or(Alert::DECODE_ERROR)?;
        self.0 = rest;
        self.take(usize::from(*length))
    }

    fn end(&self) -> Result<(), Alert> {
        if self.0.is_empty() { Ok(()) } else { Err(Alert::DECODE_ERROR) }
    }
}

const CLIENT_HELLO: u8 = 1;
const HEADER_BYTES: usize = 4;
const HOST_NAME: u8 = 0;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const CLIENT_CERTIFICATE_TYPE: u16 = 19;
const SERVER_CERTIFICATE_TYPE: u16 = 20;
/// The number of `RawPublicKey` among certificate types (RFC 7250 §3).
pub(crate) const RAW_PUBLIC_KEY: u8 = 2;
/// Hellos of today carry fewer than 30 extensions.
const MAX_EXTENSIONS: usize = 128;
const MAX_PROTOCOLS: usize = 128;
