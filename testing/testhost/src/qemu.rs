//! QEMU's command line.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

/// The rate of the time stamp counter with `-icount`: it counts the nanoseconds of the machine's own time.
const COUNTED_KHZ: u64 = 1_000_000;

/// What the command line depends on.
#[derive(Debug)]
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub memory_mib: u64,
    /// The rate of this machine's time stamp counter, which the test host reads too.
    pub tsc_khz: u64,
    /// Whether time is the number of instructions.
    pub counted: bool,
    /// Bytes of settings and job.
    pub sizes: (usize, usize),
    pub console: RawFd,
    pub status: RawFd,
    pub stdout: RawFd,
    pub stderr: RawFd,
    pub terminal: Option<RawFd>,
    pub root: RawFd,
    pub results: RawFd,
}

/// QEMU's arguments.
pub fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let mut list = Vec::new();
    let mut add = |option: &str, value: OsString| {
        list.push(OsString::from(option));
        list.push(value);
    };
    add("-name", "testhost".into());
    add("-machine", "microvm,rtc=on,memory-backend=ram".into());
    add("-accel", "tcg".into());
    if machine.counted {
        // TCG of QEMU 7.2 leaves the vector of an interrupt that VMRUN has given to a nested guest where it looks for an
        // exception. If the processor has to stop before anything else happens, which counting does at each timer, the
        // guest gets the interrupt once more, even where it takes none. One that holds the lock of that interrupt's line
        // spins for ever (docs/vmm.md, "What devices cost").
        add("-icount", "shift=0".into());
    }
    // TCG of QEMU 7.2 works out the flags behind cmpxchg16b wrongly when an interrupt comes just then: without it, no
    // kernel uses it, neither this nor a guest's.
    add("-cpu", "max,+svm,-cx16".into());
    // More is slower, and hangs some boots.
    add("-smp", "1".into());
    let size = format!("{}M", machine.memory_mib);
    add("-m", size.clone().into());
    add(
        "-object",
        format!("memory-backend-memfd,id=ram,size={size},share=on").into(),
    );
    add("-display", "none".into());
    add("-global", "virtio-mmio.force-legacy=off".into());
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    add("-kernel", machine.kernel.into());
    add("-initrd", machine.initramfs.into());
    let khz = if machine.counted {
        COUNTED_KHZ
    } else {
        machine.tsc_khz
    };
    let (settings, job) = machine.sizes;
    add(
        "-append",
        // A guest that panics resets at once, and -no-reboot makes a reset QEMU's end.
        format!(
            "console=ttyS0 loglevel=4 panic=-1 reboot=t mitigations=off tsc_early_khz={khz} tsc=reliable no_timer_check \
             noreplace-smp testhost.settings={settings} testhost.job={job}"
        )
        .into(),
    );
    let chardev = |id: &str, fd: RawFd| OsString::from(format!("socket,id={id},fd={fd}"));
    add("-chardev", chardev("console", machine.console));
    add("-serial", "chardev:console".into());
    add("-device", "virtio-rng-device".into());
    add("-device", "virtio-serial-device,max_ports=4".into());
    if let Some(terminal) = machine.terminal {
        add("-chardev", chardev("terminal", terminal));
        add("-device", "virtconsole,nr=0,chardev=terminal".into());
    }
    for (number, id, fd) in [
        (1, "status", machine.status),
        (2, "stdout", machine.stdout),
        (3, "stderr", machine.stderr),
    ] {
        add("-chardev", chardev(id, fd));
        add(
            "-device",
            format!("virtserialport,nr={number},chardev={id},name={id}").into(),
        );
    }
    for (tag, fd) in [("root", machine.root), ("results", machine.results)] {
        add("-chardev", chardev(tag, fd));
        add(
            "-device",
            format!("vhost-user-fs-device,chardev={tag},queue-size=1024,tag={tag}").into(),
        );
    }
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        list.push(flag.into());
    }
    list
}
