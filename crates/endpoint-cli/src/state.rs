//! Where does this endpoint keep its identity, its trust and its pins?
//!
//! In one folder: `--state`, else `ENDPOINT_STATE`, else systemd's `STATE_DIRECTORY`, else
//! `endpoint` in the platform's state folder.
//!
//! Always true: the folder is made with mode 0700, and one that other users may write to is
//! refused, because whoever can replace `authorized_peers` is authorised.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;

use crate::error::{CliError, Result, shell_word};

/// The state folder.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
    /// What commands in hints need to find the same folder: empty or ` --state DIR`.
    flag: String,
}

impl State {
    /// Finds the folder without touching it. `given` is the flag's or the variable's value.
    ///
    /// # Errors
    /// The user has no home folder and names no state folder.
    pub fn resolve(given: Option<&Path>) -> Result<Self> {
        let from_systemd = std::env::var_os("STATE_DIRECTORY");
        if let Some(folder) = given {
            let folder = std::path::absolute(folder)
                .map_err(|error| CliError::io("find the state folder", folder, &error))?;
            let flag = format!(" --state {}", shell_word(&folder));
            return Ok(Self { folder, flag });
        }
        if let Some(list) = from_systemd.filter(|list| !list.is_empty()) {
            // systemd separates several folders with colons; the first is ours.
            let list = list.to_string_lossy().into_owned();
            let folder = PathBuf::from(list.split(':').next().unwrap_or_default());
            let flag = format!(" --state {}", shell_word(&folder));
            return Ok(Self { folder, flag });
        }
        let platform = etcetera::base_strategy::choose_native_strategy().map_err(|_| {
            CliError::usage("no-state", "this user has no home folder to keep the state in")
                .hint("name a folder: endpoint --state DIR …, or set ENDPOINT_STATE")
        })?;
        let parent = platform.state_dir().unwrap_or_else(|| platform.data_dir());
        Ok(Self { folder: parent.join("endpoint"), flag: String::new() })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The identity key's file.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.file("identity.key")
    }

    /// The authorised peers' file.
    #[must_use]
    pub fn authorized(&self) -> PathBuf {
        self.file("authorized_peers")
    }

    /// The known peers' file.
    #[must_use]
    pub fn known(&self) -> PathBuf {
        self.file("known_peers")
    }

    /// `endpoint REST` as it has to be typed to mean this folder.
    #[must_use]
    pub fn command(&self, rest: &str) -> String {
        format!("endpoint{} {rest}", self.flag)
    }

    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// It cannot be made, is no folder, belongs to somebody else or is writable for others.
    pub fn make(&self) -> Result<()> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(|e| CliError::io("make the folder", parent, &e))?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => self.check(),
            Err(error) => Err(CliError::io("make the state folder", &self.folder, &error)),
        }
    }

    /// Checks the folder if it exists; a missing one is no fault.
    ///
    /// # Errors
    /// As [`State::make`].
    pub fn check(&self) -> Result<()> {
        let found = match fs::metadata(&self.folder) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CliError::io("open the state folder", &self.folder, &error)),
        };
        let name = self.folder.display();
        let word = shell_word(&self.folder);
        if !found.is_dir() {
            return Err(CliError::usage("state-folder", format!("{name} is not a folder"))
                .hint("name another one: endpoint --state DIR …"));
        }
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me {
            let owner = found.uid();
            let message = format!("the state folder {name} belongs to user {owner}, not to {me}");
            return Err(CliError::usage("state-folder", message)
                .hint(format!("give it to the user that runs endpoint: chown {me} {word}")));
        }
        if found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o777;
            let message = format!("other users may write to the state folder {name} ({mode:03o})");
            return Err(CliError::usage("state-folder", message).hint(format!("chmod 700 {word}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_the_folder_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let state = State::resolve(Some(&root.path().join("a/b"))).unwrap();
        state.check().unwrap();
        state.make().unwrap();
        assert_eq!(fs::metadata(state.folder()).unwrap().mode() & 0o777, 0o700);
        state.make().unwrap();
    }

    #[test]
    fn refuses_a_folder_that_others_may_write_to_and_says_how_to_mend_it() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let state = State::resolve(Some(root.path())).unwrap();
        let error = state.make().unwrap_err();
        assert!(error.message.contains("(777)"), "{error}");
        assert_eq!(error.hints, [format!("chmod 700 {}", root.path().display())]);
    }

    #[test]
    fn refuses_a_file_in_place_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = State::resolve(Some(&file)).unwrap().make().unwrap_err();
        assert!(error.message.ends_with("is not a folder"), "{error}");
    }

    #[test]
    fn names_the_folder_in_commands_only_when_it_was_given() {
        let state = State::resolve(Some(Path::new("/srv/a b"))).unwrap();
        assert_eq!(state.command("status"), "endpoint --state '/srv/a b' status");
    }
}
