//! A start that waits for somebody else's store can be ended, through the real program.

use std::fs;

use endpoint_tests::machine::Running;
use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::Signal,
};

use crate::{issued, machine};

/// Whether a process catches SIGTERM by now.
fn catches_sigterm(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (Signal::TERM.as_raw() - 1) != 0
}

#[test]
fn a_signal_ends_a_start_that_waits_for_a_store_that_another_process_holds() {
    let machine = machine("listen = [\"127.0.0.1:0\"]\nloopback_http = \"off\"\n");
    let kept = issued(&["kept.example"], 2024, 2099);
    let (chain, key) = (machine.file("kept.pem"), machine.file("kept.key"));
    fs::write(&chain, &kept.chain).unwrap();
    fs::write(&key, &kept.key).unwrap();
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let imported = machine.run(&["cert", "import", "--cert", chain, "--key", key]);
    assert_eq!(imported.code(), 0, "{imported:?}");
    let store = machine.file("endpoint.db");
    let store = fs::File::options().read(true).write(true).open(store).unwrap();
    fcntl_lock(&store, FlockOperation::NonBlockingLockExclusive).unwrap();
    let waiting = Running::start(machine.command(&["serve", "--json"]));
    while !catches_sigterm(waiting.pid()) {
        std::thread::yield_now();
    }
    waiting.signal(Signal::TERM);
    let said = waiting.end();
    // Waited for to its end, the store would be an error.
    assert_eq!((said.code(), said.out.as_str()), (0, ""), "{said:?}");
}
