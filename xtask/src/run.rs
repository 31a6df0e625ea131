//! How does a step run? A command is printed, run to its end and judged by its exit code.
//!
//! Always true: no step is skipped without a printed line, and a failed step makes the whole
//! command fail even when later steps pass.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Why a command of `cargo xtask` failed, as one sentence.
pub type Outcome = Result<(), String>;

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The cargo that runs us, so that a toolchain override holds for the steps too.
pub fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// The command as somebody would type it.
pub fn spell(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            text.push_str(&format!("{}={:?} ", name.to_string_lossy(), value.to_string_lossy()));
        }
    }
    let program = Path::new(command.get_program());
    text.push_str(&program.file_name().unwrap_or_default().to_string_lossy());
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// What the `test result:` lines of a run of `cargo test` add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub binaries: u64,
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Tally {
    /// Adds a line if it is a `test result:` line.
    pub fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result:") else { return };
        self.binaries += 1;
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(kind)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match kind {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { binaries, passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored in {binaries} binaries")
    }
}

/// The steps of one command, timed, with a summary at the end.
pub struct Steps {
    name: &'static str,
    done: Vec<(String, bool, Duration)>,
}

impl Steps {
    pub fn new(name: &'static str) -> Self {
        Self { name, done: Vec::new() }
    }

    /// Runs a command with its output shown as it comes.
    pub fn run(&mut self, what: &str, command: &mut Command) -> bool {
        self.step(what, &spell(command), || {
            let status = command.stdin(Stdio::null()).status();
            status.map(|status| status.success()).unwrap_or_else(|error| {
                eprintln!("error: cannot start {}: {error}", spell(command));
                false
            })
        })
    }

    /// Runs a command, shows its standard output as it comes and gives every line to `look`.
    pub fn watch(&mut self, what: &str, command: &mut Command, mut look: impl FnMut(&str)) -> bool {
        self.step(what, &spell(command), || {
            let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
            let mut child = match child {
                Ok(child) => child,
                Err(error) => {
                    eprintln!("error: cannot start {}: {error}", spell(command));
                    return false;
                }
            };
            if let Some(stdout) = child.stdout.take() {
                let mut reader = BufReader::new(stdout);
                let mut line = Vec::new();
                while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                    let _ = std::io::stdout().write_all(&line);
                    look(String::from_utf8_lossy(&line).trim_end());
                    line.clear();
                }
            }
            child.wait().is_ok_and(|status| status.success())
        })
    }

    /// Does a step that is not a command.
    pub fn step(&mut self, what: &str, how: &str, work: impl FnOnce() -> bool) -> bool {
        println!("==> {what}: {how}");
        let start = Instant::now();
        let passed = work();
        let took = start.elapsed();
        println!("<== {what}: {} in {:.1} s", word(passed), took.as_secs_f64());
        self.done.push((what.to_owned(), passed, took));
        passed
    }

    /// Prints the summary and fails if any step did.
    pub fn finish(self) -> Outcome {
        println!("\n{} summary", self.name);
        let mut failed = Vec::new();
        for (what, passed, took) in &self.done {
            println!("  {:6} {:>7.1} s  {what}", word(*passed), took.as_secs_f64());
            if !passed {
                failed.push(what.as_str());
            }
        }
        match failed.as_slice() {
            [] => Ok(()),
            some => Err(format!("{} failed: {}", self.name, some.join(", "))),
        }
    }
}

fn word(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_result_lines_of_cargo_test() {
        let mut tally = Tally::default();
        tally.read("running 3 tests");
        tally.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.read("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured");
        assert_eq!(tally, Tally { binaries: 2, passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_failed_step_fails_the_whole_although_a_later_one_passes() {
        let mut steps = Steps::new("probe");
        steps.step("first", "", || false);
        steps.step("second", "", || true);
        assert_eq!(steps.finish(), Err("probe failed: first".to_owned()));
    }

    #[test]
    fn spells_a_command_with_its_environment() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["doc", "--locked"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(spell(&command), "RUSTDOCFLAGS=\"-D warnings\" cargo doc --locked");
    }
}
