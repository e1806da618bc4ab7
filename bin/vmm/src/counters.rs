//! What the devices count.

use vmm_control::{Counters, DeviceStats, Direction, Exits, Signals, Stats};
use vmm_machine::{Machine, Slot};

/// Where a device counts.
pub enum Source {
    Console(vmm_console::Statistics),
    Random(vmm_rng::Statistics),
    Sockets(vmm_vsock::Stats),
    Balloon(vmm_balloon::Handle),
    Memory(vmm_mem::Handle),
    /// A card whose packets pass through this process.
    Network(vmm_net::Statistics),
    /// A card whose packets the kernel passes.
    KernelNetwork,
    Share(vmm_fs::Handle),
    Disk(vmm_blk::Statistics),
    Image(vmm_pmem::Statistics),
}

/// All devices of a machine that count.
#[derive(Default)]
pub struct Sources(Vec<(Slot, Source)>);

impl Sources {
    /// One more.
    pub fn add(&mut self, slot: Slot, source: Source) {
        self.0.push((slot, source));
    }

    /// The one in this place is gone.
    pub fn remove(&mut self, slot: Slot) {
        self.0.retain(|(place, _)| *place != slot);
    }

    /// What was counted until now.
    pub fn read(&self, machine: &Machine) -> Stats {
        let exits = machine.exits();
        let devices = self.0.iter().map(|(slot, source)| DeviceStats {
            slot: slot.number(),
            breaks: machine.breaks(*slot),
            signals: source.is_served_here().then(|| {
                let signals = machine.signals(*slot);
                Signals {
                    kicks: signals.kicks,
                    interrupts: signals.interrupts,
                }
            }),
            counters: source.read(),
        });
        Stats {
            exits: Exits {
                mmio_reads: exits.mmio_reads,
                mmio_writes: exits.mmio_writes,
                port_reads: exits.port_reads,
                port_writes: exits.port_writes,
                others: exits.others,
            },
            devices: devices.collect(),
        }
    }
}

impl Source {
    fn is_served_here(&self) -> bool {
        !matches!(self, Self::KernelNetwork | Self::Share(_))
    }

    fn read(&self) -> Counters {
        match self {
            Self::Console(console) => {
                let counts = console.read();
                Counters::Console {
                    printed_bytes: counts.printed,
                    lost_bytes: counts.lost,
                }
            }
            Self::Random(random) => {
                let counts = random.read();
                Counters::Random {
                    requests: counts.requests,
                    bytes: counts.bytes,
                }
            }
            Self::Sockets(sockets) => Counters::Sockets {
                received: Direction {
                    packets: sockets.to_guest_packets(),
                    bytes: sockets.to_guest_bytes(),
                    ..Direction::default()
                },
                transmitted: Direction {
                    packets: sockets.from_guest_packets(),
                    bytes: sockets.from_guest_bytes(),
                    errors: sockets.violations(),
                    ..Direction::default()
                },
                opened: sockets.opened(),
                refused: sockets.refused(),
            },
            Self::Balloon(balloon) => {
                let counts = balloon.counts();
                Counters::Balloon {
                    inflated_bytes: counts.inflated,
                    deflated_bytes: counts.deflated,
                    reported_bytes: counts.reported,
                    failed_bytes: counts.failed,
                }
            }
            Self::Memory(memory) => {
                let counts = memory.counts();
                Counters::Memory {
                    requested_bytes: memory.requested(),
                    plugged_bytes: memory.plugged(),
                    requests: counts.done,
                    errors: counts.refused + counts.busy + counts.wrong,
                }
            }
            Self::Network(card) => {
                let traffic = card.read();
                let ways = (direction(traffic.received), direction(traffic.transmitted));
                Counters::Network { passed: Some(ways) }
            }
            Self::KernelNetwork => Counters::Network { passed: None },
            Self::Share(share) => Counters::Share {
                starts: share.starts(),
                gone: matches!(share.server(), vmm_fs::Server::Gone(_)),
            },
            Self::Disk(disk) => {
                let counts = disk.read();
                Counters::Disk {
                    reads: counts.reads,
                    read_bytes: counts.read_bytes,
                    writes: counts.writes,
                    written_bytes: counts.written_bytes,
                    flushes: counts.flushes,
                    discards: counts.discards,
                    zeroes: counts.zeroes,
                    errors: counts.errors,
                }
            }
            Self::Image(image) => {
                let counts = image.read();
                Counters::Image {
                    flushes: counts.flushes,
                    errors: counts.errors,
                }
            }
        }
    }
}

fn direction(counts: vmm_net::Counts) -> Direction {
    Direction {
        packets: counts.packets,
        bytes: counts.bytes,
        dropped: counts.dropped,
        errors: counts.errors,
    }
}
