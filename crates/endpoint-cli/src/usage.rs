//! What is wrong with the command line?
//!
//! Turns the argument parser's refusal into the house form, so that usage errors look, and with
//! `--json` read, like all others.

use std::ffi::OsString;

use clap::error::ErrorKind;

use crate::error::CliError;

/// Whether the arguments ask for JSON, also if they cannot be parsed.
#[must_use]
pub fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|word| *word != "--").any(|word| word == "--json")
}

/// The refusal in the house form; `None` if it is help or the version, which are no errors.
#[must_use]
pub fn error(refusal: &clap::Error) -> Option<CliError> {
    match refusal.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Some(
                CliError::usage("usage", "no command given").hint("see them: endpoint --help"),
            );
        }
        _ => {}
    }
    let text = refusal.render().to_string();
    let mut message = Vec::new();
    let mut hints = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            hints.push(tip.to_owned());
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            hints.push(format!("usage: {usage}"));
        } else if !line.starts_with("For more information") && hints.is_empty() {
            message.push(line);
        }
    }
    let message = message.join(" ");
    let mut fault = CliError::usage("usage", message.strip_prefix("error: ").unwrap_or(&message));
    fault.hints = hints;
    Some(fault.hint("see endpoint --help"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    fn refused(words: &[&str]) -> CliError {
        let all = std::iter::once(&"endpoint").chain(words);
        error(&Args::try_parse_from(all).unwrap_err()).unwrap()
    }

    #[test]
    fn keeps_the_parser_s_suggestion_as_a_hint() {
        let fault = refused(&["srve"]);
        assert_eq!(fault.message, "unrecognized subcommand 'srve'");
        assert_eq!(fault.hints.first().unwrap(), "a similar subcommand exists: 'serve'");
        assert_eq!(fault.exit, crate::error::ExitKind::Usage);
    }

    #[test]
    fn joins_missing_arguments_into_one_line() {
        let fault = refused(&["ping"]);
        assert_eq!(fault.message, "the following required arguments were not provided: <PEER>");
    }

    #[test]
    fn calls_no_command_an_error_and_help_none() {
        assert_eq!(refused(&[]).message, "no command given");
        assert_eq!(refused(&["trust"]).message, "no command given");
        let help = Args::try_parse_from(["endpoint", "--help"]).unwrap_err();
        assert_eq!(error(&help), None);
    }

    #[test]
    fn sees_json_before_a_double_dash_only() {
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&words(&["srve", "--json"])));
        assert!(!wants_json(&words(&["run", "--", "x", "--json"])));
    }
}
