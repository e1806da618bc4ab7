//! What our monitor's boot costs beside others': `testing/monitors`, in a test host where time is the number of
//! instructions, or on this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;
use crate::testhost;

/// How long all boots may take, in seconds of a test host.
const LIMIT_SECONDS: u32 = 600;

/// What to compare.
#[derive(Args)]
pub struct Options {
    /// A Firecracker program, to be measured, too.
    #[arg(long)]
    firecracker: Option<PathBuf>,
    /// A Cloud Hypervisor program, to be measured, too.
    #[arg(long)]
    cloud_hypervisor: Option<PathBuf>,
    /// Measure on this machine, whose KVM must run guests: milliseconds instead of million instructions.
    #[arg(long)]
    here: bool,
}

/// Builds the program that measures and runs it.
pub fn run(places: &Places, options: &Options) -> Result<()> {
    let prefix = places.target.join("cofferdam");
    if !prefix.join("libexec/cofferdam/cofferdam-vmm").is_file() {
        bail!("nothing is built yet: `make build` does that");
    }
    command::run(
        Command::new("cargo")
            .args(["build", "--locked", "--release", "--package", "monitors"])
            .current_dir(&places.root),
    )?;
    let program = places.target.join("release/monitors");
    let others = [
        ("--firecracker", &options.firecracker),
        ("--cloud-hypervisor", &options.cloud_hypervisor),
    ];
    let others = others
        .into_iter()
        .filter_map(|(name, path)| Some((name, path.as_ref()?)))
        .map(|(name, path)| {
            let found = path.canonicalize();
            Ok((
                name,
                found.with_context(|| format!("find {}", path.display()))?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut compare = if options.here {
        Command::new(program)
    } else {
        let host = testhost::prepare(places, false)?;
        let mut host = testhost::start(places, &host, &testhost::folder(places).join("results"))?;
        for folder in others.iter().filter_map(|(_, path)| path.parent()) {
            host.arg("--show").arg(folder);
        }
        host.arg(format!("--timeout={LIMIT_SECONDS}"))
            .args(["--icount", "--"])
            .arg(program);
        host
    };
    compare.arg("compare").arg("--prefix").arg(&prefix);
    for (name, path) in others {
        compare.arg(name).arg(path);
    }
    command::run(&mut compare)
}
