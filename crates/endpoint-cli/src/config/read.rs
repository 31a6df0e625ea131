//! Where in the file is the fault?
//!
//! Walks a TOML document and keeps every fault with its place, instead of stopping at the first.
//! Knows nothing of what the fields mean; that is `sections`.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::error::{CliError, Place, did_you_mean};

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A document being read, and its faults so far.
pub(super) struct Reader<'t> {
    text: &'t str,
    file: &'t Path,
    faults: Vec<CliError>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, file: &'t Path) -> Self {
        Self { text, file, faults: Vec::new() }
    }

    /// All faults, in the order of the file.
    pub(super) fn into_faults(self) -> Vec<CliError> {
        let mut faults = self.faults;
        faults.sort_by_key(|fault| fault.place.as_ref().map(|p| (p.line, p.column)));
        faults
    }

    /// A path in the file as the program must open it.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }

    /// The document; `None` if it is no TOML.
    pub(super) fn document(&mut self) -> Option<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            self.fault(span, format!("not TOML: {}", error.message()), "here");
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// Notes a fault at `span`.
    pub(super) fn fault(&mut self, span: Range<usize>, message: impl Into<String>, label: &str) {
        let fault = CliError::usage("config", message.into()).at(self.place(span, label));
        self.faults.push(fault);
    }

    /// Notes that a field or value is for a later build.
    pub(super) fn later(&mut self, span: Range<usize>, what: &str, needs: &str) {
        let message = format!("{what} is not in this build: it needs {needs}");
        let fault = CliError::usage("not-in-this-build", message);
        self.lacking(span, fault.hint("take it out, or run a build that has it"));
    }

    /// Notes a value that this build has no use for, with the words of `fault`.
    pub(super) fn lacking(&mut self, span: Range<usize>, fault: CliError) {
        let place = self.place(span, "not in this build");
        self.faults.push(fault.at(place));
    }

    /// Notes every field of `table` that is neither `known` nor for a `later` build.
    pub(super) fn names(
        &mut self,
        table: &DeTable<'t>,
        within: &str,
        known: &[&str],
        later: &[(&str, &str)],
    ) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            if let Some((_, needs)) = later.iter().find(|(field, _)| *field == name) {
                self.later(key.span(), &format!("`{name}`"), needs);
                continue;
            }
            let message = format!("unknown field `{}`{within}", name.escape_debug());
            let mut place = self.place(key.span(), "not a field");
            place.help = Some(match did_you_mean(name, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("fields here: {}", known.join(", ")),
            });
            self.faults.push(CliError::usage("config", message).at(place));
        }
    }

    /// The text of a value, or a fault that says what was `expected`.
    pub(super) fn string(&mut self, value: &Value<'t>, expected: &str) -> Option<Cow<'t, str>> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(text.clone());
        }
        self.expected(value, expected);
        None
    }

    /// A text made into something by `parse`, whose refusal says what was expected.
    pub(super) fn parsed<T>(
        &mut self,
        value: &Value<'t>,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(value, expected)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(refusal) => {
                self.fault(value.span(), refusal, "this value");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &mut self,
        value: &Value<'t>,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => {
                usize::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
            }
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.expected(value, &format!("a number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// The elements of an array.
    pub(super) fn array<'v>(&mut self, value: &'v Value<'t>, expected: &str) -> Vec<&'v Value<'t>> {
        match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            _ => {
                self.expected(value, expected);
                Vec::new()
            }
        }
    }

    /// A table, as `[name]` or `{ … }`.
    pub(super) fn table<'v>(
        &mut self,
        value: &'v Value<'t>,
        expected: &str,
    ) -> Option<&'v DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.expected(value, expected);
        }
        table
    }

    pub(super) fn expected(&mut self, value: &Value<'t>, expected: &str) {
        self.fault(value.span(), format!("expected {expected}"), "this value");
    }

    fn place(&self, span: Range<usize>, label: &str) -> Place {
        let start = span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |position| position.saturating_add(1));
        let rest = self.text.get(line_start..).unwrap_or_default();
        let source = rest.lines().next().unwrap_or_default();
        let columns = before.get(line_start..).unwrap_or_default().chars().count();
        let marked = self.text.get(start..span.end.min(self.text.len())).unwrap_or_default();
        let width = marked.lines().next().unwrap_or_default().chars().count();
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count().saturating_add(1),
            column: columns.saturating_add(1),
            source: Some(source.to_owned()),
            width: width.max(1),
            label: label.to_owned(),
            help: None,
        }
    }
}
