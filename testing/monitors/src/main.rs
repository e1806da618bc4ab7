//! Boots one guest on several virtual machine monitors, and writes a table of what that costs.
//!
//! Run by `cargo xtask monitors`, in a test host where time is the number of instructions: the figures depend on no
//! other load. Each monitor boots our kernel with 1 processor and a first program that does nothing but make itself seen;
//! ours then boots our guest image until its agent calls. What devices cost is a table of its own (`io`).

mod archive;
mod bare;
mod files;
mod guest;
mod io;
mod memory;
mod monitors;
mod sandbox;
mod trace;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::files::Files;
use crate::monitors::{Guest, Monitor, Running};
use crate::sandbox::Sandbox;
use crate::trace::Trace;

/// Compares virtual machine monitors.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Measures, and prints the table.
    Compare(Compare),
    /// Measures devices, and prints the table.
    Io(io::Options),
    /// Is the bare KVM program.
    #[command(hide = true)]
    Bare(Bare),
}

#[derive(Args)]
struct Compare {
    /// What `cargo xtask build` made.
    #[arg(long)]
    prefix: PathBuf,
    /// Guest memory, in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// A Firecracker program, to be measured, too.
    #[arg(long)]
    firecracker: Option<PathBuf>,
    /// A Cloud Hypervisor program, to be measured, too.
    #[arg(long)]
    cloud_hypervisor: Option<PathBuf>,
}

#[derive(Args)]
struct Bare {
    #[arg(long)]
    kernel: PathBuf,
    #[arg(long)]
    image: PathBuf,
    #[arg(long)]
    memory: u64,
    #[arg(long)]
    line: String,
}

/// What a boot cost.
struct Cost {
    name: String,
    time: Duration,
    exits: BTreeMap<String, u64>,
    memory_kib: u64,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        What::Bare(bare) => bare::run(&bare.kernel, &bare.image, bare.memory, &bare.line),
        What::Io(options) => io::run(&options),
        What::Compare(wanted) => {
            // Before there are other threads: taps are made.
            io::wire::alone()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("start a runtime")?;
            print!("{}", table(&runtime.block_on(compare(&wanted))?));
            Ok(())
        }
    }
}

async fn compare(wanted: &Compare) -> Result<Vec<Cost>> {
    let files = Files::new()?;
    let kernel = files.copy(&wanted.prefix.join("lib/cofferdam/vmlinux"))?;
    let agent = files.copy(&wanted.prefix.join("lib/cofferdam/initramfs.cpio"))?;
    let guest = Guest {
        kernel: kernel.clone(),
        image: files.add("init.cpio", &guest::image())?,
        memory_mib: wanted.memory,
    };
    let own = wanted.prefix.join("libexec/cofferdam/cofferdam-vmm");
    let monitors = Monitor::all(
        &files,
        &own,
        wanted.firecracker.as_deref(),
        wanted.cloud_hypervisor.as_deref(),
    )?;
    let mut trace = Trace::start()?;
    let mut costs = Vec::new();
    for monitor in &monitors {
        let begin = trace.begin()?;
        let running = monitor.start(&files, &guest).await?;
        let end = trace
            .init()
            .with_context(|| format!("boot on {}", monitor.name()))?;
        let name = format!("{}: first program", monitor.name());
        costs.push(cost(name, end - begin, &trace, &running, wanted.memory)?);
    }
    let ours = Guest {
        image: agent,
        ..guest
    };
    let server = files.copy(&wanted.prefix.join("libexec/cofferdam/cofferdam-fs"))?;
    for monitor in &monitors {
        if let Monitor::Own(program) = monitor {
            let begin = trace.begin()?;
            let running = monitors::until_agent(program, &ours).await?;
            let end = trace.mark("agent")?;
            let name = format!("{}: agent", monitor.name());
            costs.push(cost(name, end - begin, &trace, &running, wanted.memory)?);
            drop(running);
            let sandbox = Sandbox::prepare(program, &server, 1).await?;
            let begin = trace.begin()?;
            let (running, _server) = sandbox.until_agent(&ours).await?;
            let end = trace.mark("agent of a sandbox")?;
            let name = "cofferdam-vmm, with file share and network card, too: agent".to_owned();
            costs.push(cost(name, end - begin, &trace, &running, wanted.memory)?);
        }
    }
    Ok(costs)
}

fn cost(
    name: String,
    time: Duration,
    trace: &Trace,
    running: &Running,
    memory: u64,
) -> Result<Cost> {
    let pid = running.pid().context("the monitor has ended")?;
    Ok(Cost {
        name,
        time,
        exits: trace.end()?,
        memory_kib: memory::without_guest(pid, memory)?,
    })
}

/// As Markdown.
fn table(costs: &[Cost]) -> String {
    let mut text = String::from(
        "| monitor, until | ms, with `--icount` million instructions | exits | memory without the guest's, MiB | exits by reason |\n\
         |---|---|---|---|---|\n",
    );
    for cost in costs {
        let mut reasons: Vec<_> = cost.exits.iter().collect();
        reasons.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {:.1} | {} |",
            cost.name,
            cost.time.as_secs_f64() * 1000.0,
            cost.exits.values().sum::<u64>(),
            cost.memory_kib as f64 / 1024.0,
            reasons.join(", "),
        );
    }
    text
}
