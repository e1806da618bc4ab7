//! The test host: what it boots from, and starting it. The machine itself is `testing/testhost`.

mod image;
mod modules;
mod vmlinux;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;

/// What to run, and in what.
#[derive(Args)]
pub struct Options {
    /// Memory of the test host [default: 2000].
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// How long the command may run.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Count instructions instead of time: slower, but what is measured does not depend on this machine's load.
    #[arg(long)]
    icount: bool,
    /// The folder that is shared writable, at the same path [default: target/testhost/results].
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
    /// A folder that is shown even if it lies in /tmp or another folder that the test host has for itself.
    #[arg(long, value_name = "FOLDER")]
    show: Vec<PathBuf>,
    /// Only make what it boots from.
    #[arg(long, conflicts_with = "command")]
    prepare: bool,
    /// Look for a newer kernel package even if one is cached.
    #[arg(long)]
    update: bool,
    /// The command and its arguments; without one, a shell at this terminal.
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Runs a command in a test host: becomes the program that does.
pub fn run(places: &Places, options: &Options) -> Result<()> {
    if !options.prepare && options.command.is_empty() && !std::io::stdin().is_terminal() {
        bail!("no command, and standard input is no terminal for a shell: name one behind `--`");
    }
    let program = prepare(places, options.update)?;
    if options.prepare {
        return Ok(());
    }
    let results = match &options.results {
        Some(folder) => {
            std::path::absolute(folder).with_context(|| format!("find {}", folder.display()))?
        }
        None => folder(places).join("results"),
    };
    let mut host = start(places, &program, &results)?;
    for folder in &options.show {
        host.arg("--show").arg(folder);
    }
    if let Some(memory) = options.memory {
        host.arg(format!("--memory={memory}"));
    }
    if let Some(timeout) = options.timeout {
        host.arg(format!("--timeout={timeout}"));
    }
    if options.icount {
        host.arg("--icount");
    }
    host.arg("--").args(&options.command);
    // Answers only if it failed.
    Err(host.exec()).with_context(|| format!("run {}", command::line(&host)))
}

/// The program with all that concerns this tree; the command is to come behind `--`.
pub fn start(places: &Places, program: &Path, results: &Path) -> Result<Command> {
    std::fs::create_dir_all(results).with_context(|| format!("create {}", results.display()))?;
    let mut host = Command::new(program);
    host.arg("run");
    host.arg("--images").arg(folder(places));
    host.arg("--results").arg(results);
    host.arg("--show").arg(&places.root);
    host.arg("--show").arg(&places.target);
    Ok(host)
}

/// Makes what a test host boots from, and the program that boots it.
pub fn prepare(places: &Places, update: bool) -> Result<PathBuf> {
    images(places, update)?;
    program(places)
}

/// Makes what a test host boots from.
pub fn images(places: &Places, update: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a test host has this machine's files, which only root may read: run as root");
    }
    image::install(places, &folder(places), update)
}

/// Builds the program that boots one, or finds out whether one is needed.
pub fn program(places: &Places) -> Result<PathBuf> {
    command::run(
        Command::new("cargo")
            .args(["build", "--locked", "--quiet", "--package", "testhost"])
            .current_dir(&places.root),
    )?;
    Ok(places.target.join("debug/testhost"))
}

/// Where kernel, modules and initial RAM disk are found.
pub fn folder(places: &Places) -> PathBuf {
    places.target.join("testhost")
}
