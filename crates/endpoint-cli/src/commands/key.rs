//! The identity key: show, make, take in, replace.
//!
//! Always true: only the public half is printed, and a key is never overwritten.

use std::{fs, io::Read, path::Path};

use endpoint_core::identity::{Identity, PublicKey};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, key_fault};
use crate::{
    args::Key,
    control::running_pid,
    error::{CliError, ExitKind, Result},
};

pub(super) fn run(command: Key, context: &Context) -> Result<()> {
    match command {
        Key::Show => show(super::identity(&context.state)?.public_key(), context),
        Key::New => {
            context.state.make()?;
            let made = Identity::create(context.state.identity());
            let identity = made.map_err(|error| key_fault(&error, &context.state))?;
            context.output.say(&format!("made {}", context.state.identity().display()));
            show(identity.public_key(), context)
        }
        Key::Import { file } => import(&file, context),
        Key::Rotate => rotate(context),
    }
}

fn show(key: PublicKey, context: &Context) -> Result<()> {
    let fingerprint = key.fingerprint();
    let pin = format!("sha256//{}", data_encoding::BASE64.encode(fingerprint.as_bytes()));
    let (ssh, peer_id) = (key.to_ssh("endpoint"), key.peer_id());
    let text = format!(
        "fingerprint  {fingerprint}\n\
         ed25519      {key}\n\
         curl pin     {pin}\n\
         ssh          {ssh}\n\
         peer id      {peer_id}\n\
         \n\
         to let this endpoint in elsewhere, there: endpoint trust add {fingerprint}\n"
    );
    let object = json!({
        "fingerprint": fingerprint.to_string(),
        "ed25519": key.to_string(),
        "curl_pin": pin,
        "ssh": ssh,
        "peer_id": peer_id,
    });
    context.output.result(&object, &text)
}

fn import(file: &Path, context: &Context) -> Result<()> {
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES));
    fs::File::open(file)
        .and_then(|opened| opened.take(MAX_KEY_FILE_BYTES as u64).read_to_end(&mut bytes))
        .map_err(|error| CliError::io("read", file, &error))?;
    let identity = Identity::import(&bytes).map_err(|error| {
        let fault = CliError::told("key-content", ExitKind::Failure, &error);
        let message = format!("{}: {}", file.display(), fault.message);
        let made = CliError { message, ..fault };
        made.hint("make one: openssl genpkey -algorithm ed25519 -out FILE")
    })?;
    context.state.make()?;
    let saved = identity.save(context.state.identity());
    saved.map_err(|error| key_fault(&error, &context.state))?;
    context.output.say(&format!("imported into {}", context.state.identity().display()));
    show(identity.public_key(), context)
}

fn rotate(context: &Context) -> Result<()> {
    let state = &context.state;
    let path = state.identity();
    let old = Identity::load(&path).map_err(|error| key_fault(&error, state))?;
    let new = Identity::generate()
        .map_err(|error| CliError::told("key-io", ExitKind::Failure, &error))?;
    let kept = new.replace(&path).map_err(|error| key_fault(&error, state))?;
    let (old, new) = (old.fingerprint(), new.fingerprint());
    let text = format!(
        "old  {old}, kept in {}\n\
         new  {new}\n\
         \n\
         peers that let this endpoint in must, on their side:\n  \
           endpoint trust add {new}\n  \
           endpoint trust rm {old}\n\
         peers that dial it have pinned the old key and must, with the address they dial:\n  \
           endpoint known forget HOST:PORT\n",
        kept.display()
    );
    let object = json!({
        "old": old.to_string(),
        "new": new.to_string(),
        "kept": kept.to_string_lossy(),
    });
    context.output.result(&object, &text)?;
    if let Some(pid) = running_pid(state) {
        let hint = format!("restart it: stop process {pid}, then {}", state.command("serve"));
        context.output.warning("an endpoint that is running goes on with the old key", &[hint]);
    }
    Ok(())
}

/// A key file has a few hundred bytes; a device without end must not fill the memory.
const MAX_KEY_FILE_BYTES: usize = 64 * 1024;
