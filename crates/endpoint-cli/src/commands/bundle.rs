//! Shared certificates: sign a bundle, check one.
//!
//! Always true: no private key is printed, and only a bundle is ever replaced.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use endpoint_core::{
    Clock,
    bundle::{self, BundleError, SignedBundle, signature_path},
    identity::{Identity, KeyFileError, PublicKey},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Context, key_fault};
use crate::{
    args::bundle::{Bundle, Sign, Verify},
    error::{CliError, ExitKind, Result, shell_word},
};

pub(super) fn run(command: Bundle, context: &Context) -> Result<()> {
    match command {
        Bundle::Sign(args) => sign(&args, context),
        Bundle::Verify(args) => verify(&args, context),
    }
}

fn sign(args: &Sign, context: &Context) -> Result<()> {
    let signer = Identity::load(&args.signer).map_err(|error| signer_fault(&error, context))?;
    let chain = read(&args.cert)?;
    let key = read(&args.key)?;
    let now = Clock::system().now();
    let serial = next_serial(args, u64::try_from(now.as_second()).unwrap_or_default())?;
    let made = SignedBundle::sign(&chain, &key, serial, &signer, now).map_err(|error| {
        let fault = refused(&error);
        let message =
            format!("{} with {}: {}", args.cert.display(), args.key.display(), fault.message);
        CliError { message, ..fault }
    })?;
    made.save(&args.out).map_err(|error| CliError::io("write", &args.out, &error))?;
    tell(&made, &signer.public_key(), &args.out, "signed", context)
}

fn verify(args: &Verify, context: &Context) -> Result<()> {
    let document = read(&args.file)?;
    let signature = read(&signature_path(&args.file))?;
    let now = Clock::system().now();
    let found = SignedBundle::verify(&document, &signature, &args.signer, now)
        .map_err(|error| named(refused(&error), &args.file))?;
    if let Some(seen) = args.min_serial.filter(|least| found.serial() < *least) {
        let got = found.serial();
        let fault = refused(&BundleError::RolledBack { got, seen });
        return Err(named(fault, &args.file));
    }
    tell(&found, &args.signer, &args.file, "good", context)
}

/// The number asked for, if it is higher than that of the bundle to be replaced; else the next one.
fn next_serial(args: &Sign, now: u64) -> Result<u64> {
    let before = match File::open(&args.out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        _ => Some(read(&args.out)?),
    };
    let shown = args.out.display();
    let Some(before) = before else { return Ok(args.serial.unwrap_or(now)) };
    let Some(before) = SignedBundle::serial_of(&before) else {
        let message = format!("{shown} exists already and is no bundle");
        return Err(CliError::usage("exists", message).hint("name another file: --out FILE"));
    };
    let next = before.checked_add(1).ok_or_else(|| {
        CliError::usage("serial", format!("{shown} has the last serial number there is, {before}"))
            .hint("begin anew with another signer, and give its key to those who take the bundle")
    })?;
    match args.serial {
        None => Ok(now.max(next)),
        Some(asked) if asked > before => Ok(asked),
        Some(asked) => {
            let message =
                format!("serial number {asked} is not higher than {before}, which {shown} has");
            Err(CliError::usage("serial", message)
                .hint(format!("take a higher one: --serial {next}")))
        }
    }
}

fn tell(
    bundle: &SignedBundle,
    signer: &PublicKey,
    path: &Path,
    word: &str,
    context: &Context,
) -> Result<()> {
    let signature = signature_path(path);
    let text = format!(
        "{word:<12}{}\n\
         signature   {}\n\
         signer      {signer}\n\
         serial      {}\n\
         names       {}\n\
         not after   {}\n",
        path.display(),
        signature.display(),
        bundle.serial(),
        bundle.names().join(" "),
        bundle.not_after(),
    );
    let object: Value = json!({
        "result": word,
        "bundle": path.to_string_lossy(),
        "signature": signature.to_string_lossy(),
        "signer": signer.to_string(),
        "serial": bundle.serial(),
        "names": bundle.names(),
        "not_before": bundle.not_before().to_string(),
        "not_after": bundle.not_after().to_string(),
    });
    context.output.result(&object, &text)
}

fn refused(error: &BundleError) -> CliError {
    CliError::told("bundle-refused", ExitKind::Failure, error)
}

fn named(fault: CliError, file: &Path) -> CliError {
    let message = format!("{}: {}", file.display(), fault.message);
    CliError { message, ..fault }
}

fn signer_fault(error: &KeyFileError, context: &Context) -> CliError {
    let KeyFileError::Missing { path } = error else { return key_fault(error, &context.state) };
    let word = shell_word(path);
    CliError::failure("key-missing", format!("there is no signer's key in {}", path.display()))
        .hint(format!("make one: (umask 077; openssl genpkey -algorithm ed25519 -out {word})"))
}

/// Reads a file of at most the size of a bundle.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: io::Error| CliError::io("read", path, &error);
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bundle::MAX_BYTES + 2));
    let file = File::open(path).map_err(failed)?;
    file.take(bundle::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bundle::MAX_BYTES {
        let message = format!("{} has more than {} bytes", path.display(), bundle::MAX_BYTES);
        return Err(CliError::failure("too-long", message)
            .hint(format!("look at what it is: file {}", shell_word(path))));
    }
    Ok(bytes)
}
