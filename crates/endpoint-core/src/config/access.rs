//! Who may reach a handler?
//!
//! Ground: the rule only. Judging it is `trust::policy`.

use std::{fmt, str::FromStr};

/// Who may reach a handler. The default is [`Access::Peer`] with [`Scope::ANY`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Access {
    /// Everybody, with or without a key.
    Public,
    /// A peer that proves a key and is not among those removed lately: `enroll/1` only.
    Enroll,
    /// A key that stands in `authorized_peers` and, unless [`Scope::ANY`], holds the scope.
    Peer(Scope),
    /// A connection whose present remote address is a loopback one.
    Loopback,
}

impl Default for Access {
    fn default() -> Self {
        Self::Peer(Scope::ANY)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Enroll => f.write_str("enroll"),
            Self::Peer(scope) if *scope == Scope::ANY => f.write_str("peer"),
            Self::Peer(scope) => write!(f, "peer:{scope}"),
            Self::Loopback => f.write_str("loopback"),
        }
    }
}

/// A name for a group of rights, given to a key by `scope="…"` and asked for by a handler.
///
/// Shape: 1 to 64 of `a-z A-Z 0-9 . _ - : /`; empty only as [`Scope::ANY`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Scope(Option<Box<str>>);

impl Scope {
    /// Asks for no scope: every authorised key will do.
    pub const ANY: Self = Self(None);

    /// Names a scope.
    ///
    /// # Errors
    /// [`ScopeError`] if `name` is empty, longer than 64 bytes, or holds another character.
    pub fn new(name: &str) -> Result<Self, ScopeError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_:/".contains(&b);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
            return Err(ScopeError(
                name.chars().take(64).collect::<String>().escape_debug().to_string(),
            ));
        }
        Ok(Self(Some(name.into())))
    }

    /// The name; `None` for [`Scope::ANY`].
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("*"))
    }
}

/// Why a text is not a [`Scope`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a scope: expected 1 to 64 of a-z A-Z 0-9 . _ - : /")]
pub struct ScopeError(String);
