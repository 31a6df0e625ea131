//! Which secret seals the store, and is it one?
//!
//! From a file, which is made on first use, from the environment, or from the folder in which systemd hands
//! credentials over.
//!
//! Always true: fewer than 32 bytes, and bytes that are obviously not random, seal nothing; a secret stands
//! in no error; a new one is never made beside a store that another one has sealed.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use super::{
    StoreError,
    private::{self, Owner},
};
use crate::config::StoreSecret;

/// The bytes from which the keys of a store are derived; wiped when dropped.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The secret that is configured. `sealed`: the store that it has sealed already, if there is one.
    pub(super) fn load(from: &StoreSecret, sealed: Option<&Path>) -> Result<Self, StoreError> {
        match from {
            StoreSecret::File(path) => Self::of_file(path, sealed),
            StoreSecret::Environment(name) => {
                let text = env::var_os(name).ok_or_else(|| {
                    StoreError::Secret(format!(
                        "the environment variable {name} is not set; set it to the secret of the store, at \
                         least 32 random bytes as hex or base64"
                    ))
                })?;
                let text = Zeroizing::new(text.into_encoded_bytes());
                Self::parse(&text, &format!("the environment variable {name}"))
            }
            StoreSecret::Credential(name) => Self::of_credential(name),
        }
    }

    /// The secret in a file that must be there.
    pub(super) fn existing(path: &Path) -> Result<Option<Self>, StoreError> {
        let bytes = private::read(path, Owner::Us).map_err(refused)?;
        bytes.map(|bytes| Self::parse(&bytes, &shown(path))).transpose()
    }

    /// The secret in that file, which is made if there is none.
    pub(super) fn obtain(path: &Path) -> Result<Self, StoreError> {
        if let Some(secret) = Self::existing(path)? {
            return Ok(secret);
        }
        private::folder(path).map_err(refused)?;
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bytes)
            .map_err(|_| refused("the system gives no randomness".to_owned()))?;
        let mut text = Zeroizing::new(String::with_capacity(72));
        HEXLOWER_PERMISSIVE.encode_append(&*bytes, &mut text);
        text.push('\n');
        // Whoever was first: what stands there is the secret.
        private::create(path, text.as_bytes()).map_err(refused)?;
        Self::existing(path)?
            .ok_or_else(|| refused(format!("{} vanished while it was made", shown(path))))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn of_file(path: &Path, sealed: Option<&Path>) -> Result<Self, StoreError> {
        match (Self::existing(path)?, sealed) {
            (Some(secret), _) => Ok(secret),
            (None, None) => Self::obtain(path),
            (None, Some(store)) => Err(StoreError::Secret(format!(
                "the secret file `{}` does not exist, but the store `{}` is sealed with it; put the file back \
                 from a backup, or move the store away to begin anew",
                path.display(),
                store.display()
            ))),
        }
    }

    fn of_credential(name: &str) -> Result<Self, StoreError> {
        let folder = env::var_os(CREDENTIALS).ok_or_else(|| {
            refused(format!(
                "{CREDENTIALS} is not set, so there is no credential `{name}`; `LoadCredential={name}:FILE` in \
                 the unit hands it over"
            ))
        })?;
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(refused(format!("`{}` is no name of a credential", name.escape_debug())));
        }
        let path = PathBuf::from(folder).join(name);
        match private::read(&path, Owner::UsOrRoot).map_err(refused)? {
            Some(bytes) => Self::parse(&bytes, &shown(&path)),
            None => Err(refused(format!(
                "{} does not exist; `LoadCredential={name}:FILE` in the unit hands it over",
                shown(&path)
            ))),
        }
    }

    /// Hex or base64 of at least 32 bytes, white space around it aside.
    fn parse(text: &[u8], place: &str) -> Result<Self, StoreError> {
        let text = text.trim_ascii();
        let forms = [HEXLOWER_PERMISSIVE, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD];
        let bytes = forms.iter().find_map(|form| form.decode(text).ok().map(Zeroizing::new));
        let Some(bytes) = bytes else {
            return Err(refused(format!(
                "the secret in {place} is neither hex nor base64; `openssl rand -hex 32` makes one"
            )));
        };
        if bytes.len() < LEAST {
            return Err(refused(format!(
                "the secret in {place} has {} bytes, expected at least {LEAST}; `openssl rand -hex 32` makes one",
                bytes.len()
            )));
        }
        if !looks_random(&bytes) {
            return Err(refused(format!(
                "the secret in {place} is obviously not random; `openssl rand -hex 32` makes one"
            )));
        }
        Ok(Self(bytes))
    }
}

