//! Is every task's front matter whole, its id its path, its dependencies there?

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source};

/// The keys of the front matter; an empty list of values means any text.
const KEYS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("name", &[]),
    ("status", &["pending", "active", "blocked", "completed", "dropped"]),
    ("depends_on", &[]),
    ("scope", &["narrow", "moderate", "broad"]),
    ("risk", &["low", "medium", "high"]),
    ("impact", &["local", "component", "project"]),
    ("level", &["decision", "implementation", "review"]),
];

const SECTIONS: &[&str] =
    &["## Goal", "## Plan", "## Leave alone", "## Done when", "## References"];

const INDEX: &str = "tasks/README.md";

/// Checks every file under `tasks/`.
pub fn check(markdown: &[Source]) -> Vec<Finding> {
    let tasks: Vec<&Source> =
        markdown.iter().filter(|s| s.path.starts_with("tasks/") && s.path != INDEX).collect();
    let ids: BTreeSet<&str> = tasks.iter().map(|task| id_of(&task.path)).collect();
    let index = markdown.iter().find(|s| s.path == INDEX).map_or("", |s| s.text.as_str());
    let mut findings = Vec::new();
    let mut edges: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for task in &tasks {
        let id = id_of(&task.path);
        let mut say = |text: String| findings.push(Finding::error(&task.path, 0, text));
        if !index.contains(&format!("({id}.md)")) {
            say(format!("not listed in {INDEX}"));
        }
        for section in SECTIONS.iter().filter(|name| !has_line(&task.text, name)) {
            say(format!("no section `{section}`"));
        }
        let front = match front_matter(&task.text) {
            Ok(front) => front,
            Err(error) => {
                say(error);
                continue;
            }
        };
        for (key, values) in KEYS {
            match front.get(*key).map(String::as_str) {
                None => say(format!("front matter has no `{key}`")),
                Some("") => say(format!("`{key}` is empty")),
                Some(value) if !values.is_empty() && !values.contains(&value) => {
                    say(format!("`{key}: {value}`, expected one of {}", values.join(", ")));
                }
                Some(_) => {}
            }
        }
        for key in front.keys().filter(|key| !KEYS.iter().any(|(known, _)| known == key)) {
            say(format!("unknown key `{key}`"));
        }
        if front.get("id").is_some_and(|given| given != id) {
            say(format!("id `{}` is not the path `{id}`", front["id"]));
        }
        let needs = list(front.get("depends_on").map_or("[]", String::as_str));
        for needed in needs.iter().filter(|needed| !ids.contains(needed.as_str())) {
            say(format!("depends on `{needed}`, which is no task"));
        }
        edges.insert(id, needs);
    }
    findings.extend(cycles(&edges));
    findings
}

fn id_of(path: &str) -> &str {
    path.trim_start_matches("tasks/").trim_end_matches(".md")
}

fn has_line(text: &str, start: &str) -> bool {
    text.lines().any(|line| line.starts_with(start))
}

/// `key: value  # comment` lines between the two `---`.
fn front_matter(text: &str) -> Result<BTreeMap<String, String>, String> {
    let rest = text.strip_prefix("---\n").ok_or("no front matter: the first line is not `---`")?;
    let (front, _) = rest.split_once("\n---\n").ok_or("front matter without an end")?;
    front
        .lines()
        .map(|line| {
            let (key, value) = line.split_once(':').ok_or(format!("`{line}` has no `:`"))?;
            let value = value.split(" #").next().unwrap_or_default();
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn list(text: &str) -> Vec<String> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// Tasks that wait for themselves: those left when every task without open needs is taken away.
fn cycles(edges: &BTreeMap<&str, Vec<String>>) -> Vec<Finding> {
    let mut open = edges.clone();
    loop {
        let ready: Vec<&str> = open
            .iter()
            .filter(|(_, needs)| !needs.iter().any(|need| open.contains_key(need.as_str())))
            .map(|(id, _)| *id)
            .collect();
        if ready.is_empty() {
            break;
        }
        open.retain(|id, _| !ready.contains(id));
    }
    open.keys()
        .map(|id| {
            Finding::error(&format!("tasks/{id}.md"), 0, "waits for itself through depends_on")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, change: impl Fn(String) -> String) -> Source {
        let text = format!(
            "---\nid: {id}\nname: x\nstatus: active # now\ndepends_on: []\nscope: narrow\nrisk: low\n\
             impact: local\nlevel: implementation\n---\n## Goal\n## Plan\n## Leave alone\n\
             ## Done when\n## References\n"
        );
        Source { path: format!("tasks/{id}.md"), text: change(text) }
    }

    fn found(mut tasks: Vec<Source>) -> Vec<String> {
        let index = tasks.iter().map(|task| format!("[x]({}.md)", id_of(&task.path))).collect();
        tasks.push(Source { path: INDEX.to_owned(), text: index });
        check(&tasks).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn a_whole_task_passes() {
        assert_eq!(found(vec![task("tls/choose", |text| text)]), [""; 0]);
    }

    #[test]
    fn names_what_is_wrong_in_the_front_matter() {
        let wrong = |from: &'static str, to: &'static str| {
            found(vec![task("tls/choose", move |text| text.replace(from, to))])
        };
        assert_eq!(
            wrong("id: tls/choose", "id: tls/chose"),
            ["id `tls/chose` is not the path `tls/choose`"]
        );
        assert_eq!(wrong("risk: low\n", ""), ["front matter has no `risk`"]);
        assert_eq!(wrong("[]", "[tls/none]"), ["depends on `tls/none`, which is no task"]);
        assert_eq!(wrong("scope: narrow", "scope: tiny").len(), 1);
        assert_eq!(wrong("## Plan\n", ""), ["no section `## Plan`"]);
        assert_eq!(wrong("name: x", "name: x\nowner: y"), ["unknown key `owner`"]);
    }

    #[test]
    fn finds_tasks_that_wait_for_each_other() {
        let a = task("a/a", |text| text.replace("[]", "[a/b]"));
        let b = task("a/b", |text| text.replace("[]", "[a/a]"));
        assert_eq!(found(vec![a, b]).len(), 2);
    }

    #[test]
    fn finds_a_task_that_the_index_lacks() {
        assert_eq!(check(&[task("a/a", |text| text)]).len(), 1);
    }
}
