//! Capabilities that nobody here knows: newer engines may name newer ones. The runtime-spec wants them logged and the
//! container made without.

use oci_spec::runtime::Capability;
use serde_json::Value;

/// Takes them out of a process object; their names.
pub(super) fn drop_unknown(process: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(serde_json::Map::values_mut) {
        let Some(set) = set.as_array_mut() else {
            continue;
        };
        set.retain(|name| {
            // What is no word at all is for the parser to refuse.
            let Some(text) = name.as_str() else {
                return true;
            };
            let is_known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !is_known && !dropped.iter().any(|other| other == text) {
                dropped.push(text.to_owned());
            }
            is_known
        });
    }
    dropped
}
