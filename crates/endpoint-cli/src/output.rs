//! How does the program speak?
//!
//! The only place that prints. Results go to stdout, talk and errors to stderr; with `--json`
//! results and errors are objects on stdout, one a line, and people's text stays on stderr.
//! Colour only on a terminal and without `NO_COLOR` (`anstream` decides).
//!
//! While the program serves, what is printed goes through `spool` and waits for no reader.
//!
//! Always true: a closed stdout or stderr never panics and never turns success into failure.

use std::io::{self, ErrorKind, IsTerminal, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use anstream::stream::RawStream;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::{CliError, Place, Result},
    spool,
};

/// Where results and talk go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Speaks JSON on stdout if asked to.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Tells a result: `object` with `--json`, otherwise `text`.
    ///
    /// # Errors
    /// stdout cannot be written to, other than because its reader has gone.
    pub fn result(self, object: &impl Serialize, text: &str) -> Result<()> {
        if self.json { self.object(object) } else { self.text(text) }
    }

    /// Tells one object, a line of its own.
    ///
    /// # Errors
    /// As [`Output::result`].
    pub fn object(self, object: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(object)
            .map_err(|error| CliError::failure("internal", format!("no JSON form: {error}")))?;
        line.push(b'\n');
        stdout(&line)
    }

    /// Tells a result in words on stdout; ends it with a line break if it lacks one.
    ///
    /// # Errors
    /// As [`Output::result`].
    pub fn text(self, text: &str) -> Result<()> {
        if text.is_empty() || text.ends_with('\n') {
            return stdout(text.as_bytes());
        }
        stdout(format!("{text}\n").as_bytes())
    }

    /// Says something to people: a line on stderr.
    pub fn say(self, line: &str) {
        stderr(&format!("{line}\n"));
    }

    /// Asks a person a question: stderr, without a line break.
    pub fn ask(self, question: &str) {
        stderr(question);
    }

    /// Whether a person sits before stdin and stderr, and may be asked.
    #[must_use]
    pub fn can_ask(self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether progress may be shown.
    #[must_use]
    pub fn shows_progress(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Shows how far long work is, in a line that the next one replaces.
    pub fn progress(self, line: &str) {
        stderr(&format!("\r{line}\x1b[K"));
    }

    /// Takes that line away.
    pub fn progress_end(self) {
        stderr("\r\x1b[K");
    }

    /// Tells why the program fails.
    pub fn error(self, error: &CliError) {
        if self.json {
            for object in error_objects(error) {
                // A broken stdout leaves stderr, which follows.
                let _told = self.object(&object);
            }
        }
        stderr(&error_text(error, true));
    }

    /// Tells a problem that does not end the program.
    pub fn warning(self, message: &str, hints: &[String]) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        let mut text = format!("{style}warning{style:#}: {}\n", printable(message));
        push_hints(&mut text, hints);
        stderr(&text);
    }
}

/// The JSON forms of an error: one object for each fault.
#[must_use]
pub fn error_objects(error: &CliError) -> Vec<Value> {
    if !error.others.is_empty() {
        return error.others.iter().flat_map(error_objects).collect();
    }
    let mut object = json!({
        "event": "error",
        "code": error.code,
        "message": error.message,
        "hints": error.hints,
    });
    if let (Some(place), Some(fields)) = (&error.place, object.as_object_mut()) {
        let hints: Vec<_> = place.help.iter().chain(&error.hints).collect();
        fields.insert("hints".into(), json!(hints));
        fields.insert("file".into(), place.file.to_string_lossy().into());
        fields.insert("line".into(), place.line.into());
        fields.insert("column".into(), place.column.into());
    }
    vec![object]
}

/// The house form of an error, ending in a line break.
#[must_use]
pub fn error_text(error: &CliError, styled: bool) -> String {
    let mut text = String::new();
    for other in &error.others {
        text.push_str(&error_text(other, styled));
        text.push('\n');
    }
    match &error.place {
        Some(place) => {
            text.push_str(&framed(error, place, styled));
            text.push('\n');
        }
        None => {
            let style = if styled {
                Style::new().bold().fg_color(Some(AnsiColor::Red.into()))
            } else {
                Style::new()
            };
            text.push_str(&format!("{style}error{style:#}: {}\n", printable(&error.message)));
        }
    }
    push_hints(&mut text, &error.hints);
    text
}

/// The text without what a terminal would obey; parts of it can come from a peer or a file. Line
/// breaks stay.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn push_hints(text: &mut String, hints: &[String]) {
    for hint in hints {
        text.push_str("  hint: ");
        text.push_str(&printable(hint));
        text.push('\n');
    }
}

