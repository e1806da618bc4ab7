//! The virtual machine monitor of one sandbox: `cofferdam-vmm CONTROL`.
//!
//! Started by `backend-kvm` only, confined: the descriptor whose number is its argument is its control socket
//! (`vmm-control`), by which everything else comes. It opens nothing by name, and gives up the right to (`vmm-jail`) before
//! it reads the first request. Its threads, each with a list of system calls of its own:
//!
//! - the first answers the driver, and ends the process when the driver hangs up;
//! - `devices` serves all devices;
//! - `disk` reads and writes the file of a disk, as far as no `io_uring` does that;
//! - `vcpuN` runs a virtual CPU.
//!
//! It exits with 0 when the guest has reset itself, which is how a guest ends, and with 1 when the guest cannot go on; it
//! says why on standard error.

mod clock;
mod counters;
mod devices;
mod growth;
mod log;
mod sandbox;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, bail};
use vmm_control::{Reply, Request};

use crate::sandbox::Sandbox;

fn main() {
    log::install();
    let mut machine = None;
    let code = match run(&mut machine) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    // The machine is not taken down in order: the kernel does that at once, and nobody in here may do it any more.
    std::process::exit(code);
}

fn run(machine: &mut Option<Sandbox>) -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let number = arguments
        .next()
        .and_then(|word| word.to_str()?.parse::<RawFd>().ok())
        .filter(|&number| number > 2)
        .context(
            "usage: cofferdam-vmm CONTROL, the number of a descriptor: started by cofferdam only",
        )?;
    let control = take(number)?;
    let jail = vmm_jail::enter()?;
    let ready = clock::now();
    loop {
        let received = vmm_control::receive::<Request>(&control);
        let Some(mut received) = received.context("the driver's request")? else {
            // The driver is gone, and no machine outlives it.
            return Ok(());
        };
        let request = std::mem::replace(&mut received.message, Request::Stop);
        let answer = match (request, &mut *machine) {
            (Request::Create(wanted), place @ None) => {
                Sandbox::create(*wanted, received, jail.clone(), ready).map(|made| {
                    *place = Some(made);
                    Reply::Done
                })
            }
            (Request::Create(_), Some(_)) => bail!("a second machine was asked for"),
            (Request::Stop, _) => return Ok(()),
            (_, None) => bail!("there is no machine yet"),
            (Request::Boot, Some(machine)) => machine.boot().map(Reply::Booted),
            (Request::Pause, Some(machine)) => {
                machine.pause();
                Ok(Reply::Done)
            }
            (Request::Resume, Some(machine)) => {
                machine.resume();
                Ok(Reply::Done)
            }
            (Request::Resize { memory_bytes }, Some(machine)) => {
                machine.resize(memory_bytes).map(|()| Reply::Done)
            }
            (Request::Plug(device), Some(machine)) => {
                machine.plug(device, received).map(Reply::Plugged)
            }
            (Request::Unplug { place }, Some(machine)) => {
                machine.unplug(place).map(|()| Reply::Done)
            }
            (Request::Stats, Some(machine)) => Ok(Reply::Stats(Box::new(machine.stats()))),
        };
        let reply = answer.unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
        vmm_control::send(&control, &reply, &[]).context("answer the driver")?;
        if let (Reply::Booted(_), Some(machine)) = (&reply, &*machine) {
            // Not earlier: a guest may end at once, and this process with it.
            machine.resume();
        }
    }
}

/// The control socket, which the driver has left open under this number.
#[expect(unsafe_code, reason = "a descriptor by its number")]
fn take(number: RawFd) -> anyhow::Result<OwnedFd> {
    // SAFETY: this is the first thing that the process does with descriptors but 0 to 2: nobody else has it, and if it is
    // not open the first use says so.
    let control = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC)
        .with_context(|| format!("descriptor {number} is not open"))?;
    Ok(control)
}
