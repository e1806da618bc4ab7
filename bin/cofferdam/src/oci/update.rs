//! `update`: changes a container's limits.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use sandbox::control::Request;

use crate::cli::UpdateArgs;
use crate::context::Context;

/// No resources object is larger.
const LIMIT: u64 = 1 << 20;

/// Runs the command.
pub fn run(context: &Context, args: &UpdateArgs) -> Result<ExitCode> {
    for (flag, is_set) in [
        ("--l3-cache-schema", args.l3_cache_schema.is_some()),
        ("--mem-bw-schema", args.mem_bw_schema.is_some()),
    ] {
        if is_set {
            bail!("unsupported: {flag}: cache classes belong to the host's kernel");
        }
    }
    let resources = match &args.resources {
        Some(path) => read(path)?,
        None => of_options(args),
    };
    if resources == LinuxResources::default() {
        bail!("nothing to update: name a limit, or a file with --resources");
    }
    context.find(&args.id)?.request(
        "updating the container",
        &Request::Update {
            resources: Box::new(resources),
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<LinuxResources> {
    let mut text = String::new();
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(
            std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?,
        )
    };
    source
        .take(LIMIT)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a resources object", path.display()))
}

fn of_options(args: &UpdateArgs) -> LinuxResources {
    let mut resources = LinuxResources::default();
    if args.memory.is_some() || args.memory_reservation.is_some() || args.memory_swap.is_some() {
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(args.memory)
            .set_reservation(args.memory_reservation)
            .set_swap(args.memory_swap);
        resources.set_memory(Some(memory));
    }
    if args.cpu_period.is_some()
        || args.cpu_quota.is_some()
        || args.cpu_share.is_some()
        || args.cpu_rt_period.is_some()
        || args.cpu_rt_runtime.is_some()
        || args.cpuset_cpus.is_some()
        || args.cpuset_mems.is_some()
    {
        let mut cpu = LinuxCpu::default();
        cpu.set_period(args.cpu_period)
            .set_quota(args.cpu_quota)
            .set_shares(args.cpu_share)
            .set_realtime_period(args.cpu_rt_period)
            .set_realtime_runtime(args.cpu_rt_runtime)
            .set_cpus(args.cpuset_cpus.clone())
            .set_mems(args.cpuset_mems.clone());
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = args.blkio_weight {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(weight));
        resources.set_block_io(Some(io));
    }
    resources
}
