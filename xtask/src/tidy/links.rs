//! Does every link between the documents lead somewhere?

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source};

/// Checks the links of all documents; `paths` are all files of the repository.
pub fn check(markdown: &[Source], paths: &BTreeSet<String>) -> Vec<Finding> {
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        markdown.iter().map(|source| (source.path.as_str(), headings(&source.text))).collect();
    let mut findings = Vec::new();
    for source in markdown {
        for (line, target) in targets(&source.text) {
            if let Err(text) = resolve(&source.path, &target, paths, &anchors) {
                findings.push(Finding::error(&source.path, line, text));
            }
        }
    }
    findings
}

fn resolve(
    from: &str,
    target: &str,
    paths: &BTreeSet<String>,
    anchors: &BTreeMap<&str, BTreeSet<String>>,
) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let whole = if path.is_empty() { from.to_owned() } else { join(from, path) };
    let is_folder =
        || paths.iter().any(|p| p.starts_with(&format!("{}/", whole.trim_end_matches('/'))));
    if !paths.contains(&whole) && !is_folder() {
        return Err(format!("link to `{target}`, which is not there"));
    }
    match anchors.get(whole.as_str()) {
        Some(known) if !anchor.is_empty() && !known.contains(anchor) => {
            Err(format!("link to `{target}`: no such heading"))
        }
        _ => Ok(()),
    }
}

/// `path` as seen from the file `from`.
fn join(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Lines outside fenced blocks, with their number from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(n, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((n + 1, line))
    })
}

/// The targets of `[text](target)`, code spans left out.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in prose(text) {
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("");
        let mut rest = plain.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, more)) = after.split_once(')') else { break };
            found.push((n, target.split_whitespace().next().unwrap_or_default().to_owned()));
            rest = more;
        }
    }
    found
}

/// Anchors of the headings, formed as code hosts do.
fn headings(text: &str) -> BTreeSet<String> {
    let heads = prose(text).filter(|(_, line)| line.starts_with('#'));
    heads.map(|(_, line)| slug(line.trim_start_matches('#').trim())).collect()
}

fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let sources = [
            Source { path: "docs/a.md".to_owned(), text: text.to_owned() },
            Source { path: "adr/0001-x.md".to_owned(), text: "# 0001: Keys & names\n".to_owned() },
        ];
        let paths = ["docs/a.md", "adr/0001-x.md", "crates/c/src/lib.rs"];
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        check(&sources, &paths).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn follows_files_folders_and_headings() {
        assert_eq!(
            found("# Top\n[a](../adr/0001-x.md#0001-keys--names) [b](#top) [c](../crates/c/)"),
            [""; 0]
        );
        assert_eq!(found("[a](https://example.com/x)"), [""; 0]);
    }

    #[test]
    fn finds_a_link_that_leads_nowhere() {
        assert_eq!(found("[a](b.md)"), ["link to `b.md`, which is not there"]);
        assert_eq!(found("[a](../adr/0001-x.md#no)").len(), 1);
    }

    #[test]
    fn leaves_code_alone() {
        assert_eq!(found("`x[0](y)`\n```text\n[a](b.md)\n```\n"), [""; 0]);
    }
}
