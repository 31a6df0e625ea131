//! `endpoint cert …` and `endpoint store …`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueHint};

/// `endpoint cert …`.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// List the certificates: those that the running endpoint serves, else those that are kept
    #[command(after_help = "Examples:
  endpoint cert list
  endpoint cert list --json")]
    List,
    /// Tell all about the certificate of a name
    #[command(after_help = "Examples:
  endpoint cert info example.com")]
    Info(CertName),
    /// Renew the certificate of a name now; the failure budget holds all the same
    #[command(after_help = "Examples:
  endpoint cert renew example.com

Waits for the answer. Exit code 1 if none was issued; if the failure budget is spent, with the time of the next
try.")]
    Renew(CertName),
    /// Keep a certificate that was issued elsewhere, for all names in it
    #[command(after_help = "Examples:
  endpoint cert import --cert example.com.pem --key example.com.key")]
    Import {
        /// The chain as PEM, leaf first
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        cert: PathBuf,
        /// Its private key as PEM: PKCS#8, SEC 1 or PKCS#1, not encrypted
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key: PathBuf,
    },
    /// Print the chain that a name is served with, as PEM; never the key
    #[command(after_help = "Examples:
  endpoint cert export localhost > localhost.pem
  SSL_CERT_FILE=localhost.pem curl https://localhost:4433/")]
    Export {
        /// The name.
        #[command(flatten)]
        name: CertName,
        /// Write it to a file, whole or not at all
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
}

/// A name that a certificate is served under.
#[derive(ClapArgs, Debug)]
pub struct CertName {
    /// The host name or address
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `endpoint store …`.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read everything that is kept, and tell what is damaged
    #[command(after_help = "Examples:
  endpoint store check
  endpoint store check --json

Changes nothing, also while the endpoint runs. Exit code 1 if a record is damaged; one that is merely out of
date is told and is no fault.")]
    Check,
    /// Set damaged records aside and put what is whole in their place
    #[command(after_help = "Examples:
  endpoint store repair

Deletes no key and no account: what is damaged is kept aside under a name. Also while the endpoint runs. Exit
code 1 if a record could not be mended.")]
    Repair,
    /// Seal everything that is kept with a new secret
    #[command(after_help = "Examples:
  endpoint store rekey
  ENDPOINT_SECRET=$OLD endpoint store rekey --new-secret new.secret

The endpoint must not run.")]
    Rekey {
        /// A file that holds the new secret [default: one is made in place of the old]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        new_secret: Option<PathBuf>,
    },
}
