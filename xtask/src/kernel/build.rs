//! Configuring, compiling and stripping the kernel.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::progress::Progress;

use super::config::Fragments;
use super::source;

/// Changes when the steps below change what comes out.
pub const STEPS: &str = "1";

/// Lines that make prints on the way to vmlinux, about.
const EXPECTED_LINES: usize = 2070;

/// Log lines shown when the build fails.
const TAIL: usize = 40;

/// Who, where and when stand in the kernel's version text; the same inputs give the same kernel.
const ORIGIN: [(&str, &str); 3] = [
    ("KBUILD_BUILD_USER", "cofferdam"),
    ("KBUILD_BUILD_HOST", "cofferdam"),
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
];

/// The programs that make the kernel, by their own description.
pub struct Toolchain {
    /// First line of `gcc --version`.
    pub compiler: String,
    /// First line of `ld --version`.
    pub linker: String,
}

impl Toolchain {
    /// Asks compiler and linker for their versions.
    pub fn find() -> Result<Self> {
        Ok(Self {
            compiler: version("gcc")?,
            linker: version("ld")?,
        })
    }
}

fn version(program: &str) -> Result<String> {
    let text = command::text(Command::new(program).arg("--version").env("LC_ALL", "C"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Builds in `stage`; gives back a folder with `vmlinux`, `System.map` and `config`.
pub fn build(
    stage: &Path,
    package: &Path,
    fragments: &Fragments,
    toolchain: &Toolchain,
    jobs: usize,
) -> Result<PathBuf> {
    eprintln!("unpacking the kernel source");
    let tree = source::unpack(package, stage)?;
    configure(&tree, stage, fragments)?;
    eprintln!("compiling the guest kernel with {}", toolchain.compiler);
    compile(&tree, stage, jobs)?;

    let finished = stage.join("finished");
    fs::create_dir(&finished).with_context(|| format!("create {}", finished.display()))?;
    command::run(
        Command::new("strip")
            .arg("-o")
            .arg(finished.join("vmlinux"))
            .arg(tree.join("vmlinux")),
    )?;
    for (from, to) in [(".config", "config"), ("System.map", "System.map")] {
        fs::copy(tree.join(from), finished.join(to)).with_context(|| format!("keep {from}"))?;
    }
    Ok(finished)
}

fn configure(tree: &Path, stage: &Path, fragments: &Fragments) -> Result<()> {
    let requests = stage.join("requests.config");
    fs::write(&requests, fragments.text())
        .with_context(|| format!("write {}", requests.display()))?;
    // Everything off but what the fragments name and what that selects.
    command::output(
        make(tree)
            .arg("allnoconfig")
            .env("KCONFIG_ALLCONFIG", &requests),
    )?;
    command::output(make(tree).arg("olddefconfig"))?;
    let path = tree.join(".config");
    let configuration =
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    fragments.verify(&configuration)
}

fn compile(tree: &Path, stage: &Path, jobs: usize) -> Result<()> {
    let path = stage.join("build.log");
    let mut log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let warnings = log.try_clone().context("share the build log")?;
    let mut child = make(tree)
        .arg(format!("--jobs={jobs}"))
        .arg("vmlinux")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(warnings)
        .spawn()
        .context("run make")?;
    let mut progress = Progress::start("guest kernel", EXPECTED_LINES);
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("read make's output")?;
            writeln!(log, "{line}").with_context(|| format!("write {}", path.display()))?;
            progress.advance();
        }
    }
    let status = child.wait().context("wait for make")?;
    let lines = progress.finish();
    if !status.success() {
        let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let log = String::from_utf8_lossy(&log);
        let skipped = log.lines().count().saturating_sub(TAIL);
        let tail: Vec<&str> = log.lines().skip(skipped).collect();
        bail!(
            "make ended with {status} after {lines} lines; the last ones:\n{}",
            tail.join("\n")
        );
    }
    Ok(())
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("--directory")
        .arg(tree)
        .arg("ARCH=x86_64")
        .env("LC_ALL", "C")
        .envs(ORIGIN);
    // Our own Makefile may have called: its job server and flags are not for the kernel's.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        command.env_remove(variable);
    }
    command
}
