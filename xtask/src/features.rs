//! Which sets of features are there? Computed from the manifests, so that none is forgotten.
//!
//! A set is closed under implication: if `http3` implies `tcp`, then {http3} and {http3, tcp} are
//! one set and are checked once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A set of features, closed under implication.
pub type Set = BTreeSet<String>;

/// The public features of a package and what each implies among them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Features(BTreeMap<String, Set>);

impl Features {
    /// Reads `[features]` of a manifest; `default` and optional dependencies are no features of
    /// their own.
    pub fn of_manifest(manifest: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(manifest)
            .map_err(|error| format!("cannot read {}: {error}", manifest.display()))?;
        let table: toml::Table =
            text.parse().map_err(|error| format!("{}: {error}", manifest.display()))?;
        Ok(Self::of_table(table.get("features").and_then(toml::Value::as_table)))
    }

    fn of_table(table: Option<&toml::Table>) -> Self {
        let mut features = BTreeMap::new();
        for (name, implied) in table.into_iter().flatten().filter(|(name, _)| *name != "default") {
            let implied = implied.as_array().map(Vec::as_slice).unwrap_or_default();
            let names = implied.iter().filter_map(toml::Value::as_str).map(str::to_owned);
            features.insert(name.clone(), names.collect::<Set>());
        }
        let known: Set = features.keys().cloned().collect();
        for implied in features.values_mut() {
            implied.retain(|name| known.contains(name));
        }
        Self(features)
    }

    /// Every feature's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// `set` and everything that it implies.
    pub fn close(&self, set: impl IntoIterator<Item = String>) -> Set {
        let mut closed = Set::new();
        let mut open: Vec<String> = set.into_iter().collect();
        while let Some(name) = open.pop() {
            if let Some(implied) = self.0.get(&name) {
                open.extend(implied.iter().filter(|name| !closed.contains(*name)).cloned());
                closed.insert(name);
            }
        }
        closed
    }

    /// Every distinct set, the empty one first, smaller before larger.
    pub fn distinct_sets(&self) -> Vec<Set> {
        let names: Vec<&str> = self.names().collect();
        let mut sets = BTreeSet::new();
        for bits in 0..1_u64 << names.len() {
            let chosen = names.iter().enumerate().filter(|(n, _)| bits & 1 << n != 0);
            sets.insert(self.close(chosen.map(|(_, name)| (*name).to_owned())));
        }
        let mut sets: Vec<Set> = sets.into_iter().collect();
        sets.sort_by_key(|set| (set.len(), set.clone()));
        sets
    }

    /// None, each alone, all: without repetition.
    pub fn main_sets(&self) -> Vec<Set> {
        let mut sets = vec![Set::new()];
        sets.extend(self.names().map(|name| self.close([name.to_owned()])));
        sets.push(self.close(self.names().map(str::to_owned)));
        let mut seen = BTreeSet::new();
        sets.retain(|set| seen.insert(set.clone()));
        sets
    }
}

/// A set as people read it.
pub fn spell(set: &Set) -> String {
    if set.is_empty() {
        return "none".to_owned();
    }
    set.iter().map(String::as_str).collect::<Vec<_>>().join("+")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(text: &str) -> Features {
        let table: toml::Table = text.parse().unwrap();
        Features::of_table(Some(&table))
    }

    fn planned() -> Features {
        features(
            "default = ['tcp']\ntcp = ['dep:tokio-rustls']\nhttp3 = ['tcp', 'dep:h3']\n\
             acme = ['tcp']\nsqlite = []\nqlog = ['quinn/qlog']",
        )
    }

    #[test]
    fn counts_a_set_and_its_closure_once() {
        // Without tcp: sqlite and qlog are free, 4 sets. With it all four others are: 16.
        assert_eq!(planned().distinct_sets().len(), 20);
        assert_eq!(features("tcp = []").distinct_sets().len(), 2);
    }

    #[test]
    fn main_sets_are_none_each_and_all_without_repetition() {
        let spelled: Vec<String> = planned().main_sets().iter().map(spell).collect();
        let all = "acme+http3+qlog+sqlite+tcp";
        assert_eq!(spelled, ["none", "acme+tcp", "http3+tcp", "qlog", "sqlite", "tcp", all]);
        assert_eq!(features("tcp = []").main_sets().len(), 2);
    }

    #[test]
    fn default_and_optional_dependencies_are_no_features() {
        assert_eq!(features("default = ['a']\na = ['dep:x', 'y?/z']").distinct_sets().len(), 2);
    }
}
