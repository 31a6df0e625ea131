//! Is every decision numbered once, whole, and in the index?

use std::collections::BTreeMap;

use super::{Finding, Source};

const INDEX: &str = "adr/README.md";
const TEMPLATE: &str = "adr/template.md";
const SECTIONS: &[&str] = &[
    "## Context",
    "## Decision",
    "## Always true",
    "## Alternatives",
    "## Consequences",
    "## Verified by",
];

/// Checks every file under `adr/`.
pub fn check(markdown: &[Source]) -> Vec<Finding> {
    let index = markdown.iter().find(|s| s.path == INDEX).map_or("", |s| s.text.as_str());
    let records = markdown
        .iter()
        .filter(|s| s.path.starts_with("adr/") && s.path != INDEX && s.path != TEMPLATE);
    let mut findings = Vec::new();
    let mut numbers: BTreeMap<&str, &str> = BTreeMap::new();
    for record in records {
        let mut say =
            |line: usize, text: String| findings.push(Finding::error(&record.path, line, text));
        let name = record.path.trim_start_matches("adr/");
        let Some((number, _)) = name.split_once('-').filter(|(number, _)| is_number(number)) else {
            say(0, "expected a name like `0001-kebab-title.md`".to_owned());
            continue;
        };
        if let Some(other) = numbers.insert(number, name) {
            say(0, format!("number {number} is taken by {other}"));
        }
        if !index.contains(&format!("({name})")) {
            say(0, format!("not listed in {INDEX}"));
        }
        let mut lines = record.text.lines();
        if !lines.next().is_some_and(|line| line.starts_with(&format!("# {number}: "))) {
            say(1, format!("expected `# {number}: title`"));
        }
        if !lines.next().is_some_and(is_status) {
            say(2, "expected `Status: … · Date: YYYY-MM-DD · Door: one-way | two-way`".to_owned());
        }
        for section in SECTIONS {
            if !record.text.lines().any(|line| line.trim_end() == *section) {
                say(0, format!("no section `{section}`"));
            }
        }
    }
    findings
}

fn is_number(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_status(line: &str) -> bool {
    let parts: Vec<&str> = line.split(" · ").collect();
    let [status, date, door] = parts.as_slice() else { return false };
    let status = status.strip_prefix("Status: ").unwrap_or_default();
    let known = matches!(status, "proposed" | "accepted")
        || status.strip_prefix("superseded by ").is_some_and(is_number);
    let date = date.strip_prefix("Date: ").unwrap_or_default();
    let dated = date.len() == 10 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    known && dated && matches!(*door, "Door: one-way" | "Door: two-way")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, head: &str) -> Source {
        let sections: String = SECTIONS.iter().map(|name| format!("{name}\nx\n")).collect();
        Source { path: format!("adr/{name}"), text: format!("{head}\n{sections}") }
    }

    const STATUS: &str = "Status: accepted · Date: 2026-11-22 · Door: two-way";

    fn found(mut records: Vec<Source>) -> Vec<String> {
        let index =
            records.iter().map(|r| format!("[x]({})", r.path.trim_start_matches("adr/"))).collect();
        records.push(Source { path: INDEX.to_owned(), text: index });
        check(&records).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn a_whole_record_passes() {
        assert_eq!(found(vec![record("0001-a.md", &format!("# 0001: A\n{STATUS}"))]), [""; 0]);
    }

    #[test]
    fn finds_a_number_used_twice_and_a_title_that_differs() {
        let a = record("0001-a.md", &format!("# 0001: A\n{STATUS}"));
        let b = record("0001-b.md", &format!("# 0002: B\n{STATUS}"));
        assert_eq!(
            found(vec![a, b]),
            ["number 0001 is taken by 0001-a.md", "expected `# 0001: title`"]
        );
    }

    #[test]
    fn finds_a_status_that_is_none() {
        assert!(is_status("Status: superseded by 0007 · Date: 2026-11-22 · Door: one-way"));
        assert!(!is_status("Status: done · Date: 2026-11-22 · Door: one-way"));
        assert!(!is_status("Status: accepted · Date: soon · Door: one-way"));
    }
}
