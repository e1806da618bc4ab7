//! A program that does nothing but run a guest: no device, no confinement, nobody who tells it anything.
//!
//! What it costs is the floor of every monitor that boots this kernel as the Linux boot protocol says.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use vmm_machine::{Backing, Config, Guest, Machine};
use vmm_virtio::EventLoop;

/// Runs it, without an end.
pub fn run(kernel: &Path, image: &Path, memory_mib: u64, command_line: &str) -> Result<()> {
    let file = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
    let kvm =
        open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("open KVM")?;
    let config = Config {
        memory_bytes: memory_mib << 20,
        growth_bytes: 0,
        backing: Backing::Private,
        vcpus: 1,
        spare_places: 0,
    };
    let guest = Guest {
        kernel: file(kernel)?,
        image: Some(file(image)?),
    };
    let events = EventLoop::new().context("make an event loop")?;
    let mut machine = Machine::new(kvm, config, guest, &events)?;
    machine.boot(
        command_line.to_owned(),
        Arc::new(|| Ok(())),
        Box::new(|outcome| {
            eprintln!("monitors: the guest has ended: {outcome:?}");
            std::process::exit(1);
        }),
    )?;
    machine.resume();
    loop {
        std::thread::park();
    }
}
