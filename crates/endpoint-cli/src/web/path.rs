//! In which one form do rules and files see a path?
//!
//! Two programs that decode a path differently can be played against each other: a rule for `/admin/` is
//! worth nothing if `/x/..%2fadmin/` reaches it. So a path that has a second form is refused.

use std::borrow::Cow;

use http::StatusCode;

use super::page::Refusal;

/// The path decoded, whole.
///
/// # Errors
/// 400 for an escape that is none, an encoded slash, a backslash, a control character, bytes that are no
/// UTF-8, and for segments that are empty, `.` or `..`.
pub(super) fn decoded(path: &str) -> Result<String, Refusal> {
    let bad = ambiguous;
    let Some(rest) = path.strip_prefix('/') else {
        // `OPTIONS *` (RFC 9110 §9.3.7).
        return if path == "*" { Ok("/".into()) } else { Err(bad()) };
    };
    let mut decoded = String::with_capacity(path.len());
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let text = unescaped(segment).ok_or_else(bad)?;
        let empty = text.is_empty() && segments.peek().is_some();
        // Some servers read `..;x` as `..` (RFC 3986 §3.3 leaves parameters to them).
        let name = text.split(';').next().unwrap_or_default();
        let nameless = name.is_empty() && !text.is_empty();
        if empty || nameless || name == "." || name == ".." {
            return Err(bad());
        }
        if text.contains(['/', '\\']) || text.contains(char::is_control) {
            return Err(bad());
        }
        decoded.push('/');
        decoded.push_str(&text);
    }
    Ok(decoded)
}

/// What is answered to a path of two readings.
pub(super) fn ambiguous() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "the path can be read in two ways")
}

/// A decoded path as rules see it: without the parameters of its segments, which some servers behind a
/// proxy pass over.
pub(super) fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') {
        return path.into();
    }
    let names = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    names.collect::<Vec<_>>().join("/").into()
}

fn unescaped(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2)?;
            let high = char::from(*digits.first()?).to_digit(16)?;
            let low = char::from(*digits.last()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_one_form_or_refuses() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a/", Some("/a/")),
            ("/a%20b", Some("/a b")),
            ("/%61dmin", Some("/admin")),
            ("/..a/...", Some("/..a/...")),
            ("/%C3%BC", Some("/ü")),
            ("//a", None),
            ("/a//b", None),
            ("/./a", None),
            ("/a/..", None),
            ("/%2e%2e/a", None),
            ("/a;v=1/b", Some("/a;v=1/b")),
            ("/a/..;/b", None),
            ("/a/.%3bx/b", None),
            ("/;x/b", None),
            ("/a%2fb", None),
            ("/a%2Fb", None),
            ("/a%5cb", None),
            ("/a\\b", None),
            ("/a%00", None),
            ("/a%0a", None),
            ("/a%", None),
            ("/a%zz", None),
            ("/a%ff", None),
            ("a", None),
        ] {
            assert_eq!(decoded(path).ok().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn rules_see_no_parameters() {
        assert_eq!(without_parameters("/admin;x/a;b=1;c"), "/admin/a");
        assert_eq!(without_parameters("/admin/a"), "/admin/a");
    }
}
