//! Container engines that are newer than this Debian's, for the tests: read from a newer suite, unpacked, not installed.
//!
//! apt reads the suite with a sources list and folders of its own, and checks the archive's signature and the package's
//! digest. The package stays in the cache under its version; a fetched one needs no network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;
use crate::store::{Locked, Store};
use crate::suite::Suite;

/// What is fetched, and the first version that is new enough.
const PACKAGE: &str = "containerd";
const SERIES: &str = "2.";

/// Suites that may have it, the preferred one first.
const SUITES: [&str; 2] = ["forky", "sid"];

/// Which engines to fetch.
#[derive(Args)]
pub struct Options {
    /// Look for a newer version even if one is cached.
    #[arg(long)]
    update: bool,
    /// Do without what cannot be had, and say so.
    #[arg(long)]
    optional: bool,
}

/// Unpacks what the cache does not hold, and links it into `target/engines`.
pub fn install(places: &Places, options: &Options) -> Result<()> {
    let store = Store::open(&places.cache, "engines")?;
    let cached = cached(&store)?.filter(|_| !options.update);
    let entry = match cached.map_or_else(|| fetch(&store), Ok) {
        Ok(entry) => entry,
        Err(error) if options.optional => {
            eprintln!("doing without {PACKAGE} {SERIES}x: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let link = places.target.join("engines").join(PACKAGE);
    place(&entry, &link).with_context(|| format!("link {}", link.display()))?;
    println!("{}", link.display());
    Ok(())
}

/// The newest one in the cache.
fn cached(store: &Store) -> Result<Option<PathBuf>> {
    let directory = store.directory();
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry
            .with_context(|| format!("read {}", directory.display()))?
            .path();
        if path.join("usr/bin").join(PACKAGE).exists() {
            let made = fs::metadata(&path).and_then(|about| about.modified());
            entries.push((
                made.with_context(|| format!("read {}", path.display()))?,
                path,
            ));
        }
    }
    entries.sort();
    Ok(entries.pop().map(|(_, path)| path))
}

fn fetch(store: &Store) -> Result<PathBuf> {
    let store = store.lock()?;
    let mut failures = Vec::new();
    for suite in SUITES {
        match fetch_from(&store, suite) {
            Ok(entry) => return Ok(entry),
            Err(error) => failures.push(format!("{suite}: {error:#}")),
        }
    }
    bail!(
        "no suite has {PACKAGE} {SERIES}x\n  {}",
        failures.join("\n  ")
    )
}

fn fetch_from(store: &Locked, name: &str) -> Result<PathBuf> {
    let suite = Suite::open(&store.directory().join(".apt"), name)?;
    let version = suite.candidate(PACKAGE)?;
    if !version.starts_with(SERIES) {
        bail!("it has {version}");
    }
    let key = format!("{PACKAGE}-{version}");
    if let Some(entry) = store.find(&key) {
        return Ok(entry);
    }
    eprintln!("fetching {PACKAGE} {version} (about 30 MB)");
    let stage = store.stage()?;
    let package = suite.download(PACKAGE, &version, stage.path())?;
    let content = stage.path().join("content");
    command::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&package)
            .arg(&content),
    )?;
    // It is useless if it wants newer libraries than this machine has.
    command::output(Command::new(content.join("usr/bin").join(PACKAGE)).arg("--version"))?;
    let entry = store.publish(&content, &key)?;
    store.prune(1, |entry| entry.starts_with(PACKAGE))?;
    Ok(entry)
}

/// Makes or renews the link, without a moment in which there is none.
fn place(entry: &Path, link: &Path) -> std::io::Result<()> {
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = link.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => symlink(entry, &draft)?,
    }
    fs::rename(&draft, link)
}
