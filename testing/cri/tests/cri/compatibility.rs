//! What the checked-in list says of each case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

/// The list that `docs/compatibility.md` is generated from.
static LIST: LazyLock<List> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../compatibility.toml")).expect("a list of cases")
});

/// With `sandboxer = "shim"`, a pod with `hostNetwork` makes containerd 2.1 itself crash before it asks for the sandbox.
const ENDS_THE_ENGINE: &str = "namespaces::network_of_the_host";

#[derive(Deserialize)]
struct List {
    cri: Engine,
}

#[derive(Deserialize)]
struct Engine {
    also: Vec<Also>,
    cases: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
    fails: BTreeMap<String, String>,
    /// Cases that come out differently by another way to have ours, `sandboxer`.
    #[serde(default)]
    fails_by: BTreeMap<String, BTreeMap<String, String>>,
}

/// Another way to run, and the cases where it differs.
#[derive(Deserialize)]
struct Also {
    way: String,
    cases: BTreeSet<String>,
}

/// What has to come of a case with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The same as with runc.
    Works,
    /// A refusal, which the case looks at.
    Refused,
    /// A known fault.
    Fails,
}

/// What the list says.
///
/// # Panics
/// When it does not name the case.
pub fn outcome(name: &str) -> Outcome {
    let cri = &LIST.cri;
    assert!(
        cri.cases.contains_key(name),
        "{name} is not in testing/compatibility.toml"
    );
    if cri.refused.contains_key(name) {
        Outcome::Refused
    } else if cri.fails.contains_key(name) {
        Outcome::Fails
    } else {
        Outcome::Works
    }
}

/// What the list says of sandboxes that the shim makes by itself.
///
/// # Panics
/// As [`outcome`].
pub fn outcome_by_itself(name: &str) -> Outcome {
    let fails = LIST.cri.fails_by.get("sandboxer");
    if fails.is_some_and(|cases| cases.contains_key(name)) {
        Outcome::Fails
    } else {
        outcome(name)
    }
}

/// Whether a case can be run with sandboxes that the shim makes by itself.
pub fn can_be_by_itself(name: &str) -> bool {
    name != ENDS_THE_ENGINE
}

/// Whether the list says that a case comes about differently with an older engine.
pub fn differs_with_age(name: &str) -> bool {
    differs("older", name)
}

/// Whether the list says that a case comes about differently with sandboxes that the shim makes by itself.
pub fn differs_by_itself(name: &str) -> bool {
    differs("sandboxer", name)
}

fn differs(way: &str, name: &str) -> bool {
    let mut ways = LIST.cri.also.iter();
    ways.any(|also| also.way == way && also.cases.contains(name))
}
