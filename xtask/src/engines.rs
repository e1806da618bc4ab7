//! Container engines that are newer than this Debian's, for the tests: read from a newer suite, unpacked, not installed.
//!
//! apt reads the suite with a sources list and folders of its own, and checks the archive's signature and the package's
//! digest. The package stays in the cache under its version; a fetched one needs no network.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;
use crate::prefix;
use crate::store::{Locked, Store};
use crate::suite::Suite;

/// An engine, and where a version of it that is new enough comes from.
struct Engine {
    /// The name of its folder; its first package is what gives the version.
    name: &'static str,
    packages: &'static [&'static str],
    /// How its version begins.
    series: &'static str,
    /// Suites that may have it, the preferred one first.
    suites: &'static [&'static str],
    /// What has to run here: it is useless if it wants newer libraries than this machine has.
    programs: &'static [&'static str],
    /// What is fetched at most.
    megabytes: u32,
}

const ENGINES: [Engine; 2] = [
    Engine {
        name: "containerd",
        packages: &["containerd"],
        series: "2.",
        suites: &["forky", "sid"],
        programs: &["usr/bin/containerd"],
        megabytes: 30,
    },
    // Sets up a container's network between create and start, without a hook, and takes shims by their name.
    Engine {
        name: "docker",
        packages: &["docker.io", "docker-cli"],
        series: "28.",
        suites: &["forky", "sid"],
        programs: &["usr/sbin/dockerd", "usr/bin/docker"],
        megabytes: 30,
    },
];

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
    for engine in &ENGINES {
        let cached = engine.cached(&store)?.filter(|_| !options.update);
        let entry = match cached.map_or_else(|| engine.fetch(&store), Ok) {
            Ok(entry) => entry,
            Err(error) if options.optional => {
                eprintln!(
                    "doing without {} {}x: {error:#}",
                    engine.name, engine.series
                );
                continue;
            }
            Err(error) => return Err(error),
        };
        let link = places.target.join("engines").join(engine.name);
        prefix::link(&entry, &link)?;
        println!("{}", link.display());
    }
    Ok(())
}

impl Engine {
    /// The newest one in the cache.
    fn cached(&self, store: &Store) -> Result<Option<PathBuf>> {
        store.newest(|entry| {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            let start = format!("{}-{}", self.name, self.series);
            name.starts_with(&start)
                && self
                    .programs
                    .iter()
                    .all(|program| entry.join(program).exists())
        })
    }

    fn fetch(&self, store: &Store) -> Result<PathBuf> {
        let store = store.lock()?;
        let mut failures = Vec::new();
        for suite in self.suites {
            match self.fetch_from(&store, suite) {
                Ok(entry) => return Ok(entry),
                Err(error) => failures.push(format!("{suite}: {error:#}")),
            }
        }
        bail!(
            "no suite has {} {}x\n  {}",
            self.name,
            self.series,
            failures.join("\n  ")
        )
    }

    fn fetch_from(&self, store: &Locked, name: &str) -> Result<PathBuf> {
        let suite = Suite::open(&store.directory().join(".apt"), name)?;
        let versions = self.packages.iter().map(|package| {
            let version = suite.candidate(package)?;
            if !version.starts_with(self.series) {
                bail!("it has {package} {version}");
            }
            Ok(version)
        });
        let versions = versions.collect::<Result<Vec<_>>>()?;
        let version = versions.first().context("an engine without packages")?;
        let key = format!("{}-{version}", self.name);
        if let Some(entry) = store.find(&key) {
            return Ok(entry);
        }
        eprintln!(
            "fetching {} {version} (about {} MB)",
            self.name, self.megabytes
        );
        let stage = store.stage()?;
        let content = stage.path().join("content");
        for (package, version) in self.packages.iter().zip(&versions) {
            suite.unpack(package, version, stage.path(), &content)?;
        }
        for program in self.programs {
            command::output(Command::new(content.join(program)).arg("--version"))?;
        }
        let entry = store.publish(&content, &key)?;
        // Another tree's tests may want the one before.
        store.prune(2, |entry| entry.starts_with(self.name))?;
        Ok(entry)
    }
}
