//! Whole-command timings and memory, as ratios of one run.
//!
//! Machines differ and are busy, so a figure alone says little: everything is measured in interleaved rounds of one run,
//! and what counts are the ratios to the *floor*: the time that an emulator without any of our host programs needs to
//! bring up the same guest until its agent answers. What goes through engines is measured with runc and with ours.

mod bundle;
mod docker;
mod engines;
mod floor;
mod host;
mod idle;
mod network;
mod report;
mod runtime;
mod stats;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::enclosure;

use crate::bundle::Bundle;
use crate::engines::Engines;
use crate::idle::Idle;
use crate::network::Extent;
use crate::report::Report;
use crate::runtime::{Runtime, Times};

/// Measures Cofferdam beside the other runtimes that are installed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often everything is measured.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// How often everything is measured that goes through engines.
    #[arg(long, default_value_t = 5)]
    engine_rounds: u32,
    /// How often networks are measured.
    #[arg(long, default_value_t = 3)]
    network_rounds: u32,
    /// How long an idle sandbox is watched.
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// Writes the page there; else it is printed.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// How long bytes are sent in one direction.
const SECONDS: u64 = 3;

/// How many round trips are timed.
const PINGS: u32 = 50;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Engines and networks are apart from the machine's own, and gone afterwards.
    if !enclosure::is_inside() {
        return match harness::Prefix::find() {
            Ok(_) => enclosure::enter(None),
            Err(reason) => {
                eprintln!("bench: {reason}");
                ExitCode::FAILURE
            }
        };
    }
    let done = run(&arguments);
    engines::remove_groups();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0, "nothing is measured in no rounds");
    let prefix = harness::Prefix::find().map_err(anyhow::Error::msg)?;
    let hybrid = host::hide_unified_cgroup().context("cannot hide the second cgroup hierarchy")?;
    // Whatever ends this, nothing stays there.
    enclosure::memory(host::MEMORY_FOLDER);
    let folder = tempfile::Builder::new()
        .prefix("cofferdam-bench-")
        .tempdir_in(host::MEMORY_FOLDER)
        .with_context(|| format!("cannot make a folder in {}", host::MEMORY_FOLDER))?;
    enclosure::prepare(&folder.path().join("covered"));
    let short = Bundle::make(&folder.path().join("true"), &["/bin/true"])?;
    let long = Bundle::make(&folder.path().join("sleep"), &["/bin/sleep", "3600"])?;
    let runtimes = Runtime::installed(&prefix.program(), folder.path())?;
    let ours = runtimes.first().context("there is no runtime")?;
    ours.call(&["template", "make"])
        .context("cannot make a template")?;
    let load_before = host::load();

    let mut floors = Vec::new();
    let mut times: Vec<Times> = runtimes.iter().map(|_| Times::default()).collect();
    // One round more, whose figures are dropped: it fills caches and runs the probe for KVM.
    for round in 0..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        let floor = floor::measure(prefix.path()).context("cannot boot the bare machine")?;
        if round > 0 {
            floors.push(floor);
        }
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let measured = runtime
                .round(&short, &long)
                .with_context(|| format!("{} failed", runtime.name()))?;
            if round > 0 {
                times.add(&measured);
            }
        }
    }
    let config = ours.config().context("ours has no configuration")?;
    let engines = Engines::start(folder.path(), prefix.path(), config)?;
    let through_engines = engines.measure(arguments.engine_rounds)?;
    let network = match network::missing() {
        Some(reason) => {
            eprintln!("NOT MEASURED: {reason}");
            Err(reason)
        }
        None => Ok(network(arguments, &runtimes, &prefix, folder.path())?),
    };
    let (idle, idle_pod) = idle(arguments, ours, &long, &engines)?;
    drop(engines);
    enclosure::end();
    let report = Report {
        rounds: arguments.rounds,
        floors,
        runtimes: runtimes
            .iter()
            .map(|runtime| runtime.description())
            .zip(times)
            .collect(),
        idle,
        idle_pod,
        engines: through_engines,
        network,
        hybrid,
        load: (load_before, host::load()),
    };
    let page = report.page();
    match &arguments.write {
        Some(path) => std::fs::write(path, page)
            .with_context(|| format!("cannot write {}", path.display()))?,
        None => print!("{page}"),
    }
    Ok(())
}

/// With ours and with runc, if it is there.
fn network(
    arguments: &Arguments,
    runtimes: &[Runtime],
    prefix: &harness::Prefix,
    folder: &Path,
) -> Result<Vec<network::Throughput>> {
    let compared: Vec<_> = runtimes
        .iter()
        .filter(|runtime| ["cofferdam", "runc"].contains(&runtime.name()))
        .collect();
    let extent = Extent {
        rounds: arguments.network_rounds,
        seconds: SECONDS,
        pings: PINGS,
    };
    network::measure(&compared, prefix.path(), folder, extent)
}

/// A sandbox of the command's and, where there is containerd, a pod of the shim's, watched at the same time.
fn idle(
    arguments: &Arguments,
    ours: &Runtime,
    bundle: &Bundle,
    engines: &Engines,
) -> Result<(Idle, Option<Idle>)> {
    eprintln!("watching what idles");
    let watch = Duration::from_secs(arguments.idle_seconds);
    let mut idle = ours.with_idle(bundle, |sandbox| {
        let both = engines.with_idle_pod(|pod| Idle::measure(&[sandbox.clone(), pod], watch))?;
        both.map_or_else(|| Idle::measure(&[sandbox], watch), Ok)
    })?;
    let pod = (idle.len() > 1).then(|| idle.remove(1));
    Ok((idle.remove(0), pod))
}
