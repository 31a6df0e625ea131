//! Do imports run one way? ground ← {transport, trust, store} ← {admission, certs} ←
//! {tls, acme, handler} ← {http, enrolment, dispatch} ← endpoint.
//!
//! A step knows what the steps under it say and nothing of those above, so that each can be read,
//! tested and replaced with only the lower ones in mind. Test modules may import what they like.

use super::{
    Finding, Source,
    scan::{code_only, test_lines},
};

/// Modules of endpoint-core, lowest first. A module may import those of lower rows and, in the
/// first row, its neighbours.
const ROWS: &[&[&str]] = &[
    &[
        "alpn", "apart", "clock", "close", "config", "error", "event", "facts", "hostname",
        "identity", "phase", "target", "woken",
    ],
    &["transport", "trust", "store"],
    &["admission", "certs"],
    &["tls", "acme", "handler"],
    &["http", "enrolment", "dispatch"],
    &["endpoint"],
];

/// Edges between neighbours that are wanted, and why.
const BESIDE: &[(&str, &str)] = &[
    // A revocation closes the links that it finds.
    ("trust", "transport"),
];

const FOLDER: &str = "crates/endpoint-core/src/";

/// Checks one file of the library; other files have no order.
pub fn check(source: &Source) -> Vec<Finding> {
    let Some(inner) = source.path.strip_prefix(FOLDER) else { return Vec::new() };
    let place: Vec<&str> = inner.trim_end_matches(".rs").split('/').collect();
    let Some((own, rest)) = place.split_first() else { return Vec::new() };
    if *own == "lib" {
        return Vec::new();
    }
    let Some(own_row) = row(own) else {
        let text =
            format!("module `{own}` has no place in the order of imports (xtask tidy/imports)");
        return vec![Finding::error(&source.path, 0, text)];
    };
    // `mod.rs` is the module itself; any other file is one level deeper.
    let depth = 1 + rest.iter().filter(|part| **part != "mod").count();
    let code = code_only(&source.text);
    let in_test = test_lines(&code);
    let mut findings = Vec::new();
    for (line, name) in roots(&code, depth) {
        if in_test.get(line).copied().unwrap_or_default() || name == *own {
            continue;
        }
        let Some(target) = row(&name) else { continue };
        if BESIDE.contains(&(*own, name.as_str())) {
            continue;
        }
        if target > own_row || (target == own_row && own_row > 0) {
            let text =
                format!("`{own}` imports `{name}`, which stands {}", place_of(target, own_row));
            findings.push(Finding::error(&source.path, line + 1, text));
        }
    }
    findings
}

fn place_of(target: usize, own: usize) -> &'static str {
    if target == own { "beside it" } else { "above it" }
}

fn row(name: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&name))
}

/// The first path segments under the crate root that `code` names, with their line (from 0).
fn roots(code: &str, depth: usize) -> Vec<(usize, String)> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", up.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            let after = &code[at + prefix.len()..];
            for (offset, name) in first_segments(after) {
                let line = code[..at + prefix.len() + offset].matches('\n').count();
                found.push((line, name));
            }
        }
    }
    found
}

/// `a::b` gives `a`; `{a::{b, c}, d}` gives `a` and `d`, with their offsets.
fn first_segments(text: &str) -> Vec<(usize, String)> {
    if !text.starts_with('{') {
        return segment(text).map(|name| (0, name)).into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0;
    let mut expects = false;
    for (at, c) in text.char_indices() {
        match c {
            '{' => {
                depth += 1;
                expects = depth == 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            ',' if depth == 1 => expects = true,
            c if expects && !c.is_whitespace() => {
                names.extend(segment(&text[at..]).map(|name| (at, name)));
                expects = false;
            }
            _ => {}
        }
    }
    names
}

fn segment(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let source = Source { path: format!("{FOLDER}{path}"), text: text.to_owned() };
        check(&source).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn an_import_of_a_higher_step_is_found_with_its_line() {
        let text = "use crate::{\n    alpn::Alpn,\n    tls::{hello, choose},\n    endpoint::Endpoint,\n};\n";
        assert_eq!(found("trust/live.rs", text), [3, 4]);
        assert_eq!(found("dispatch/registry.rs", text), [4]);
        assert_eq!(found("endpoint/serve.rs", text), [0_usize; 0]);
    }

    #[test]
    fn a_path_in_a_body_counts_and_one_in_a_comment_does_not() {
        assert_eq!(
            found("tls/hello.rs", "/// [`crate::endpoint`]\nfn f() { crate::dispatch::x() }"),
            [2]
        );
    }

    #[test]
    fn steps_of_one_row_do_not_import_each_other_but_ground_does() {
        assert_eq!(found("transport/mod.rs", "use crate::trust::Live;"), [1]);
        assert_eq!(found("trust/live.rs", "use crate::transport::Link;"), [0_usize; 0]);
        assert_eq!(
            found("facts.rs", "use crate::{alpn::Alpn, identity::Fingerprint};"),
            [0_usize; 0]
        );
    }

    #[test]
    fn super_that_reaches_the_root_counts_like_crate() {
        assert_eq!(found("trust/mod.rs", "use super::tls::x;"), [1]);
        assert_eq!(found("trust/live.rs", "use super::tls::x;"), [0_usize; 0]);
        assert_eq!(found("trust/live.rs", "use super::super::tls::x;"), [1]);
    }

    #[test]
    fn tests_may_import_anything() {
        assert_eq!(
            found("trust/live.rs", "#[cfg(test)]\nmod tests {\n use crate::endpoint::X;\n}"),
            [0_usize; 0]
        );
    }

    #[test]
    fn a_module_without_a_place_is_an_error() {
        assert_eq!(found("util.rs", ""), [0]);
    }
}
