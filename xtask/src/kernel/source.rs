//! Debian's kernel source package, read from a suite of our own choice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::digest;
use crate::store::{Locked, Store};
use crate::suite::Suite;

const PACKAGE: &str = "linux-source-6.12";

/// Suites that carry the package, the preferred one first.
const SUITES: [&str; 2] = ["bookworm-backports", "trixie"];

/// What x86 without these drivers does not need: half of the tree, which would have to be written and
/// removed again. Kconfig files stay, because every one of them is read.
const UNUSED: [&str; 15] = [
    "*/Documentation/?*/*",
    "*/arch/[!x]*/*.[chS]",
    "*/arch/[!x]*/dts/*",
    "*/drivers/gpu/*.[chS]",
    "*/drivers/iio/*.[ch]",
    "*/drivers/infiniband/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/drivers/usb/*.[ch]",
    "*/sound/*.[chS]",
    "*/tools/perf/*",
    "*/tools/testing/*",
];

/// One version of the source package.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// The package's version.
    pub version: String,
    suite: String,
    /// The digest of the package file, once it was fetched.
    #[serde(default)]
    sha256: Option<String>,
}

/// The source version that was used last, if there was one.
pub fn known(store: &Store) -> Result<Option<Source>> {
    let path = record(store);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{}: remove it, it will be written again", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// The newest version that the archive offers. Without a network: the last one used, if it is still
/// here, and the terminal is told.
pub fn newest(store: &Locked) -> Result<Source> {
    let mut failures = Vec::new();
    for suite in SUITES {
        let folder = store.directory().join("apt");
        match Suite::open(&folder, suite).and_then(|suite| suite.candidate(PACKAGE)) {
            Ok(version) => {
                let known = known(store)?.filter(|known| known.version == version);
                return Ok(known.unwrap_or(Source {
                    version,
                    suite: suite.to_owned(),
                    sha256: None,
                }));
            }
            Err(error) => {
                eprintln!("cannot read {suite}: {error:#}");
                failures.push(format!("{suite}: {error:#}"));
            }
        }
    }
    let failures = failures.join("\n  ");
    if let Some(known) = known(store)?
        && intact(&package(store), &known)?
    {
        eprintln!(
            "no suite can be read, using {PACKAGE} {} from the cache",
            known.version
        );
        return Ok(known);
    }
    bail!("cannot find the package {PACKAGE}\n  {failures}")
}

/// The package file of that version, from the cache or from the archive.
pub fn fetch(store: &Locked, source: &Source) -> Result<PathBuf> {
    let package = package(store);
    if intact(&package, source)? {
        return Ok(package);
    }
    eprintln!("fetching {PACKAGE} {} (about 150 MB)", source.version);
    let stage = store.stage()?;
    let fetched = Suite::of(&store.directory().join("apt"), &source.suite).download(
        PACKAGE,
        &source.version,
        stage.path(),
    )?;
    let sha256 =
        digest::of_file(&fetched).with_context(|| format!("read {}", fetched.display()))?;
    fs::rename(&fetched, &package).with_context(|| format!("write {}", package.display()))?;
    let record = record(store);
    let source = Source {
        sha256: Some(sha256),
        ..source.clone()
    };
    let draft = record.with_extension("draft");
    fs::write(&draft, serde_json::to_vec_pretty(&source)?)
        .and_then(|()| fs::rename(&draft, &record))
        .with_context(|| format!("write {}", record.display()))?;
    Ok(package)
}

/// Unpacks what is needed of the package's source tree below `directory`; gives back its top.
pub fn unpack(package: &Path, directory: &Path) -> Result<PathBuf> {
    let content = directory.join("package");
    command::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(&content),
    )?;
    let archive = content.join(format!("usr/src/{PACKAGE}.tar.xz"));
    command::run(
        Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(directory)
            .args(["--wildcards", "--wildcards-match-slash"])
            .args(UNUSED.map(|pattern| format!("--exclude={pattern}"))),
    )?;
    fs::remove_dir_all(&content).with_context(|| format!("remove {}", content.display()))?;
    Ok(directory.join(PACKAGE))
}

fn record(store: &Store) -> PathBuf {
    store.directory().join("source.json")
}

fn package(store: &Store) -> PathBuf {
    store.directory().join("source.deb")
}

fn intact(package: &Path, source: &Source) -> Result<bool> {
    let Some(expected) = &source.sha256 else {
        return Ok(false);
    };
    if !package.exists() {
        return Ok(false);
    }
    let found = digest::of_file(package).with_context(|| format!("read {}", package.display()))?;
    Ok(found == *expected)
}
