//! A Debian suite of our own choice, beside the machine's.
//!
//! The suite is read with its own sources list and its own list folder, so that the machine's package sources stay as
//! they are. apt checks the archive's signature and the package's digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::mirror;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite, seen through apt with folders of its own.
pub struct Suite {
    list: PathBuf,
    lists: PathBuf,
    cache: PathBuf,
}

impl Suite {
    /// The suite as it was read last; `folder` has one folder for each suite.
    pub fn of(folder: &Path, suite: &str) -> Self {
        let directory = folder.join(suite);
        Self {
            list: directory.join("sources.list"),
            lists: directory.join("lists"),
            cache: directory.join("cache"),
        }
    }

    /// Reads the suite's present package list.
    pub fn open(folder: &Path, name: &str) -> Result<Self> {
        let suite = Self::of(folder, name);
        for directory in [
            suite.lists.join("partial"),
            suite.cache.join("archives/partial"),
        ] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("create {}", directory.display()))?;
        }
        let mirror = mirror::debian();
        fs::write(
            &suite.list,
            format!("deb [signed-by={KEYRING}] {mirror} {name} main\n"),
        )
        .with_context(|| format!("write {}", suite.list.display()))?;
        command::output(
            suite
                .apt("apt-get")
                .arg("--quiet=2")
                .args(["-o", "APT::Update::Error-Mode=any"])
                .arg("update"),
        )?;
        Ok(suite)
    }

    /// The newest version of a package that the suite has.
    pub fn candidate(&self, package: &str) -> Result<String> {
        let offers = command::text(self.apt("apt-cache").arg("madison").arg(package))?;
        // package | version | origin, the newest first
        let version = offers
            .lines()
            .next()
            .and_then(|line| line.split('|').nth(1))
            .map(str::trim);
        version
            .map(str::to_owned)
            .with_context(|| format!("no package {package}"))
    }

    /// The package that another one, which stands for it, depends on: the one whose name begins like this.
    pub fn dependency(&self, package: &str, start: &str) -> Result<String> {
        let text = command::text(self.apt("apt-cache").arg("depends").arg(package))?;
        // package, and below it lines like "  Depends: another"
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(start))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on no {start}…"))
    }

    /// Fetches a package by way of a folder of its own in `stage`, and adds its files to `content`.
    pub fn unpack(&self, package: &str, version: &str, stage: &Path, content: &Path) -> Result<()> {
        let folder = stage.join(package);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let file = self.download(package, version, &folder)?;
        command::run(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&file)
                .arg(content),
        )
    }

    /// Fetches a package into an empty folder; answers its file.
    pub fn download(&self, package: &str, version: &str, folder: &Path) -> Result<PathBuf> {
        command::run(
            self.apt("apt-get")
                .arg("--quiet=2")
                .arg("download")
                .arg(format!("{package}={version}"))
                .current_dir(folder),
        )?;
        let mut fetched = None;
        for entry in fs::read_dir(folder).context("read the fetched package's folder")? {
            fetched = Some(entry.context("read the fetched package's folder")?.path());
        }
        let Some(fetched) = fetched else {
            bail!("apt-get fetched no package");
        };
        Ok(fetched)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        for setting in [
            option("Dir::Etc::sourcelist", &self.list),
            option("Dir::State::lists", &self.lists),
            option("Dir::Cache", &self.cache),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::http::Timeout=60".to_owned(),
            // The cache may lie in a home folder that apt's own user cannot enter.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command
    }
}
