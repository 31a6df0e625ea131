//! That the definitions are the library's limits, and that the texts come from them.

use std::path::Path;

use super::*;
use crate::config::{EXAMPLE, WebLimits};

/// The page with the table.
const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");

/// `[limits]` of the example file.
fn example() -> String {
    let mut text = String::new();
    for limit in all() {
        let unless = limit.follows.map(|what| format!(" Unless set, {what}.")).unwrap_or_default();
        let range = match limit.kind {
            Kind::Networks { .. } => String::new(),
            Kind::Number { .. } | Kind::Time { .. } | Kind::Size { .. } => {
                format!(" {}.", sentence(&limit.range()))
            }
        };
        for line in wrapped(&format!("{}{unless}{range}", limit.about), 110) {
            text.push_str(&format!("# {line}\n"));
        }
        let off = if limit.follows.is_some() { "# " } else { "" };
        text.push_str(&format!("{off}{} = {}\n", limit.name, limit.default()));
    }
    text
}

/// The rows of the table.
fn rows() -> String {
    let row = |limit: &Limit| {
        let default = match limit.follows {
            Some(what) => format!("{what} ({})", limit.default()),
            None => format!("`{}`", limit.default()),
        };
        let (name, range, acts) = (limit.name, limit.range(), limit.acts.as_str());
        format!("| `{name}` | {default} | {range} | {acts} | {} |\n", limit.about)
    };
    all().iter().map(row).collect()
}

fn sentence(range: &str) -> String {
    let mut text = range.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.len() + word.len() >= width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn parse(text: &str) -> crate::error::Result<Config> {
    Config::parse(&format!("[limits]\n{text}"), Path::new("e.toml"))
}

#[test]
fn the_example_file_and_the_table_are_those_of_the_definitions() {
    let (example, rows) = (example(), rows());
    let wanted = format!("[limits]\n{example}\n");
    assert!(EXAMPLE.contains(&wanted), "example.toml has to hold:\n{wanted}");
    assert!(OPERATIONS.contains(&rows), "docs/operations.md has to hold:\n{rows}");
}

#[test]
fn every_default_is_the_library_s_and_the_web_server_s() {
    let own = all().iter().filter(|limit| limit.follows.is_none());
    let lines: String =
        own.map(|limit| format!("{} = {}\n", limit.name, limit.default())).collect();
    let config = parse(&lines).unwrap();
    let untouched = Config::default();
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", untouched.limits));
    assert_eq!(config.web, WebLimits::default());
    let counts = |config: &Config| (config.connections, config.handshakes, config.waiting);
    assert_eq!(counts(&config), counts(&untouched));
}

#[test]
fn each_name_sets_something_of_its_own_and_is_the_library_s_name() {
    let untouched = Config::default();
    let told = |config: &Config| format!("{:?} {:?}", config.limits, config.web);
    let mut seen = std::collections::BTreeSet::new();
    for limit in all() {
        let other = match (&limit.kind, limit.default()) {
            (Kind::Number { least, .. }, _) => format!("{}", least + 77),
            (Kind::Time { .. }, _) => "\"1777ms\"".to_owned(),
            (Kind::Size { .. }, _) => "\"777KiB\"".to_owned(),
            (Kind::Networks { .. }, _) => "[\"192.0.2.0/24\"]".to_owned(),
        };
        let config = parse(&format!("{} = {other}", limit.name)).unwrap();
        assert_eq!(limit.of(&config).unwrap().to_string(), other);
        assert_ne!(told(&config), told(&untouched), "{}", limit.name);
        assert!(seen.insert(told(&config)), "{} sets what another one sets", limit.name);
        let changed: Vec<_> = changed(&untouched, &config).map(|limit| limit.name).collect();
        assert_eq!(changed, [limit.name]);
    }
}

#[test]
fn refuses_what_is_out_of_range_or_of_another_kind_and_says_the_range() {
    for limit in all() {
        let bad: &[&str] = match limit.kind {
            Kind::Number { .. } => &["-1", "100000000000", "\"5s\"", "1.5"],
            Kind::Time { .. } => &["5", "\"5\"", "\"soon\"", "\"100000d\"", "\"-1s\""],
            Kind::Size { .. } => &["5", "\"5\"", "\"5MB\"", "\"99999GiB\""],
            Kind::Networks { .. } => &["5", "[5]", "[\"x\"]", "\"10.0.0.0/8\""],
        };
        for value in bad {
            let fault = parse(&format!("{} = {value}", limit.name)).unwrap_err();
            let place = fault.place.as_ref().unwrap();
            assert_eq!(place.line, 2, "{}", limit.name);
            assert!(fault.message.contains("expected a"), "{} {value}: {fault}", limit.name);
        }
        let (least, most) = match limit.kind {
            Kind::Number { least, most, .. } => {
                (least.checked_sub(1).map(Setting::Number), Some(Setting::Number(most + 1)))
            }
            Kind::Time { least, most, .. } => {
                let step = Duration::from_millis(1);
                (least.checked_sub(step).map(Setting::Time), Some(Setting::Time(most + step)))
            }
            Kind::Size { least, most, .. } => {
                (least.checked_sub(1).map(Setting::Size), Some(Setting::Size(most + 1)))
            }
            Kind::Networks { .. } => (None, None),
        };
        for beyond in [least, most].into_iter().flatten() {
            let fault = parse(&format!("{} = {beyond}", limit.name)).unwrap_err();
            assert!(fault.message.contains(&limit.range()), "{beyond}: {fault}");
        }
    }
    assert!(parse("penalty_exempt = []").is_ok());
}

#[test]
fn writes_what_it_reads() {
    let set: String =
        all().iter().map(|limit| format!("{} = {}\n", limit.name, limit.default())).collect();
    let config = parse(&set).unwrap();
    assert_eq!(config.settings.len(), all().len());
    for limit in all() {
        assert_eq!(config.settings.get(limit.name), Some(&limit.default()), "{}", limit.name);
    }
    assert_eq!(changed(&config, &config).count(), 0);
}
