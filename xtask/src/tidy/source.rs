//! Is a Rust file of readable size, and free of what must not be shipped?

use super::{
    Finding, Source,
    scan::{code_only, test_lines},
};

const MAX_LINES: usize = 500;
const MANY_LINES: usize = 400;

/// Checks one file.
pub fn check(source: &Source) -> Vec<Finding> {
    let Source { path, text } = source;
    let mut findings = size(path, text);
    let code = code_only(text);
    let in_test = test_lines(&code);
    let lines: Vec<&str> = code.lines().collect();
    let raw: Vec<&str> = text.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let test = is_test_file(path) || in_test[n];
        for word in UNFINISHED {
            if calls(line, word) {
                findings.push(Finding::error(path, n + 1, format!("`{word}!` is unfinished work")));
            }
        }
        if line.contains("#[ignore]") {
            findings.push(Finding::error(path, n + 1, "`#[ignore]` without a reason"));
        }
        if !test && ASSERTED.iter().all(|part| line.contains(part)) {
            let text = "a handshake signature is taken as valid without being checked";
            findings.push(Finding::error(path, n + 1, text));
        }
        if shipped(path) && gates(line) && !gates_a_module(&lines, n) {
            let text = "`cfg(feature …)` belongs at a `mod` line; give the other case an off-stub";
            findings.push(Finding::error(path, n + 1, text));
        }
        if path.starts_with("crates/endpoint-cli/") && !test {
            for name in ["quinn", "quinn_proto", "rustls"] {
                if names_crate(line, name) {
                    let text = format!("the program reaches `{name}` past the library");
                    findings.push(Finding::error(path, n + 1, text));
                }
            }
        }
    }
    if shipped(path)
        && !is_test_file(path)
        && !raw.first().is_some_and(|line| line.starts_with("//!"))
    {
        findings.push(Finding::error(
            path,
            1,
            "no module doc: say which question the file answers",
        ));
    }
    findings
}

fn size(path: &str, text: &str) -> Vec<Finding> {
    match text.lines().count() {
        count if count > MAX_LINES => {
            vec![Finding::error(path, 0, format!("{count} lines, at most {MAX_LINES}"))]
        }
        count if count > MANY_LINES => {
            vec![Finding::warning(path, 0, format!("{count} lines, better under {MANY_LINES}"))]
        }
        _ => Vec::new(),
    }
}

/// Macros that mean "not done".
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// What the call that asserts an unchecked signature is made of.
const ASSERTED: [&str; 2] = ["HandshakeSignatureValid", "assertion()"];

fn calls(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let word_before =
            line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        !word_before && line[at + name.len()..].starts_with('!')
    })
}

fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| word(c) || c == ':' || c == '.')
            && line[at + name.len()..].starts_with("::")
    })
}

fn shipped(path: &str) -> bool {
    path.starts_with("crates/") && path.contains("/src/")
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

fn gates(line: &str) -> bool {
    let squeezed: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    squeezed.contains("feature=") && (squeezed.contains("cfg(") || squeezed.contains("cfg_attr("))
        || squeezed.contains("cfg!(feature")
}

/// Whether the attribute on line `n` stands before a `mod` item, other attributes between.
fn gates_a_module(lines: &[&str], n: usize) -> bool {
    let mut open = 0_i32;
    for (distance, line) in lines[n..].iter().enumerate() {
        let line = line.trim();
        if distance == 0 && !line.starts_with("#[") {
            return false;
        }
        if line.is_empty() {
            continue;
        }
        if open == 0 && !line.starts_with("#[") {
            return is_module(line);
        }
        open += line.chars().map(|c| i32::from(c == '[') - i32::from(c == ']')).sum::<i32>();
        if open == 0
            && let Some((_, rest)) = line.rsplit_once(']')
            && !rest.trim().is_empty()
        {
            return is_module(rest.trim());
        }
    }
    false
}

fn is_module(line: &str) -> bool {
    let line = line.strip_prefix("pub").unwrap_or(line).trim_start();
    let line = line.strip_prefix("(crate)").unwrap_or(line).trim_start();
    line.starts_with("mod ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let text = format!("//! What?\n{text}");
        let source = Source { path: path.to_owned(), text };
        check(&source).into_iter().map(|finding| finding.text).collect()
    }

    const SRC: &str = "crates/endpoint-core/src/tls/x.rs";

    #[test]
    fn refuses_long_files_and_warns_before() {
        let long = "//! x\n".repeat(501);
        let source = Source { path: SRC.to_owned(), text: long };
        assert_eq!(check(&source).len(), 1);
        let source = Source { path: SRC.to_owned(), text: "//! x\n".repeat(401) };
        assert!(check(&source)[0].warning);
        let source = Source { path: SRC.to_owned(), text: "//! x\n".repeat(400) };
        assert_eq!(check(&source), []);
    }

    #[test]
    fn refuses_unfinished_work_but_not_the_word() {
        assert_eq!(found(SRC, "fn f() { todo!() }").len(), 1);
        assert_eq!(found(SRC, "fn f() { dbg!(1); unimplemented!() }").len(), 2);
        assert_eq!(found(SRC, "// todo!\nfn f() { my_dbg!(\"todo!\") }").len(), 0);
    }

    #[test]
    fn refuses_an_asserted_signature_outside_tests() {
        let call = "fn f() { HandshakeSignatureValid::assertion() }";
        assert_eq!(found(SRC, call).len(), 1);
        assert_eq!(found(SRC, &format!("#[cfg(test)]\nmod tests {{\n{call}\n}}")).len(), 0);
        assert_eq!(found("tests/harness/weak.rs", call).len(), 0);
        assert_eq!(found("crates/endpoint-core/examples/echo.rs", call).len(), 1);
    }

    #[test]
    fn allows_a_feature_gate_at_a_module_only() {
        let gate = "#[cfg(feature = \"tcp\")]\n";
        assert_eq!(found(SRC, &format!("{gate}mod tcp;")).len(), 0);
        assert_eq!(
            found(SRC, "#[cfg(not(feature = \"tcp\"))]\n#[path = \"off.rs\"]\npub(crate) mod tcp;")
                .len(),
            0
        );
        assert_eq!(found(SRC, &format!("{gate}fn f() {{}}")).len(), 1);
        assert_eq!(found(SRC, "fn f() { if cfg!(feature = \"tcp\") {} }").len(), 1);
        assert_eq!(
            found(SRC, "#[cfg_attr(not(feature = \"tcp\"), path = \"off.rs\")]\nmod tcp;").len(),
            0
        );
    }

    #[test]
    fn refuses_an_ignored_test_without_a_reason() {
        assert_eq!(found(SRC, "#[ignore]").len(), 1);
        assert_eq!(found(SRC, "#[ignore = \"needs an hour\"]").len(), 0);
    }

    #[test]
    fn keeps_the_program_away_from_the_transport_crates() {
        let path = "crates/endpoint-cli/src/serve.rs";
        assert_eq!(found(path, "use quinn::Connection;").len(), 1);
        assert_eq!(found(path, "use endpoint_core::quinn::Connection;").len(), 0);
    }
}
