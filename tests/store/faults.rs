//! Each file operation of each command fails once, in each way.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use endpoint_tests::faults::{Fault, Shim, copy, points, spread};

use super::*;

const NAME: &str = "a.example";

/// A command, and what was done before it.
struct Case {
    command: &'static str,
    before: &'static [&'static str],
    /// The certificate that is there before and the one that is there when it is done.
    from: Option<usize>,
    to: Option<usize>,
}

const CASES: &[Case] = &[
    Case { command: "account", before: &[], from: None, to: None },
    Case { command: "issue", before: &[], from: None, to: Some(0) },
    Case { command: "issue", before: &["account", "issue 0"], from: Some(0), to: Some(1) },
    Case { command: "issue-twice", before: &["account", "issue 0"], from: Some(0), to: Some(1) },
    Case { command: "import", before: &["import 0"], from: Some(0), to: Some(1) },
    Case { command: "rekey", before: &["issue 0"], from: Some(0), to: Some(0) },
];

impl Case {
    fn run(&self, material: &Material, state: &Path, now: &str) -> Command {
        command(self.command, self.to.unwrap_or(0), material, state, now)
    }

    /// A folder in which everything was done that comes before.
    fn prepared(&self, material: &Material, inside: &Path) -> PathBuf {
        let state = state(inside, !self.before.is_empty());
        for step in self.before {
            let (step, number) = step.split_once(' ').unwrap_or((step, "0"));
            must(command(step, number.parse().unwrap(), material, &state, NOW));
        }
        state
    }

    /// What is wrong after a fault.
    fn wrongs(
        &self,
        material: &Material,
        state: &Path,
        output: &std::process::Output,
        fault: Fault,
    ) -> Vec<String> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut wrongs = Vec::new();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if material.shown_in(&output.stderr) || material.shown_in(&output.stdout) {
            wrongs.push("the output shows a key".to_owned());
        }
        if !fault.kills() && !output.status.success() && !said.starts_with("error: ") {
            wrongs.push(format!("no error that says what is wrong: {} {said}", output.status));
        }
        if self.command == "issue-twice" && !fault.kills() && !output.status.success() {
            wrongs.push(format!("it did not recover: {said}"));
        }
        wrongs.extend(exposed(state, material));
        let pem = |n: Option<usize>| n.map(|n| material.pem(n));
        let (from, to) = (pem(self.from), pem(self.to));
        // One that never came to make its folder left nothing to open.
        match runtime.block_on(served(state, NAME)) {
            Ok(found) if output.status.success() && found != to => {
                wrongs.push("it said yes, and the new certificate is not there".to_owned());
            }
            Ok(found) if found != from && found != to => {
                wrongs.push(format!("neither the old nor the new: {found:?}"));
            }
            Ok(_) => {}
            Err(why) => wrongs.push(format!("does not load: {why}")),
        }
        let again = self.run(material, state, LATER).output().unwrap();
        if !again.status.success() {
            let said = String::from_utf8_lossy(&again.stderr);
            wrongs.push(format!("the next run fails: {said}"));
        }
        match runtime.block_on(served(state, NAME)) {
            Ok(found) if found == to => {}
            other => wrongs.push(format!("the next run left {other:?}")),
        }
        wrongs.extend(exposed(state, material));
        wrongs
    }
}

fn command(step: &str, number: usize, material: &Material, state: &Path, now: &str) -> Command {
    let (cert, key) = (material.cert(number), material.key(number));
    match step {
        "account" => program(step, state, now, &[&key]),
        "import" => program(step, state, now, &[&cert, &key]),
        "issue" | "issue-twice" => program(step, state, now, &[Path::new(NAME), &cert, &key]),
        step => program(step, state, now, &[]),
    }
}

#[test]
fn no_fault_of_a_file_operation_loses_or_shows_anything() {
    let shim = Shim::build();
    let material = Material::new(&[NAME], 2);
    let mut all = Vec::new();
    let prepared: Vec<_> = CASES
        .iter()
        .enumerate()
        .map(|(n, case)| {
            let folder = tempfile::tempdir().unwrap();
            let before = case.prepared(&material, folder.path());
            let counting = tempfile::tempdir().unwrap();
            let state = counting.path().join("state");
            if before.exists() {
                copy(&before, &state);
            }
            let operations = shim.count(case.run(&material, &state, NOW), counting.path());
            assert!(operations.len() > 10, "{}: {} operations", case.command, operations.len());
            all.extend(points(&operations).into_iter().map(|point| (n, point)));
            (folder, before)
        })
        .collect();
    let chosen = spread(&all, endpoint_tests::count(200, 1500));
    let next = AtomicUsize::new(0);
    let wrongs = Mutex::new(Vec::new());
    let (killed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((n, (at, fault))) = chosen.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let case = &CASES[*n];
                    let folder = tempfile::tempdir().unwrap();
                    let state = folder.path().join("state");
                    if prepared[*n].1.exists() {
                        copy(&prepared[*n].1, &state);
                    }
                    let run = case.run(&material, &state, NOW);
                    let output = shim.run(run, folder.path(), *at, *fault);
                    match output.status.code() {
                        None => killed.fetch_add(1, Ordering::Relaxed),
                        Some(0) => 0,
                        Some(_) => refused.fetch_add(1, Ordering::Relaxed),
                    };
                    for wrong in case.wrongs(&material, &state, &output, *fault) {
                        let at = format!("case {n} {}: operation {at}, {fault:?}", case.command);
                        wrongs.lock().unwrap().push(format!("{at}: {wrong}"));
                    }
                }
            });
        }
    });
    let wrongs = wrongs.into_inner().unwrap();
    assert!(wrongs.is_empty(), "{} wrongs:\n{}", wrongs.len(), wrongs.join("\n"));
    let (killed, refused) = (killed.into_inner(), refused.into_inner());
    assert!(killed > chosen.len() / 4 && refused > chosen.len() / 8, "{killed} {refused}");
    println!(
        "acceptance: {} of {} fault points of account, issue, renew, import, rekey ({killed} kills, {refused} \
         refusals): 0 certificates lost, 0 corrupt loads, 0 key bytes readable, every next run right",
        chosen.len(),
        all.len()
    );
}
