//! The dependency graph as `cargo metadata` tells it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command;
use crate::places::Places;

/// The packages of the workspace and everything below them.
pub struct Graph {
    root: PathBuf,
    packages: HashMap<String, Package>,
    /// For each package id, the ids it uses when it is built for the target; not for its tests.
    uses: HashMap<String, Vec<String>>,
    members: BTreeSet<String>,
}

/// One package.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Cargo's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression.
    pub license: Option<String>,
    /// Where it comes from; none for a folder of this tree.
    pub source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None for a normal dependency, else "dev" or "build".
    kind: Option<String>,
}

impl Graph {
    /// Asks cargo, for the one target that is built.
    pub fn read(places: &Places) -> Result<Self> {
        let text = command::text(
            Command::new("cargo")
                .args(["metadata", "--format-version=1", "--locked"])
                .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
                .current_dir(&places.root),
        )?;
        let metadata: Metadata =
            serde_json::from_str(&text).context("understand cargo metadata")?;
        let uses = metadata.resolve.nodes.into_iter().map(|node| {
            let below = node
                .deps
                .into_iter()
                .filter(|dependency| {
                    let mut kinds = dependency.dep_kinds.iter();
                    kinds.any(|kind| kind.kind.as_deref() != Some("dev"))
                })
                .map(|dependency| dependency.pkg)
                .collect();
            (node.id, below)
        });
        Ok(Self {
            root: places.root.clone(),
            uses: uses.collect(),
            packages: metadata
                .packages
                .into_iter()
                .map(|package| (package.id.clone(), package))
                .collect(),
            members: metadata.workspace_members.into_iter().collect(),
        })
    }

    /// The workspace's own packages, by their folder below the root.
    pub fn members(&self) -> Result<BTreeMap<PathBuf, &Package>> {
        let mut members = BTreeMap::new();
        for id in &self.members {
            let package = self.package(id)?;
            members.insert(self.folder(package)?, package);
        }
        Ok(members)
    }

    /// All packages.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// What a package uses directly.
    pub fn direct(&self, package: &Package) -> Result<Vec<&Package>> {
        let uses = self.uses.get(&package.id);
        uses.into_iter()
            .flatten()
            .map(|id| self.package(id))
            .collect()
    }

    /// A package and everything below it.
    pub fn closure<'a>(&'a self, package: &'a Package) -> Result<Vec<&'a Package>> {
        let mut seen = BTreeSet::from([package.id.as_str()]);
        let mut found = vec![package];
        let mut next = 0;
        while let Some(package) = found.get(next).copied() {
            next += 1;
            for below in self.direct(package)? {
                if seen.insert(&below.id) {
                    found.push(below);
                }
            }
        }
        Ok(found)
    }

    /// The folder of a package of this tree, below the root.
    pub fn folder(&self, package: &Package) -> Result<PathBuf> {
        let manifest = &package.manifest_path;
        let folder = manifest.parent().unwrap_or(Path::new(""));
        let below = folder.strip_prefix(&self.root);
        below
            .map(Path::to_path_buf)
            .with_context(|| format!("{} is outside the tree", manifest.display()))
    }

    fn package(&self, id: &str) -> Result<&Package> {
        self.packages
            .get(id)
            .with_context(|| format!("cargo metadata does not describe {id}"))
    }
}
