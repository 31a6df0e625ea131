//! What the tests share: endpoints on free ports of loopback, hostile clients, the program as a process.

pub mod chance;
pub mod crowd;
pub mod exchange;
pub mod faults;
pub mod faulty_ca;
pub mod forge;
pub mod fuzz;
pub mod http;
pub mod machine;
pub mod node;
pub mod path;
pub mod pebble;
pub mod ports;
pub mod relay;
pub mod served;
pub mod shown;
pub mod swallow;
pub mod weak;
pub mod who;
pub mod wire;

/// Whether the full counts of the acceptance lines run (`cargo xtask long`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("ENDPOINT_TEST_LONG").is_some()
}

/// `short` in the quick run, `full` in the long one.
#[must_use]
pub fn count(short: usize, full: usize) -> usize {
    if long() { full } else { short }
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes))
}

/// Waits until `condition` holds, looking every few milliseconds.
///
/// # Panics
/// If it does not hold within ten seconds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let ends = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < ends, "waited in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Waits for `future`, at most `seconds`.
///
/// # Panics
/// If it takes longer.
pub async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(std::time::Duration::from_secs(seconds), future).await {
        Ok(done) => done,
        Err(_) => panic!("took longer than {seconds} s: {what}"),
    }
}
