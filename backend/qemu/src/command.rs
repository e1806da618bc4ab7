//! QEMU's command line.

use std::ffi::OsString;
use std::os::fd::RawFd;

use backend_api::Accelerator;

/// The guest's source of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The hypervisor's own.
    Paravirtual,
    /// The host's time stamp counter, whose rate the guest is told.
    Tsc {
        /// Its rate.
        khz: u64,
    },
}

/// Transports for virtio devices that the machine type has: where they are and their interrupts.
const TRANSPORTS: std::ops::Range<u32> = 0..8;
const TRANSPORT_BASE: u32 = 0xfeb0_0000;
const TRANSPORT_SIZE: u32 = 0x200;
const TRANSPORT_INTERRUPT: u32 = 5;

/// Transports of the devices that every machine has. A copy finds them where its template had them.
const RANDOM_TRANSPORT: u32 = 0;
const LINK_TRANSPORT: u32 = 1;

/// The transport of a copy's share, and that of its [`PLUG`].
pub const SHARE_TRANSPORT: u32 = 2;
pub const PLUG_TRANSPORT: u32 = 7;

/// Those of a copy's network cards. The one that has the real-time clock's interrupt comes last.
pub const NIC_TRANSPORTS: [u32; 4] = [4, 5, 6, 3];

/// A device of a copy that is gone before the guest runs, see [`crate::template`].
pub const PLUG: &str = "plug";

/// The most requests that wait in the share's queue.
pub const SHARE_QUEUE: u32 = 1024;

/// What is booted.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    pub kernel: RawFd,
    pub initrd: RawFd,
    pub clock: Clock,
}

/// What the machine begins with.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// An empty memory of its own.
    Boot(Boot),
    /// The same, but its memory is this file, and its kernel is told of all transports, so that copies may have devices
    /// in those that are empty.
    Template(Boot, RawFd),
    /// A file that holds a template's memory; the state of its devices will come.
    Copy(RawFd),
}

/// Everything that the command line depends on.
#[derive(Debug)]
pub struct Machine<'a> {
    pub name: &'a str,
    pub accelerator: Accelerator,
    pub memory_mib: u64,
    pub vcpus: u32,
    pub parameters: &'a [String],
    pub start: Start,
    pub link: RawFd,
    pub console: RawFd,
    pub monitor: RawFd,
    pub share: Option<(&'a str, RawFd)>,
    pub nics: &'a [NicPlug],
}

/// A network card: its Ethernet address and the queues of its tap.
#[derive(Debug)]
pub struct NicPlug {
    pub mac: [u8; 6],
    pub queues: Vec<RawFd>,
}

