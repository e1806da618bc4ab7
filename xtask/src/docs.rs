//! What is generated: `docs/cli.md`, manual pages and completions of the command line's definition, `docs/compatibility.md` of
//! the list of cases.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::places::Places;
use crate::prefix::place_bytes;
use crate::{command, compatibility};

/// What to do with the generated files.
#[derive(Args)]
pub struct Options {
    /// Only say whether they are up to date.
    #[arg(long)]
    check: bool,
}

/// Folders that hold nothing but generated files: in the program's output, in the tree.
const FOLDERS: [(&str, &str); 2] = [
    ("man", "docs/man"),
    ("completions", "packaging/completions"),
];
/// A generated file among others.
const REFERENCE: (&str, &str) = ("cli.md", "docs/cli.md");
const COMPATIBILITY: &str = "docs/compatibility.md";

/// Generates the files, or compares them with those in the tree.
pub fn generate(places: &Places, options: &Options) -> Result<()> {
    let cargo = ["build", "--locked", "--package", "cofferdam"];
    command::run(Command::new("cargo").args(cargo).current_dir(&places.root))?;
    let output = tempfile::tempdir().context("create a temporary folder")?;
    command::run(
        Command::new(places.target.join("debug/cofferdam"))
            .arg("generate-docs")
            .arg(output.path()),
    )?;

    let mut wanted = BTreeMap::new();
    let (from, to) = REFERENCE;
    wanted.insert(PathBuf::from(to), read(&output.path().join(from))?);
    wanted.insert(COMPATIBILITY.into(), compatibility::document(places)?);
    let mut present = Vec::new();
    for (from, to) in FOLDERS {
        for name in names(&output.path().join(from))? {
            wanted.insert(
                Path::new(to).join(&name),
                read(&output.path().join(from).join(&name))?,
            );
        }
        let folder = places.root.join(to);
        if folder.is_dir() {
            present.extend(names(&folder)?.iter().map(|name| Path::new(to).join(name)));
        }
    }
    let stale: Vec<_> = present
        .into_iter()
        .filter(|path| !wanted.contains_key(path))
        .collect();

    if options.check {
        return compare(places, &wanted, stale);
    }
    for (path, content) in &wanted {
        place_bytes(content, &places.root.join(path), 0o644)?;
    }
    for path in stale {
        fs::remove_file(places.root.join(&path))
            .with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

fn compare(
    places: &Places,
    wanted: &BTreeMap<PathBuf, Vec<u8>>,
    mut other: Vec<PathBuf>,
) -> Result<()> {
    for (path, content) in wanted {
        let is_same = fs::read(places.root.join(path)).is_ok_and(|present| present == *content);
        if !is_same {
            other.push(path.clone());
        }
    }
    if other.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = other
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "not up to date with what they are made of: {} (`cargo xtask docs` writes them)",
        list.join(", ")
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .with_context(|| format!("read {}", folder.display()))
}
