//! `endpoint bundle …`: signing and checking shared certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use endpoint_core::identity::{KeyText, PublicKey};

/// Examples of the whole.
pub(super) const EXAMPLES: &str = "Examples:
  endpoint bundle sign --cert chain.pem --key key.pem --signer signer.key --out site.bundle
  endpoint bundle verify site.bundle --signer ed25519:1f…c3

A site takes it with certificate = { bundle = \"site.bundle\", signer = \"ed25519:…\" }, on loopback
addresses only.";

/// `endpoint bundle …`.
#[derive(Debug, Subcommand)]
pub enum Bundle {
    /// Put a certificate chain and its key into a bundle and sign it
    #[command(after_help = "Examples:
  endpoint bundle sign --cert chain.pem --key key.pem --signer signer.key --out site.bundle
  endpoint bundle sign --cert c.pem --key k.pem --signer signer.key --serial 42 --out site.bundle --json

The signature is put beside it, in site.bundle.sig; both belong together. Who has taken a bundle
refuses every later one whose serial number is not higher. The bundle holds the private key: mode 0600.")]
    Sign(Sign),
    /// Check a bundle and the signature beside it, as a server would
    #[command(after_help = "Examples:
  endpoint bundle verify site.bundle --signer ed25519:1f…c3
  endpoint bundle verify site.bundle --signer ed25519:1f…c3 --min-serial 42 --json

Exit code 1 if the bundle would be refused.")]
    Verify(Verify),
}

/// `endpoint bundle sign`.
#[derive(Args, Debug)]
pub struct Sign {
    /// The certificate chain, PEM, leaf first
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cert: PathBuf,
    /// The leaf's private key, PKCS#8 PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// The signer's Ed25519 key file, mode 0600
    #[arg(long, value_name = "KEYFILE", value_hint = ValueHint::FilePath)]
    pub signer: PathBuf,
    /// Number of this bundle [default: seconds since 1970, or one more than FILE has already]
    #[arg(long, value_name = "N", value_parser = serial)]
    pub serial: Option<u64>,
    /// Where the bundle goes; a bundle that is there already is replaced, nothing else is
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
}

/// `endpoint bundle verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// The bundle; its signature is read from FILE.sig
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The signer's public key: ed25519:HEX, a PEM public key or an ssh-ed25519 line
    #[arg(long, value_name = "KEY", value_parser = signer)]
    pub signer: PublicKey,
    /// Refuse a lower serial number
    #[arg(long, value_name = "N", value_parser = serial)]
    pub min_serial: Option<u64>,
}

fn serial(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a number from 0 to {}", u64::MAX))
}

fn signer(text: &str) -> Result<PublicKey, String> {
    let key = KeyText::parse(text).map_err(|error| error.to_string())?;
    key.public_key().ok_or_else(|| {
        "expected an Ed25519 key, found only a fingerprint; `endpoint key show` prints both"
            .to_owned()
    })
}