/// QEMU's arguments.
pub fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let mut list = Vec::new();
    let mut add = |option: &str, value: String| {
        list.push(OsString::from(option));
        list.push(OsString::from(value));
    };
    let (accelerator, cpu) = match machine.accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Emulation => ("tcg", "max"),
    };
    add("-name", escaped(machine.name));
    // acpi=off: QEMU describes virtio devices on the kernel's command line only then. The RTC saves the guest a second
    // of calibration.
    add(
        "-machine",
        "microvm,acpi=off,x-option-roms=off,rtc=on,auto-kernel-cmdline=on".to_owned(),
    );
    add("-accel", accelerator.to_owned());
    add("-cpu", cpu.to_owned());
    add("-smp", machine.vcpus.to_string());
    add("-m", format!("{}M", machine.memory_mib));
    add("-display", "none".to_owned());
    add("-global", "virtio-mmio.force-legacy=off".to_owned());
    // No new processes, identities, priorities or obsolete system calls for a QEMU that a guest took over.
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned(),
    );
    let memory = match machine.start {
        Start::Boot(boot) => {
            add_boot(&mut add, machine, boot, false);
            None
        }
        Start::Template(boot, memory) => {
            add_boot(&mut add, machine, boot, true);
            Some(memory)
        }
        Start::Copy(memory) => {
            // Deferred: the monitor is told first how to read it.
            add("-incoming", "defer".to_owned());
            add(
                "-device",
                format!(
                    "virtio-scsi-device,id={PLUG},hotplug=off,bus=virtio-mmio-bus.{PLUG_TRANSPORT}"
                ),
            );
            Some(memory)
        }
    };
    add(
        "-chardev",
        format!("socket,id=console,fd={}", machine.console),
    );
    add("-serial", "chardev:console".to_owned());
    add(
        "-chardev",
        format!("socket,id=monitor,fd={}", machine.monitor),
    );
    add("-mon", "chardev=monitor,mode=control".to_owned());
    add(
        "-device",
        format!("virtio-rng-device,bus=virtio-mmio-bus.{RANDOM_TRANSPORT}"),
    );
    add("-chardev", format!("socket,id=link,fd={}", machine.link));
    add(
        "-device",
        format!("virtio-serial-device,max_ports=2,bus=virtio-mmio-bus.{LINK_TRANSPORT}"),
    );
    // With an id, QEMU tells when the guest opens the port.
    add(
        "-device",
        "virtserialport,id=link,chardev=link,name=cofferdam.link".to_owned(),
    );
    let size = machine.memory_mib;
    let memory = match (memory, machine.share) {
        (Some(file), _) => Some(format!("file,mem-path=/proc/self/fd/{file}")),
        // The file server maps the guest's memory, so that must be a file.
        (None, Some(_)) => Some("memfd".to_owned()),
        (None, None) => None,
    };
    if let Some(memory) = memory {
        add(
            "-object",
            format!("memory-backend-{memory},id=ram,size={size}M,share=on"),
        );
        add("-machine", "memory-backend=ram".to_owned());
    }
    if let Some((tag, socket)) = machine.share {
        add("-chardev", format!("socket,id=share,fd={socket}"));
        if !matches!(machine.start, Start::Copy(_)) {
            add(
                "-device",
                format!(
                    "vhost-user-fs-device,chardev=share,queue-size={SHARE_QUEUE},tag={}",
                    escaped(tag)
                ),
            );
        }
    }
    for (number, nic) in machine.nics.iter().enumerate() {
        add("-netdev", netdev(number, &nic.queues));
        let [a, b, c, d, e, f] = nic.mac;
        let queues = if nic.queues.len() > 1 { ",mq=on" } else { "" };
        let bus = match (machine.start, NIC_TRANSPORTS.get(number)) {
            (Start::Copy(_), Some(transport)) => format!(",bus=virtio-mmio-bus.{transport}"),
            _ => String::new(),
        };
        add(
            "-device",
            format!(
                "virtio-net-device,netdev=net{number},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}{queues}{bus}"
            ),
        );
    }
    if matches!(machine.start, Start::Copy(_)) {
        // Its virtual CPUs stand still until all is there.
        list.push("-S".into());
    }
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        list.push(flag.into());
    }
    list
}

fn add_boot(
    add: &mut impl FnMut(&str, String),
    machine: &Machine<'_>,
    boot: Boot,
    all_transports: bool,
) {
    add("-kernel", format!("/proc/self/fd/{}", boot.kernel));
    add("-initrd", format!("/proc/self/fd/{}", boot.initrd));
    let mut line = kernel_command_line(machine, boot.clock);
    if all_transports {
        // QEMU itself names those that have a device.
        for number in
            TRANSPORTS.filter(|&number| number != RANDOM_TRANSPORT && number != LINK_TRANSPORT)
        {
            let address = TRANSPORT_BASE + number * TRANSPORT_SIZE;
            let interrupt = TRANSPORT_INTERRUPT + number;
            line.push_str(&format!(
                " virtio_mmio.device={TRANSPORT_SIZE}@{address:#x}:{interrupt}"
            ));
        }
    }
    add("-append", line);
}

/// The kernel's command line, without what QEMU adds.
fn kernel_command_line(machine: &Machine<'_>, clock: Clock) -> String {
    let mut words: Vec<String> = [
        "console=ttyS0",
        "quiet",
        "8250.nr_uarts=1",
        // A guest that panics resets at once, and -no-reboot makes a reset QEMU's end.
        "panic=-1",
        "reboot=t",
    ]
    .map(str::to_owned)
    .into();
    if let Clock::Tsc { khz } = clock {
        words.extend([
            format!("tsc_early_khz={khz}"),
            "tsc=reliable".to_owned(),
            "no_timer_check".to_owned(),
        ]);
        if machine.vcpus == 1 {
            // Saves calibrating a second timer, and patching locks that one CPU does not need.
            words.extend(["nolapic_timer", "noreplace-smp"].map(str::to_owned));
        }
    }
    if machine.accelerator == Accelerator::Emulation {
        // TCG of QEMU 7.2 works out the flags behind cmpxchg16b from what the translator has not written back yet. An
        // interrupt just then saves a flags register with bits of an address in it, and returning from it crashes the
        // guest: some boots in a hundred. Without the instruction the kernel's allocator has another way; programs still
        // see and have it.
        words.push("clearcpuid=cx16".to_owned());
    }
    words.extend_from_slice(machine.parameters);
    words.join(" ")
}