/// `error:`, ` --> FILE:LINE:COLUMN`, the line and carets under the fault.
fn framed(error: &CliError, place: &Place, styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let path = place.file.display().to_string();
    let message = printable(&error.message);
    let title = Level::ERROR.primary_title(message.as_str());
    let help = place.help.as_deref();
    let Some(source) = &place.source else {
        let origin =
            annotate_snippets::Origin::path(path).line(place.line).char_column(place.column);
        let mut report = vec![title.element(origin)];
        report.extend(help.map(|help| Group::with_title(Level::HELP.secondary_title(help))));
        return renderer.render(&report);
    };
    // Escape sequences in somebody's file must not reach the terminal.
    let source: String =
        source.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
    let byte_at = |column: usize| {
        source.char_indices().nth(column).map_or(source.len(), |(position, _)| position)
    };
    let start = byte_at(place.column.saturating_sub(1));
    let end = byte_at(place.column.saturating_sub(1).saturating_add(place.width.max(1)));
    let snippet = Snippet::source(source.as_str())
        .line_start(place.line)
        .path(path)
        .annotation(AnnotationKind::Primary.span(start..end).label(place.label.as_str()));
    let mut report = vec![title.element(snippet)];
    report.extend(help.map(|help| Group::with_title(Level::HELP.secondary_title(help))));
    renderer.render(&report)
}

fn stdout(bytes: &[u8]) -> Result<()> {
    let written = match spool::stdout() {
        Some(queue) => queue.put_result(shown(bytes.to_vec(), &io::stdout())),
        None => {
            let mut stream = anstream::stdout();
            stream.write_all(bytes).and_then(|()| stream.flush())
        }
    };
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::failure(
            "stdout",
            format!("cannot write to stdout: {}", crate::error::io_cause(&error)),
        )),
        _ => Ok(()),
    }
}

fn stderr(text: &str) {
    if let Some(queue) = spool::stderr() {
        queue.put(shown(text.as_bytes().to_vec(), &io::stderr()));
        return;
    }
    let mut stream = anstream::stderr();
    // Nobody is left to be told.
    let _told = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// The text as the stream shows it: without colour where it would have none.
fn shown(text: Vec<u8>, stream: &impl RawStream) -> Vec<u8> {
    match anstream::AutoStream::choice(stream) {
        anstream::ColorChoice::Never => anstream::adapter::strip_bytes(&text).into_vec(),
        _ => text,
    }
}

/// The line of stdout that tells of lines that were lost because nobody read.
pub(crate) fn lost_objects(lines: u64) -> Vec<u8> {
    let mut line = json!({"event": "lost", "lines": lines}).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn placed() -> CliError {
        CliError::usage("unknown-option", "unknown option `alpm`").at(Place {
            file: PathBuf::from("authorized_peers"),
            line: 2,
            column: 1,
            source: Some("alpm=\"echo/1\" ed25519:1f00 bob".into()),
            width: 4,
            label: "not an option".into(),
            help: Some("did you mean `alpn`?".into()),
        })
    }

    #[test]
    fn writes_the_house_form_with_hints() {
        let error = CliError::failure("addr-in-use", "127.0.0.1:4433 (UDP) is already in use")
            .hint("another endpoint may run with this state folder: endpoint status");
        assert_eq!(
            error_text(&error, false),
            "error: 127.0.0.1:4433 (UDP) is already in use\n  \
             hint: another endpoint may run with this state folder: endpoint status\n"
        );
    }

    #[test]
    fn puts_carets_under_a_fault_in_a_file() {
        assert_eq!(
            error_text(&placed(), false),
            "error: unknown option `alpm`\n \
             --> authorized_peers:2:1\n  \
             |\n\
             2 | alpm=\"echo/1\" ed25519:1f00 bob\n  \
             | ^^^^ not an option\n  \
             |\n\
             help: did you mean `alpn`?\n"
        );
    }

    #[test]
    fn names_a_place_whose_line_cannot_be_shown() {
        let mut error = placed();
        if let Some(place) = &mut error.place {
            place.source = None;
        }
        let text = error_text(&error, false);
        assert!(text.contains("--> authorized_peers:2:1"), "{text}");
    }

    #[test]
    fn keeps_escape_sequences_of_a_file_from_the_terminal() {
        let mut error = placed();
        if let Some(place) = &mut error.place {
            place.source = Some("al\x1b[31mpm".into());
        }
        assert!(!error_text(&error, false).contains('\x1b'));
    }

    #[test]
    fn keeps_escape_sequences_of_a_message_and_its_hints_from_the_terminal() {
        let error = CliError::failure("connection", "lost: \x1b]0;x\x07").hint("\x1b[2Jgone");
        let text = error_text(&error, false);
        assert!(!text.contains(['\x1b', '\x07']), "{text:?}");
    }

    #[test]
    fn tells_each_of_several_faults_as_an_object() {
        let sum = CliError::sum(vec![placed(), placed()], &PathBuf::from("f")).unwrap();
        let objects = error_objects(&sum);
        assert_eq!(objects.len(), 2);
        assert_eq!(
            objects.first().unwrap(),
            &json!({
                "event": "error", "code": "unknown-option", "message": "unknown option `alpm`",
                "hints": ["did you mean `alpn`?"],
                "file": "authorized_peers", "line": 2, "column": 1,
            })
        );
        assert!(error_text(&sum, false).ends_with("error: 2 problems in f\n"));
    }
}
