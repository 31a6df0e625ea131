//! Which programs that are not ours do the tests talk to, and where do they come from?
//!
//! Real parts come from the Debian archive. A part that is there is used as it is; a missing one is
//! installed, and when that cannot be done the tests do not run: a test that silently leaves out
//! its real part proves nothing. Some of them also need root while they run, for file systems of their
//! own and for capabilities.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::run::Outcome;

/// A program that tests start, and the Debian package that has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part {
    pub program: &'static str,
    pub package: &'static str,
}

/// Every real part that the test binaries named `interop*` and `acme` start.
pub const PARTS: &[Part] = &[
    Part { program: "chromium", package: "chromium" },
    Part { program: "curl", package: "curl" },
    Part { program: "gh", package: "gh" },
    Part { program: "gnutls-cli", package: "gnutls-bin" },
    Part { program: "gtlsclient", package: "ngtcp2-client" },
    // A library, which fusepy loads.
    Part { program: "libfuse.so.2", package: "libfuse2" },
    Part { program: "mount", package: "mount" },
    Part { program: "node", package: "nodejs" },
    Part { program: "openssl", package: "openssl" },
    Part { program: "pebble", package: "pebble" },
    Part { program: "pebble-challtestsrv", package: "pebble" },
    // Their packages from PyPI come by `python3 -m pip`.
    Part { program: "pip3", package: "python3-pip" },
    Part { program: "python3", package: "python3" },
    Part { program: "setpriv", package: "util-linux" },
    Part { program: "ssh-keygen", package: "openssh-client" },
    Part { program: "systemd-analyze", package: "systemd" },
    Part { program: "systemd-sysusers", package: "systemd" },
    Part { program: "umount", package: "mount" },
    Part { program: "unshare", package: "util-linux" },
];

/// The device of file systems in user space.
const FUSE: &str = "/dev/fuse";

/// Makes sure that every part is there, and that the tests may use it.
pub fn provide() -> Outcome {
    let missing = missing(PARTS, &search_path());
    for part in PARTS {
        let state = if missing.contains(part) { "missing" } else { "present" };
        println!("    {} (Debian package {}): {state}", part.program, part.package);
    }
    if missing.is_empty() {
        return allowed(is_root(), Path::new(FUSE));
    }
    let packages: Vec<&str> = missing.iter().map(|part| part.package).collect();
    let by_hand = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !is_root() {
        return Err(format!(
            "{} missing and this is not root; run `{by_hand}` as root, or `cargo xtask test --hermetic`",
            packages.join(", ")
        ));
    }
    apt(&["update"])?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&packages);
    apt(&install)?;
    match self::missing(&missing, &search_path()).first() {
        None => allowed(true, Path::new(FUSE)),
        Some(part) => Err(format!("{} is still missing after `{by_hand}`", part.program)),
    }
}

/// Whether the tests may mount and give capabilities.
fn allowed(root: bool, fuse: &Path) -> Outcome {
    if !root {
        return Err(
            "some of these tests mount file systems and give capabilities; run this as root, or \
                    `cargo xtask test --hermetic`"
                .to_owned(),
        );
    }
    if !fuse.exists() {
        return Err(format!(
            "{} is missing, which the tests of disks that hang need; load the kernel's module (`modprobe fuse`), \
             give the container the device (`--device {0} --cap-add SYS_ADMIN`), or run `cargo xtask test \
             --hermetic`",
            fuse.display()
        ));
    }
    Ok(())
}

fn missing(parts: &[Part], folders: &[PathBuf]) -> Vec<Part> {
    let there = |part: &Part| folders.iter().any(|folder| folder.join(part.program).is_file());
    parts.iter().copied().filter(|part| !there(part)).collect()
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let libraries = ["/lib", "/usr/lib"]
        .map(|folder| Path::new(folder).join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    std::env::split_paths(&path).chain(libraries).collect()
}

/// Whether this process may install packages: effective uid 0 (Linux).
fn is_root() -> bool {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1))
        == Some("0")
}

fn apt(args: &[&str]) -> Outcome {
    println!("    apt-get {}", args.join(" "));
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cannot start apt-get: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("apt-get {} failed", args.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_only_the_parts_that_no_folder_of_the_path_has() {
        let folder = tempfile::tempdir().unwrap();
        for part in PARTS.iter().filter(|part| part.program != "gnutls-cli") {
            std::fs::write(folder.path().join(part.program), "").unwrap();
        }
        let missing = missing(PARTS, &[folder.path().to_path_buf()]);
        assert_eq!(missing, [Part { program: "gnutls-cli", package: "gnutls-bin" }]);
    }

    #[test]
    fn asks_for_root_and_for_the_device_of_file_systems() {
        let folder = tempfile::tempdir().unwrap();
        let fuse = folder.path().join("fuse");
        assert!(allowed(false, &fuse).unwrap_err().contains("as root"));
        assert!(allowed(true, &fuse).unwrap_err().contains("modprobe fuse"));
        std::fs::write(&fuse, "").unwrap();
        assert_eq!(allowed(true, &fuse), Ok(()));
    }
}
