//! Where the answer goes: stdout, a file, or one JSON object.
//!
//! Always true: a file is there whole or not at all; a terminal is sent nothing that it would obey.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, Response};
use http_body::Frame;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    args::Fetch,
    error::{CliError, Result, io_cause},
    output::Output,
};

/// The answer as it comes.
pub(super) struct Download {
    output: Output,
    include: bool,
    sink: Sink,
    bytes: u64,
    expected: Option<u64>,
    trailers: Option<HeaderMap>,
    shown: Option<Instant>,
}

enum Sink {
    Stdout {
        terminal: bool,
    },
    /// With `--json`: held, to be told at the end.
    Held(Vec<u8>),
    File(Part),
}

impl Sink {
    fn without_file(output: Output) -> Self {
        if output.is_json() {
            return Self::Held(Vec::new());
        }
        Self::Stdout { terminal: io::stdout().is_terminal() }
    }
}

/// A file under construction; dropped before its end it is removed.
struct Part {
    file: File,
    /// Where it is written, where that is not yet `path`.
    beside: Option<PathBuf>,
    path: PathBuf,
}

/// The longest body that is told in a JSON object.
const HELD_BYTES: usize = 16 * 1024 * 1024;

impl Download {
    pub(super) fn new(args: &Fetch, output: Output) -> Result<Self> {
        let sink = match &args.output {
            Some(path) => Sink::File(Part::create(path)?),
            None => Sink::without_file(output),
        };
        let include = args.include && !output.is_json();
        let (bytes, expected, trailers, shown) = (0, None, None, None);
        Ok(Self { output, include, sink, bytes, expected, trailers, shown })
    }

    /// The header has come.
    pub(super) fn begin(&mut self, response: &Response<()>) -> Result<()> {
        let length = response.headers().get(http::header::CONTENT_LENGTH);
        self.expected = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let status = response.status();
        if matches!(self.sink, Sink::File(_))
            && (status.is_client_error() || status.is_server_error())
        {
            // A refusal must not take the place of what the file holds.
            self.sink = Sink::without_file(self.output);
        }
        if !self.include {
            return Ok(());
        }
        let mut text = format!("{:?} {}\n", response.version(), response.status());
        for (name, value) in response.headers() {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        text.push('\n');
        write_stdout(harmless(text.as_bytes()).as_bytes())
    }

    /// A piece of the body, or its trailers.
    pub(super) fn take(&mut self, frame: Frame<Bytes>) -> Result<()> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => {
                self.trailers = other.into_trailers().ok();
                return Ok(());
            }
        };
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        match &mut self.sink {
            Sink::Stdout { terminal: true } => write_stdout(harmless(&data).as_bytes())?,
            Sink::Stdout { terminal: false } => write_stdout(&data)?,
            Sink::Held(held) if held.len().saturating_add(data.len()) > HELD_BYTES => {
                let message = "the answer is too large for a JSON object (more than 16 MiB)";
                return Err(CliError::failure("too-large", message).hint("keep it: --output FILE"));
            }
            Sink::Held(held) => held.extend_from_slice(&data),
            Sink::File(part) => {
                part.file.write_all(&data).map_err(|e| CliError::io("write", &part.path, &e))?;
            }
        }
        self.show_progress();
        Ok(())
    }

    /// Everything has come.
    pub(super) fn end(mut self, response: &Response<()>, mut object: Value) -> Result<()> {
        if self.shown.is_some() {
            self.output.progress_end();
        }
        let sink = std::mem::replace(&mut self.sink, Sink::Stdout { terminal: false });
        let Some(told) = object.as_object_mut() else { return Ok(()) };
        told.insert("bytes".into(), self.bytes.into());
        if let Some(trailers) = &self.trailers {
            told.insert("trailers".into(), fields(trailers));
        }
        match sink {
            Sink::Stdout { .. } => return Ok(()),
            Sink::Held(held) => match String::from_utf8(held) {
                Ok(text) => told.insert("body".into(), text.into()),
                Err(error) => {
                    told.insert("body_base64".into(), BASE64.encode(error.as_bytes()).into())
                }
            },
            Sink::File(part) => {
                let path = part.path.display().to_string();
                part.keep()?;
                told.insert("output".into(), path.into())
            }
        };
        if self.output.is_json() {
            return self.output.object(&object);
        }
        let path = object.get("output").and_then(Value::as_str).unwrap_or_default();
        self.output.say(&format!("{} {}, {path}", response.status(), bytes(self.bytes)));
        Ok(())
    }

    /// A line on a terminal that has nothing else to show, twice a second.
    fn show_progress(&mut self) {
        let quiet = matches!(self.sink, Sink::Stdout { terminal: true });
        if quiet || !self.output.shows_progress() {
            return;
        }
        let now = Instant::now();
        let since = *self.shown.get_or_insert(now);
        if now.duration_since(since) < PROGRESS {
            return;
        }
        self.shown = Some(now);
        let line = match self.expected {
            Some(all) if all > 0 => {
                let percent = self.bytes.saturating_mul(100) / all;
                format!("{} of {} ({percent} %)", bytes(self.bytes), bytes(all))
            }
            _ => bytes(self.bytes),
        };
        self.output.progress(&line);
    }
}

const PROGRESS: Duration = Duration::from_millis(500);

impl Part {
    /// Begins a file beside `path`. What is no plain file, such as a pipe, is written directly.
    fn create(path: &Path) -> Result<Self> {
        let fault = |error| CliError::io("write", path, &error);
        let plain = fs::metadata(path).is_ok_and(|there| !there.is_file());
        if plain {
            let file = File::options().write(true).open(path).map_err(fault)?;
            return Ok(Self { file, beside: None, path: path.into() });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&beside).map_err(fault)?;
        Ok(Self { file, beside: Some(beside), path: path.into() })
    }

    fn keep(mut self) -> Result<()> {
        let fault = |error: io::Error| CliError::io("write", &self.path, &error);
        if let Some(beside) = &self.beside {
            self.file.sync_all().map_err(fault)?;
            fs::rename(beside, &self.path).map_err(fault)?;
        }
        self.beside = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // It may be gone; there is nobody to tell.
            let _removed = fs::remove_file(beside);
        }
    }
}

fn write_stdout(bytes: &[u8]) -> Result<()> {
    let mut stream = io::stdout().lock();
    match stream.write_all(bytes).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let message = format!("cannot write to stdout: {}", io_cause(&error));
            Err(CliError::failure("stdout", message))
        }
        _ => Ok(()),
    }
}

/// The text of a peer without what a terminal would obey.
fn harmless(bytes: &[u8]) -> String {
    let kept = |c: char| !c.is_control() || c == '\n' || c == '\t';
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| *c != '\r')
        .map(|c| if kept(c) { c } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// Header or trailer fields: name to values.
pub(super) fn fields(fields: &HeaderMap) -> Value {
    let mut told: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in fields {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        told.entry(name.as_str()).or_default().push(value);
    }
    serde_json::to_value(told).unwrap_or_default()
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_from_a_terminal_what_it_would_obey() {
        assert_eq!(harmless(b"a\x1b[2Jb\r\n\tc\x00\xc2\x9b"), "a\u{fffd}[2Jb\n\tc\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut part = Part::create(&path).unwrap();
        part.file.write_all(b"half").unwrap();
        drop(part);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let mut part = Part::create(&path).unwrap();
        part.file.write_all(b"whole").unwrap();
        assert!(!path.exists());
        part.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn counts_bytes_in_units_of_1024() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536)], ["0 B", "1023 B", "1.5 KiB"]);
    }
}
