//! Several processes have one store.

use std::collections::BTreeMap;

use super::*;

const PROCESSES: usize = 4;

#[test]
fn four_processes_on_one_store_order_once_for_each_name() {
    let names: Vec<String> =
        (0..endpoint_tests::count(10, 60)).map(|n| format!("name{n}.example")).collect();
    let material = Material::new(&["a.example"], PROCESSES);
    let folder = tempfile::tempdir().unwrap();
    // Nothing is there yet: they also race to make the secret and the store.
    let state = state(folder.path(), false);
    let log = folder.path().join("orders");
    let children: Vec<_> = (0..PROCESSES)
        .map(|n| {
            let (cert, key) = (material.cert(n), material.key(n));
            let mut rest = vec![log.as_path(), &cert, &key];
            let (head, tail) = names.split_at(n * names.len() / PROCESSES);
            // Each begins elsewhere, and comes to all of them.
            rest.extend(tail.iter().chain(head).map(Path::new));
            program("order", &state, NOW, &rest)
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut orders = BTreeMap::<String, usize>::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        *orders.entry(line.to_owned()).or_default() += 1;
    }
    assert_eq!(orders.len(), names.len());
    assert!(orders.values().all(|count| *count == 1), "{orders:?}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(opened(&state)).unwrap();
    assert_eq!(runtime.block_on(store.list(Kind::Account)).unwrap().len(), 1);
    assert!(runtime.block_on(served(&state, "a.example")).unwrap().is_some());
    assert!(exposed(&state, &material).is_empty());
    println!(
        "acceptance: {PROCESSES} processes, {} names: one order for each, one account",
        names.len()
    );
}
