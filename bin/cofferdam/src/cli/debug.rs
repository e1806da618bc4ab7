//! The words of those who look for lost milliseconds.

use clap::{Args, Subcommand};

/// What `debug boot-time` prints.
const BOOT_TIME_HELP: &str = "\
A machine is booted as a container's is, with a file share that shows nothing, without a container, a network and a \
template. The parts: `prepare` (the file server starts, files are opened), `process` (the VMM's process starts and is \
confined), `kvm` (the machine is made), `devices` (it gets them), `load` (what is left of loading kernel and image, which \
begins beside `kvm`), `kernel` (the processors run, until PID 1 is entered), `agent` (until its first answer is here). QEMU \
does not tell what it does: `vmm` is all until its machine runs. Between `kernel` and `agent` the guest's clock is \
believed, within what the host has seen; of several rounds the table shows the one in the middle.";

#[derive(Debug, Args)]
pub struct DebugArgs {
    #[command(subcommand)]
    pub command: DebugCommand,
}

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Boot a machine and say where the time goes.
    BootTime(BootTimeArgs),
    /// Print what the processors and devices of a container's machine have done.
    Counters(CountersArgs),
}

/// What `debug counters` prints.
const COUNTERS_HELP: &str = "\
One line for each number that is not 0, since the machine was made: `exits` of processors to the VMM by reason, then \
`DEVICE.PLACE.NAME`. What the host's kernel (vhost-net) or the file server do for a device is not seen by the VMM: their \
numbers are not there. Only our own monitor counts, QEMU does not. Containers of a pod share a machine.";

#[derive(Debug, Args)]
#[command(after_long_help = COUNTERS_HELP)]
pub struct CountersArgs {
    /// The container.
    pub id: String,
    /// As JSON, zeros included.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_long_help = BOOT_TIME_HELP)]
pub struct BootTimeArgs {
    /// Memory limit of the container that it would be for, in bytes or with b, k, m or g.
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<String>,
    /// CPU limit of that container, e.g. 1.5.
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// How often to boot, one machine after the other.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// As JSON, with every round.
    #[arg(long)]
    pub json: bool,
}
