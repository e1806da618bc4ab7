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

/// Everything that the command line depends on.
#[derive(Debug)]
pub struct Machine<'a> {
    pub name: &'a str,
    pub accelerator: Accelerator,
    pub clock: Clock,
    pub memory_mib: u64,
    pub vcpus: u32,
    pub parameters: &'a [String],
    pub kernel: RawFd,
    pub initrd: RawFd,
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

/// Whether this is one word on the kernel's command line.
pub fn is_parameter(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic())
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
    add("-kernel", format!("/proc/self/fd/{}", machine.kernel));
    add("-initrd", format!("/proc/self/fd/{}", machine.initrd));
    add("-append", kernel_command_line(machine));
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
    add("-device", "virtio-rng-device".to_owned());
    add("-chardev", format!("socket,id=link,fd={}", machine.link));
    add("-device", "virtio-serial-device,max_ports=2".to_owned());
    add(
        "-device",
        "virtserialport,chardev=link,name=cofferdam.link".to_owned(),
    );
    if let Some((tag, socket)) = machine.share {
        // The file server maps the guest's memory, so that must be a file.
        add(
            "-object",
            format!(
                "memory-backend-memfd,id=ram,size={}M,share=on",
                machine.memory_mib
            ),
        );
        add("-machine", "memory-backend=ram".to_owned());
        add("-chardev", format!("socket,id=share,fd={socket}"));
        add(
            "-device",
            format!(
                "vhost-user-fs-device,chardev=share,queue-size=1024,tag={}",
                escaped(tag)
            ),
        );
    }
    for (number, nic) in machine.nics.iter().enumerate() {
        add("-netdev", netdev(number, &nic.queues));
        let [a, b, c, d, e, f] = nic.mac;
        let queues = if nic.queues.len() > 1 { ",mq=on" } else { "" };
        add(
            "-device",
            format!(
                "virtio-net-device,netdev=net{number},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}{queues}"
            ),
        );
    }
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        list.push(flag.into());
    }
    list
}

/// The kernel's command line, without what QEMU adds.
fn kernel_command_line(machine: &Machine<'_>) -> String {
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
    if let Clock::Tsc { khz } = machine.clock {
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
            clock,
            memory_mib: 256,
            vcpus,
            parameters: &[],
            kernel: 10,
            initrd: 11,
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

    #[test]
    fn a_parameter_is_one_word() {
        assert!(is_parameter("cofferdam.probe"));
        for bad in ["", "a b", "a\n", "a\0", "ä"] {
            assert!(!is_parameter(bad), "{bad:?}");
        }
    }
}
