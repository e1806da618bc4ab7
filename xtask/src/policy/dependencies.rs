//! Whose code is used: licences, sources, bans and doubled crates, against `deny.toml`.
//!
//! The file keeps cargo-deny's section names where they mean the same; this check needs no network
//! and no program beyond cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::places::Places;

use super::graph::{Graph, Package};
use super::licence;

/// `deny.toml`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Licences {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(default)]
    clarify: Vec<Clarification>,
}

/// A package whose manifest does not name the licence that lies beside it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Clarification {
    name: String,
    expression: String,
    reason: String,
}

/// A package that may use licences which others may not.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Exception {
    name: String,
    allow: BTreeSet<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Bans {
    deny: Vec<Ban>,
    /// Crates of which a program may hold one version only.
    one_version: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Ban {
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Sources {
    allow_registry: BTreeSet<String>,
}

/// Checks every package that goes into the programs or builds and tests them.
pub fn check(places: &Places) -> Result<()> {
    let path = places.root.join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let policy: Policy =
        toml::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    let graph = Graph::read(places)?;

    let mut faults = Vec::new();
    let licences = &policy.licenses;
    let exceptions = licences.exceptions.iter();
    let clarifications = licences.clarify.iter();
    let mut unused = BTreeMap::new();
    unused.extend(exceptions.map(|entry| (entry.name.as_str(), entry.reason.as_str())));
    unused.extend(clarifications.map(|entry| (entry.name.as_str(), entry.reason.as_str())));
    for (name, reason) in &unused {
        if reason.is_empty() {
            faults.push(format!("the licence exception for {name} has no reason"));
        }
    }
    let mut foreign = 0;
    for package in graph.packages() {
        let Some(source) = &package.source else {
            continue;
        };
        foreign += 1;
        unused.remove(package.name.as_str());
        check_licence(licences, package, &mut faults)?;
        check_source(&policy.sources, package, source, &mut faults);
        for ban in &policy.bans.deny {
            if ban.name == package.name {
                faults.push(format!("{} is banned: {}", describe(package), ban.reason));
            }
        }
    }
    for name in unused.into_keys() {
        faults.push(format!(
            "the licence exception for {name} is no longer used"
        ));
    }
    for (folder, member) in graph.members()? {
        let closure = graph.closure(member)?;
        check_versions(&policy.bans.one_version, &folder, &closure, &mut faults);
    }
    if !faults.is_empty() {
        faults.sort();
        bail!("dependencies break deny.toml:\n  {}", faults.join("\n  "));
    }
    println!("licenses: {foreign} packages from elsewhere, all as deny.toml wants them");
    Ok(())
}

fn check_licence(licences: &Licences, package: &Package, faults: &mut Vec<String>) -> Result<()> {
    let mut clarifications = licences.clarify.iter();
    let clarified = clarifications.find(|entry| entry.name == package.name);
    let named = package.license.as_ref();
    let Some(expression) = named.or(clarified.map(|entry| &entry.expression)) else {
        faults.push(format!("{} names no licence", describe(package)));
        return Ok(());
    };
    let mut allowed = licences.allow.clone();
    for exception in &licences.exceptions {
        if exception.name == package.name {
            allowed.extend(exception.allow.iter().cloned());
        }
    }
    if !licence::satisfies(expression, &allowed)
        .with_context(|| format!("licence of {}", describe(package)))?
    {
        faults.push(format!(
            "{} is under {expression}, which is not allowed",
            describe(package)
        ));
    }
    Ok(())
}

fn check_source(sources: &Sources, package: &Package, source: &str, faults: &mut Vec<String>) {
    let registry = source.strip_prefix("registry+");
    if !registry.is_some_and(|registry| sources.allow_registry.contains(registry)) {
        faults.push(format!("{} comes from {source}", describe(package)));
    }
}

fn check_versions(
    single: &BTreeSet<String>,
    folder: &Path,
    closure: &[&Package],
    faults: &mut Vec<String>,
) {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in closure {
        if single.contains(&package.name) {
            let seen = versions.entry(&package.name).or_default();
            seen.insert(&package.version);
        }
    }
    for (name, versions) in versions {
        if versions.len() > 1 {
            faults.push(format!(
                "{} holds several versions of {name}: {versions:?}",
                folder.display()
            ));
        }
    }
}

fn describe(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}
