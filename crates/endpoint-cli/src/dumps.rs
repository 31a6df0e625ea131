//! Does a crash write the keys to a disk? No: this process leaves no core dump.
//!
//! It cannot be traced by other programs of the same user either, and its environment, in which the secret
//! of the store may stand, is not theirs to read. Programs that it starts are as they would be without.

/// Forbids dumps of this process, before a key is read.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn forbid() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // Refused by nothing that is known; a filter of system calls must not end the program.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Forbids dumps of this process, before a key is read.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) const fn forbid() {}
