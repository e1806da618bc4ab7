//! What our monitor's boot and devices cost beside others': `testing/monitors`, in a test host where time is the number of
//! instructions, or on this machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;
use crate::testhost;

/// How long all boots, or all devices, may take in a test host, in seconds of this machine.
const LIMIT_SECONDS: u32 = 5400;

/// The first program of the guest whose devices are measured, and what it becomes.
const INSIDE: (&str, &str) = ("testing/monitors/guest/measured.rs", "monitors/measured");

/// What to compare.
#[derive(Args)]
pub struct Options {
    /// Measure devices instead of boots: ours and those of QEMU.
    #[arg(long, conflicts_with_all = ["firecracker", "cloud_hypervisor"])]
    io: bool,
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
    compare.arg(if options.io { "io" } else { "compare" });
    compare.arg("--prefix").arg(&prefix);
    if options.io {
        compare.arg("--inside").arg(inside(places)?);
    }
    for (name, path) in others {
        compare.arg(name).arg(path);
    }
    command::run(&mut compare)
}

/// Compiles the guest's first program. It needs nothing but the compiler, and no library where it runs.
fn inside(places: &Places) -> Result<PathBuf> {
    let (source, program) = INSIDE;
    let program = places.target.join(program);
    if let Some(folder) = program.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    command::run(
        Command::new(rustc)
            .args(["--edition=2024", "-Copt-level=2", "-Cpanic=abort"])
            .args(["-Cstrip=symbols", "-Ctarget-feature=+crt-static"])
            .arg("-Crelocation-model=static")
            .arg("-o")
            .arg(&program)
            .arg(places.root.join(source)),
    )?;
    Ok(program)
}