/// Whether nobody typed these: 32 random bytes have fewer than 16 values once in 10^13 times.
fn looks_random(bytes: &[u8]) -> bool {
    let mut found = [false; 256];
    for byte in bytes {
        if let Some(found) = found.get_mut(usize::from(*byte)) {
            *found = true;
        }
    }
    let values = found.iter().filter(|found| **found).count();
    let step = |pair: &[u8]| match pair {
        [a, b] => b.wrapping_sub(*a),
        _ => 0,
    };
    let mut steps = bytes.windows(2).map(step);
    let first = steps.next();
    values >= 16 && !steps.all(|step| Some(step) == first)
}

fn refused(text: String) -> StoreError {
    StoreError::Secret(text)
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
const LEAST: usize = 32;

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    fn parsed(text: &str) -> Result<Secret, String> {
        Secret::parse(text.as_bytes(), "`there`").map_err(|error| error.to_string())
    }

    fn random(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn takes_32_random_bytes_in_every_form() {
        let bytes = random(32);
        for form in [HEXLOWER_PERMISSIVE, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD] {
            let text = format!(" {}\n", form.encode(&bytes));
            assert_eq!(parsed(&text).unwrap().bytes(), bytes);
        }
        assert_eq!(parsed(&data_encoding::HEXUPPER.encode(&bytes)).unwrap().bytes(), bytes);
    }

    #[test]
    fn refuses_what_is_short_or_typed_and_repeats_none_of_it() {
        let counted: Vec<u8> = (0..32).collect();
        for text in [
            HEXLOWER_PERMISSIVE.encode(&random(31)),
            BASE64.encode(&random(31)),
            String::new(),
            "correct horse battery staple correct horse".to_owned(),
            HEXLOWER_PERMISSIVE.encode(&[0; 32]),
            "a".repeat(64),
            HEXLOWER_PERMISSIVE.encode(&counted),
            HEXLOWER_PERMISSIVE.encode(&b"passwordpasswordpasswordpassword"[..]),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains("`there`") && error.contains("openssl rand"), "{error}");
            assert!(text.is_empty() || !error.contains(&text), "{error}");
        }
        assert_eq!(format!("{:?}", parsed(&BASE64.encode(&random(40))).unwrap()), "Secret(..)");
    }

    #[test]
    fn makes_a_file_for_its_owner_alone_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/store.secret");
        let from = StoreSecret::File(path.clone());
        let first = Secret::load(&from, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside"
        );
        assert!(Secret::load(&from, None).unwrap() == first);
    }

    #[test]
    fn makes_none_beside_a_store_that_is_sealed_already() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.secret");
        let store = folder.path().join("endpoint.db");
        let error =
            Secret::load(&StoreSecret::File(path.clone()), Some(&store)).unwrap_err().to_string();
        for part in [path.to_str().unwrap(), store.to_str().unwrap(), "backup"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn refuses_a_file_that_others_may_have_read_or_put_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.secret");
        let from = StoreSecret::File(path.clone());
        Secret::load(&from, None).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o700] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = Secret::load(&from, None).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{mode:04o}")) && error.contains("chmod 600"),
                "{error}"
            );
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            let error = Secret::load(&from, None).unwrap_err().to_string();
            assert!(error.contains("65534") && error.contains("chown"), "{error}");
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        let error = Secret::load(&from, None).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(Secret::load(&from, None).unwrap_err().to_string().contains("folder"));
        fs::remove_dir(&path).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let error = Secret::load(&from, None).unwrap_err().to_string();
        assert!(error.contains("others may change the folder"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn says_what_is_missing_in_the_environment() {
        let name = "ENDPOINT_TEST_NO_SUCH_SECRET".to_owned();
        let error = Secret::load(&StoreSecret::Environment(name.clone()), None).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
        let error = Secret::load(&StoreSecret::Credential("../x".into()), None).unwrap_err();
        assert!(error.to_string().contains("credential"), "{error}");
    }

    #[test]
    fn many_that_begin_at_once_get_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let from = StoreSecret::File(folder.path().join("store.secret"));
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Secret::load(&from, None).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
