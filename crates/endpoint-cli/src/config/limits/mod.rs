//! What may stand in `[limits]`?
//!
//! Each limit is defined once, in [`all`]: name, range, default, when a change of it acts, and what it is
//! for. The parser, `config show`, what a reload says, the part of the example file and the table in
//! `docs/operations.md` come from there. Not here: what a limit does (`endpoint_core::config::Limits`, `web`).
//!
//! Always true: a limit of the library has the library's own default.

mod definitions;

use std::{collections::BTreeMap, fmt, time::Duration};

use ipnet::IpNet;
use toml::de::DeTable;

pub use self::definitions::all;
use super::{
    Config,
    read::{Reader, Value},
    value,
};

/// One limit.
#[derive(Debug)]
pub struct Limit {
    /// Its name in the file.
    pub name: &'static str,
    kind: Kind,
    /// What it follows from unless it is set; the default is then what that gives with all other defaults.
    follows: Option<&'static str>,
    /// When a change of the file acts.
    pub acts: Acts,
    /// What it is, and what happens at it.
    pub about: &'static str,
}

/// What a limit is measured in, its range, its default, and what it sets.
#[derive(Debug)]
enum Kind {
    Number { default: usize, least: usize, most: usize, set: fn(&mut Config, usize) },
    Time { default: Duration, least: Duration, most: Duration, set: fn(&mut Config, Duration) },
    Size { default: u64, least: u64, most: u64, set: fn(&mut Config, u64) },
    Networks { default: &'static [&'static str], set: fn(&mut Config, Vec<IpNet>) },
}

/// When a change of a limit acts on a running endpoint that reloads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Acts {
    /// On whatever is there.
    AtOnce,
    /// On connections that come from then on.
    Next,
    /// At the next start.
    Restart,
}

impl Acts {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::Next => "next connection",
            Self::Restart => "restart",
        }
    }
}

/// What one limit is set to. Its text is TOML.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Setting {
    /// So many.
    Number(usize),
    /// So long.
    Time(Duration),
    /// So many bytes.
    Size(u64),
    /// These networks.
    Networks(Vec<IpNet>),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Time(time) => write!(f, "\"{}\"", value::time_text(*time)),
            Self::Size(bytes) => write!(f, "\"{}\"", value::size_text(*bytes)),
            Self::Networks(networks) => {
                let each: Vec<_> =
                    networks.iter().map(|network| format!("\"{network}\"")).collect();
                write!(f, "[{}]", each.join(", "))
            }
        }
    }
}

/// What the file sets, by name.
pub type Settings = BTreeMap<&'static str, Setting>;

impl Limit {
    /// Its default; with [`Self::follows`], what that gives with all other defaults.
    #[must_use]
    pub fn default(&self) -> Setting {
        match self.kind {
            Kind::Number { default, .. } => Setting::Number(default),
            Kind::Time { default, .. } => Setting::Time(default),
            Kind::Size { default, .. } => Setting::Size(default),
            Kind::Networks { default, .. } => Setting::Networks(
                default.iter().filter_map(|text| value::network(text).ok()).collect(),
            ),
        }
    }

    /// What it follows from unless it is set.
    #[must_use]
    pub fn follows(&self) -> Option<&'static str> {
        self.follows
    }

    /// The least and the most that it may be, as text.
    #[must_use]
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Number { least, most, .. } => format!("{least} to {most}"),
            Kind::Time { least, most, .. } => {
                format!("{} to {}", value::time_text(least), value::time_text(most))
            }
            Kind::Size { least, most, .. } => {
                format!("{} to {}", value::size_text(least), value::size_text(most))
            }
            Kind::Networks { .. } => "networks".to_owned(),
        }
    }

    /// What `config` sets it to, else its default; `None` if it follows from another one.
    #[must_use]
    pub fn of(&self, config: &Config) -> Option<Setting> {
        let said = config.settings.get(self.name).cloned();
        said.or_else(|| self.follows.is_none().then(|| self.default()))
    }

    /// Reads one value and sets it in `config`, or notes what is wrong with it.
    fn take<'t>(
        &self,
        reader: &mut Reader<'t>,
        value: &Value<'t>,
        config: &mut Config,
    ) -> Option<Setting> {
        Some(match self.kind {
            Kind::Number { least, most, set, .. } => {
                let number = reader.number(value, least..=most)?;
                set(config, number);
                Setting::Number(number)
            }
            Kind::Time { least, most, set, .. } => {
                let within = |text: &str| value::duration_within(text, least..=most);
                let time = reader.parsed(value, value::A_TIME, within)?;
                set(config, time);
                Setting::Time(time)
            }
            Kind::Size { least, most, set, .. } => {
                let within = |text: &str| value::size_within(text, least..=most);
                let bytes = reader.parsed(value, value::A_SIZE, within)?;
                set(config, bytes);
                Setting::Size(bytes)
            }
            Kind::Networks { set, .. } => {
                let list = reader.array(value, "a list of networks such as [\"10.0.0.0/8\"]");
                let each = list.into_iter();
                let networks: Vec<_> = each
                    .filter_map(|one| reader.parsed(one, "a network", value::network))
                    .collect();
                set(config, networks.clone());
                Setting::Networks(networks)
            }
        })
    }
}

/// Reads `[limits]`.
pub(super) fn read<'t>(reader: &mut Reader<'t>, table: &DeTable<'t>, config: &mut Config) {
    let names: Vec<_> = all().iter().map(|limit| limit.name).collect();
    reader.names(table, " in [limits]", &names, &[]);
    for limit in all() {
        let Some(value) = table.get(limit.name) else { continue };
        if let Some(setting) = limit.take(reader, value, config) {
            config.settings.insert(limit.name, setting);
        }
    }
}

/// Limits that two configurations set differently.
pub fn changed<'a>(
    before: &'a Config,
    after: &'a Config,
) -> impl Iterator<Item = &'static Limit> + 'a {
    all().iter().filter(|limit| limit.of(before) != limit.of(after))
}

#[cfg(test)]
mod tests;
