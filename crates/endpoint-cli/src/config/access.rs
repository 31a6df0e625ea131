//! Who may use a handler or a route? `access` and `scope` of a table.

use endpoint_core::config::{Access, Scope};
use toml::de::DeTable;

use super::read::{Reader, Value};

const EXPECTED: &str = "\"public\", \"peer\" or \"loopback\"";

/// Reads both; without `access` it is what `unsaid` makes of the scope. A word that is none of the three is
/// `other`'s to fault.
pub(super) fn access<'t>(
    reader: &mut Reader<'t>,
    table: &DeTable<'t>,
    unsaid: impl FnOnce(Scope) -> Access,
    other: impl FnOnce(&mut Reader<'t>, &Value<'t>, &str),
) -> Option<Access> {
    let scope = match table.get("scope") {
        Some(value) => {
            reader.parsed(value, "a scope", |text| Scope::new(text).map_err(|e| e.to_string()))?
        }
        None => Scope::ANY,
    };
    let access = match table.get("access") {
        None => unsaid(scope),
        Some(value) => match reader.string(value, EXPECTED)?.as_ref() {
            "public" => Access::Public,
            "peer" => Access::Peer(scope),
            "loopback" => Access::Loopback,
            word => {
                other(reader, value, word);
                return None;
            }
        },
    };
    if let (Some(value), false) = (table.get("scope"), matches!(access, Access::Peer(_))) {
        reader.fault(value.span(), "`scope` goes only with access = \"peer\"", "this value");
    }
    Some(access)
}

/// Faults a word that is none of the three.
pub(super) fn unknown<'t>(reader: &mut Reader<'t>, value: &Value<'t>, _word: &str) {
    reader.expected(value, EXPECTED);
}
