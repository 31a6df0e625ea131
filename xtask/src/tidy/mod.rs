//! Which rules hold here that no compiler checks?
//!
//! One file per kind of rule; each is a pure function from text to [`Finding`]s, so that the rules
//! themselves have tests. Only this file walks folders and prints.

mod adr;
mod advisories;
mod imports;
mod limits;
mod links;
mod lock;
mod scan;
mod source;
mod tasks;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use crate::run::Outcome;

/// One broken rule at one place.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    pub file: String,
    /// Counted from 1; 0 means the file as a whole.
    pub line: usize,
    pub text: String,
    /// Warnings are printed and do not fail.
    pub warning: bool,
}

impl Finding {
    pub fn error(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, text: text.into(), warning: false }
    }

    pub fn warning(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(file, line, text) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.warning { "warning" } else { "error" };
        match self.line {
            0 => write!(f, "{word}: {}: {}", self.file, self.text),
            line => write!(f, "{word}: {}:{line}: {}", self.file, self.text),
        }
    }
}

/// A file of the repository: its path from the root, with `/`, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: String,
    pub text: String,
}

/// `cargo xtask tidy`.
pub fn tidy(root: &Path, advisory_db: Option<PathBuf>) -> Outcome {
    let files = walk(root)?;
    let paths: BTreeSet<String> = files.iter().cloned().collect();
    let rust = read(root, &files, ".rs")?;
    let markdown = read(root, &files, ".md")?;
    let lock = read_one(root, "Cargo.lock")?;

    let mut findings = Vec::new();
    for source in &rust {
        findings.extend(source::check(source));
        findings.extend(imports::check(source));
    }
    findings.extend(limits::check(root, &rust)?);
    findings.extend(tasks::check(&markdown));
    findings.extend(adr::check(&markdown));
    findings.extend(links::check(&markdown, &paths));
    findings.extend(lock::check(&lock));
    match advisory_db.or_else(|| advisories::find(root)) {
        Some(folder) => {
            let deny = read_one(root, "deny.toml")?;
            let (checked, found) = advisories::check(&folder, &lock, &deny)?;
            println!("advisories: {checked} of the crates in Cargo.lock compared");
            findings.extend(found);
        }
        None => println!(
            "advisories: not compared; give a RustSec snapshot with --advisory-db DIR or ADVISORY_DB"
        ),
    }

    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| !finding.warning).count();
    println!(
        "tidy: {} Rust files, {} documents, {errors} errors, {} warnings",
        rust.len(),
        markdown.len(),
        findings.len() - errors
    );
    if errors == 0 { Ok(()) } else { Err(format!("tidy found {errors} errors")) }
}

/// Every file that belongs to the repository, as paths from the root, sorted.
fn walk(root: &Path) -> Result<Vec<String>, String> {
    const FOREIGN: [&str; 4] = [".git", "target", "artifacts", "coverage"];
    let mut open = vec![PathBuf::new()];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        let whole = root.join(&folder);
        let entries = std::fs::read_dir(&whole)
            .map_err(|error| format!("cannot read {}: {error}", whole.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = folder.join(&name);
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !FOREIGN.iter().any(|foreign| name == *foreign) {
                open.push(path);
            } else if !is_folder {
                files.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(root: &Path, files: &[String], ending: &str) -> Result<Vec<Source>, String> {
    let chosen = files.iter().filter(|path| path.ends_with(ending));
    chosen.map(|path| Ok(Source { path: path.clone(), text: read_one(root, path)? })).collect()
}

fn read_one(root: &Path, path: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(path)).map_err(|error| format!("cannot read {path}: {error}"))
}
