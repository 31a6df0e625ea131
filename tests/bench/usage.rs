//! What has this process used up?

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads of this process, in user code and in the kernel.
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> Result<usize, String> {
    let statm = std::fs::read_to_string("/proc/self/statm")
        .map_err(|error| format!("cannot read /proc/self/statm: {error}"))?;
    let pages: Option<usize> = statm.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let pages = pages.ok_or("/proc/self/statm has no second number")?;
    Ok(pages * rustix::param::page_size())
}

/// CPU time of all threads of another process, in nanoseconds, as the scheduler counts it.
pub fn cpu_nanos_of(process: u32) -> Result<f64, String> {
    let folder = format!("/proc/{process}/task");
    let threads = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut nanos = 0.0;
    for thread in threads.flatten() {
        // A thread may end meanwhile.
        let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        nanos += text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    }
    Ok(nanos)
}