/// A tap that is open already; it says by itself that its frames carry virtio-net headers.
fn netdev(number: usize, queues: &[RawFd]) -> String {
    let numbers: Vec<_> = queues.iter().map(RawFd::to_string).collect();
    let option = if numbers.len() > 1 { "fds" } else { "fd" };
    format!("tap,id=net{number},{option}={}", numbers.join(":"))
}

/// A value in an option that QEMU splits at commas.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(accelerator: Accelerator, clock: Clock, vcpus: u32) -> Machine<'static> {
        Machine {
            name: "a,b",
            accelerator,
            memory_mib: 256,
            vcpus,
            parameters: &[],
            start: Start::Boot(Boot {
                kernel: 10,
                initrd: 11,
                clock,
            }),
            link: 12,
            console: 13,
            monitor: 14,
            share: Some(("cofferdam", 15)),
            nics: &[],
        }
    }

    fn text(machine: &Machine<'_>) -> String {
        let words: Vec<_> = arguments(machine)
            .into_iter()
            .map(|word| word.into_string().expect("text"))
            .collect();
        words.join(" ")
    }

    #[test]
    fn one_emulated_cpu_gets_the_quick_settings_and_several_do_not() {
        let clock = Clock::Tsc { khz: 2_600_000 };
        let one = text(&machine(Accelerator::Emulation, clock, 1));
        assert!(
            one.contains("tsc_early_khz=2600000") && one.contains("nolapic_timer"),
            "{one}"
        );
        assert!(one.contains("clearcpuid=cx16"), "{one}");
        let two = text(&machine(Accelerator::Emulation, clock, 2));
        assert!(
            two.contains("tsc_early_khz=2600000") && !two.contains("nolapic_timer"),
            "{two}"
        );
        let kvm = text(&machine(Accelerator::Kvm, Clock::Paravirtual, 1));
        assert!(
            !kvm.contains("tsc") && !kvm.contains("nolapic_timer") && !kvm.contains("clearcpuid"),
            "{kvm}"
        );
        assert!(kvm.contains("-accel kvm -cpu host"), "{kvm}");
    }

    #[test]
    fn a_copy_has_the_devices_of_its_template_where_they_were() {
        let clock = Clock::Tsc { khz: 2_600_000 };
        let mut machine = machine(Accelerator::Emulation, clock, 1);
        let Start::Boot(boot) = machine.start else {
            panic!("boots")
        };
        let share = machine.share.take();
        machine.start = Start::Template(boot, 20);
        let template = text(&machine);
        // All transports but two, which QEMU itself names.
        assert_eq!(template.matches("virtio_mmio.device=").count(), 6);
        assert!(
            template.contains(" virtio_mmio.device=512@0xfeb00400:7 "),
            "{template}"
        );
        machine.start = Start::Copy(20);
        machine.share = share;
        let copy = text(&machine);
        assert!(
            copy.contains("-incoming defer") && !copy.contains(" -kernel "),
            "{copy}"
        );
        for same in [
            "virtio-rng-device,bus=virtio-mmio-bus.0",
            "virtio-serial-device,max_ports=2,bus=virtio-mmio-bus.1",
            "memory-backend-file,mem-path=/proc/self/fd/20,id=ram,size=256M,share=on",
        ] {
            assert!(template.contains(same) && copy.contains(same), "{same}");
        }
        assert!(copy.contains("id=share") && copy.contains(" -S "), "{copy}");
        assert!(!template.contains("share,fd") && !copy.contains("vhost-user"));
    }

    #[test]
    fn names_can_not_add_options() {
        let line = text(&machine(Accelerator::Kvm, Clock::Paravirtual, 1));
        assert!(line.contains("-name a,,b "), "{line}");
    }

    #[test]
    fn cards_have_a_queue_or_several() {
        let nics = [
            NicPlug {
                mac: [2, 0, 0, 0, 0, 0xa],
                queues: vec![20],
            },
            NicPlug {
                mac: [2, 0, 0, 0, 0, 0xb],
                queues: vec![21, 22],
            },
        ];
        let line = text(&Machine {
            nics: &nics,
            ..machine(Accelerator::Kvm, Clock::Paravirtual, 2)
        });
        assert!(
            line.contains("-netdev tap,id=net0,fd=20 -device virtio-net-device,netdev=net0,mac=02:00:00:00:00:0a "),
            "{line}"
        );
        assert!(
            line.contains("-netdev tap,id=net1,fds=21:22 -device virtio-net-device,netdev=net1,mac=02:00:00:00:00:0b,mq=on "),
            "{line}"
        );
    }
}
