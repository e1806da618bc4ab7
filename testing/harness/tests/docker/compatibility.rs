//! What the checked-in list says of each case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use crate::runtime::Runtime;

/// The list that `docs/compatibility.md` is generated from.
static LIST: LazyLock<List> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../compatibility.toml")).expect("a list of cases")
});

#[derive(Deserialize)]
struct List {
    docker: Engine,
}

#[derive(Deserialize)]
struct Engine {
    cases: BTreeMap<String, String>,
    also: Vec<Also>,
    refused: BTreeMap<String, String>,
    #[serde(default)]
    fails: BTreeMap<String, String>,
    /// By the ways to have ours.
    #[serde(default)]
    fails_by: BTreeMap<String, BTreeMap<String, String>>,
}

/// Cases where releases of Docker differ: the older one runs these.
#[derive(Deserialize)]
struct Also {
    way: String,
    cases: BTreeSet<String>,
}

fn fails_by(docker: &Engine, name: &str, ours: Runtime) -> bool {
    let way = format!("{ours:?}").to_lowercase();
    let cases = docker.fails_by.get(&way);
    cases.is_some_and(|cases| cases.contains_key(name))
}

/// What has to come of a case with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The same as with runc.
    Works,
    /// A refusal.
    Refused,
    /// Something else than with runc: a known fault.
    Fails,
}

/// What the list says.
///
/// # Panics
/// When it does not name the case.
pub fn outcome(name: &str, ours: Runtime) -> Outcome {
    let docker = &LIST.docker;
    assert!(
        docker.cases.contains_key(name),
        "{name} is not in testing/compatibility.toml"
    );
    if docker.refused.contains_key(name) {
        Outcome::Refused
    } else if docker.fails.contains_key(name) || fails_by(docker, name, ours) {
        Outcome::Fails
    } else {
        Outcome::Works
    }
}

/// Whether the list says that releases of Docker go different ways in a case.
pub fn differs(name: &str) -> bool {
    let mut ways = LIST.docker.also.iter();
    ways.any(|also| also.way == "older" && also.cases.contains(name))
}
