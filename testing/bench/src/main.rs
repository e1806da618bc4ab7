//! Whole-command timings and memory, as ratios of one run.
//!
//! Machines differ and are busy, so a figure alone says little: everything is measured in interleaved rounds of one run,
//! and what counts are the ratios to the *floor*: the time that an emulator without any of our host programs needs to
//! bring up the same guest until its agent answers.

mod bundle;
mod floor;
mod host;
mod idle;
mod report;
mod runtime;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::bundle::Bundle;
use crate::idle::Idle;
use crate::report::Report;
use crate::runtime::{Runtime, Times};

/// Measures Cofferdam beside the other runtimes that are installed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often everything is measured.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// How long an idle sandbox is watched.
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// Writes the page there; else it is printed.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
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
    let folder = tempfile::Builder::new()
        .prefix("cofferdam-bench-")
        .tempdir_in(host::MEMORY_FOLDER)
        .with_context(|| format!("cannot make a folder in {}", host::MEMORY_FOLDER))?;
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
    eprintln!("watching an idle sandbox");
    let idle = Idle::measure(ours, &long, Duration::from_secs(arguments.idle_seconds))?;
    let report = Report {
        rounds: arguments.rounds,
        floors,
        runtimes: runtimes
            .iter()
            .map(|runtime| runtime.description())
            .zip(times)
            .collect(),
        idle,
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
