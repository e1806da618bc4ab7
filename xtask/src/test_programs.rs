//! The test programs of the workspace, built by cargo and found by what cargo says of them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command;
use crate::places::Places;

/// A test program.
#[derive(Debug)]
pub struct Program {
    /// Where cargo would start it: its package's folder.
    pub folder: PathBuf,
    /// What cargo calls it.
    pub target: String,
    /// Whether it is of a package's `tests`, not of the code itself.
    pub is_integration: bool,
    /// Itself.
    pub executable: PathBuf,
}

/// What cargo says of a thing that it has built.
#[derive(Deserialize)]
struct Built {
    executable: Option<PathBuf>,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds those that these words of `cargo test` select.
pub fn build(places: &Places, selection: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--locked", "--no-run"])
        .args(selection)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(&places.root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = cargo
        .output()
        .with_context(|| format!("run {}", command::line(&cargo)))?;
    if !output.status.success() {
        bail!("{} ended with {}", command::line(&cargo), output.status);
    }
    let said = String::from_utf8(output.stdout).context("cargo wrote something else than UTF-8")?;
    said.lines()
        // Its other messages have other fields.
        .filter_map(|line| serde_json::from_str::<Built>(line).ok())
        .filter(|built| built.profile.test)
        .filter_map(|built| {
            built
                .executable
                .clone()
                .map(|executable| (built, executable))
        })
        .map(|(built, executable)| {
            Ok(Program {
                folder: built
                    .manifest_path
                    .parent()
                    .context("a manifest has a folder")?
                    .to_owned(),
                target: built.target.name,
                is_integration: built.target.kind.iter().any(|kind| kind == "test"),
                executable: fs::canonicalize(&executable)
                    .with_context(|| format!("find {}", executable.display()))?,
            })
        })
        .collect()
}
