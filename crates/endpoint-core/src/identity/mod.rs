//! Who is this key? The endpoint's own Ed25519 key, and the one name every key has.
//!
//! Ground. `key` holds the private key, `key_file` its file, `import` the private formats; `spki`
//! says which public keys are allowed, `fingerprint` what they are called, `text` how people write
//! them.

mod der;
mod fingerprint;
mod import;
mod key;
mod key_file;
pub(crate) mod odd;
mod pem;
mod spki;
mod text;

pub(crate) use self::spki::name_again;
pub(crate) use self::text::ssh_key_type;
pub use self::{
    fingerprint::{Fingerprint, ParseFingerprintError},
    import::ImportKeyError,
    key::{Identity, NoRandomness},
    key_file::KeyFileError,
    spki::{KeyError, PublicKey, spki_fingerprint},
    text::{KeyText, ParseKeyError},
};
