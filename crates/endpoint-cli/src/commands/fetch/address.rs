//! Where to dial, and what to ask for there.

use crate::error::{CliError, Result};

/// `PEER/path` in its two parts.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Address {
    pub(super) peer: String,
    /// Path and query, beginning with `/`.
    pub(super) path: String,
}

impl Address {
    /// Takes the text apart at the first `/` after PEER. A pin may stand at the end, where a URL has
    /// its fragment.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let after = text.find("://").map_or(0, |at| at.saturating_add(3));
        let (scheme, rest) = text.split_at(after);
        let Some(at) = rest.find(['/', '?']) else {
            return Ok(Self { peer: text.to_owned(), path: "/".into() });
        };
        let (host, path) = rest.split_at(at);
        let (path, pin) = match path.split_once('#') {
            Some((path, pin)) => (path, format!("#{pin}")),
            None => (path, String::new()),
        };
        if let Some(bad) =
            path.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c))
        {
            let shown = bad.escape_default();
            return Err(CliError::usage("usage", format!("`{shown}` cannot stand in a path"))
                .hint("write it as % and two hex digits, a space as %20"));
        }
        let slash = if path.starts_with('?') { "/" } else { "" };
        Ok(Self { peer: format!("{scheme}{host}{pin}"), path: format!("{slash}{path}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_peer_and_path_apart_in_every_form_of_a_peer() {
        let cases = [
            ("peer://1f@h:1/a/b?c=d", "peer://1f@h:1", "/a/b?c=d"),
            ("sha256:1f@h:1/", "sha256:1f@h:1", "/"),
            ("https://h/a", "https://h", "/a"),
            ("https://h:1/a#sha256:1f", "https://h:1#sha256:1f", "/a"),
            ("https://h:1#sha256:1f", "https://h:1#sha256:1f", "/"),
            ("https://h?q", "https://h", "/?q"),
            ("[::1]:4433/x", "[::1]:4433", "/x"),
            ("home/x", "home", "/x"),
            ("home", "home", "/"),
        ];
        for (text, peer, path) in cases {
            let expected = Address { peer: peer.into(), path: path.into() };
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["h:1/a b", "h:1/ü", "h:1/\u{1b}", "h:1/a\\b"] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }
}
