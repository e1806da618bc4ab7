//! What the VMM counts, by the names that people see.

use backend_api::{DeviceCounters, MachineCounters, Numbers};
use vmm_control::{Counters, DeviceStats, Direction, Exits, Stats};

/// The same numbers.
pub fn named(stats: Stats) -> MachineCounters {
    let Exits {
        mmio_reads,
        mmio_writes,
        port_reads,
        port_writes,
        others,
    } = stats.exits;
    MachineCounters {
        exits: Numbers::from([
            ("mmio_reads", mmio_reads),
            ("mmio_writes", mmio_writes),
            ("port_reads", port_reads),
            ("port_writes", port_writes),
            ("others", others),
        ]),
        devices: stats.devices.into_iter().map(device).collect(),
    }
}

fn device(device: DeviceStats) -> DeviceCounters {
    let (kind, mut numbers) = counted(device.counters);
    numbers.insert("breaks", device.breaks.into());
    if let Some(signals) = device.signals {
        numbers.insert("kicks", signals.kicks);
        numbers.insert("interrupts", signals.interrupts);
    }
    DeviceCounters {
        kind,
        place: device.slot,
        numbers,
    }
}

fn counted(counters: Counters) -> (&'static str, Numbers) {
    match counters {
        Counters::Console {
            printed_bytes,
            lost_bytes,
        } => (
            "console",
            Numbers::from([("printed_bytes", printed_bytes), ("lost_bytes", lost_bytes)]),
        ),
        Counters::Random { requests, bytes } => (
            "random",
            Numbers::from([("requests", requests), ("given_bytes", bytes)]),
        ),
        Counters::Sockets {
            received,
            transmitted,
            opened,
            refused,
        } => {
            let mut numbers = ways(received, transmitted);
            numbers.extend([("opened", opened), ("refused", refused)]);
            ("sockets", numbers)
        }
        Counters::Balloon {
            inflated_bytes,
            deflated_bytes,
            reported_bytes,
            failed_bytes,
        } => (
            "balloon",
            Numbers::from([
                ("inflated_bytes", inflated_bytes),
                ("deflated_bytes", deflated_bytes),
                ("reported_bytes", reported_bytes),
                ("failed_bytes", failed_bytes),
            ]),
        ),
        Counters::Memory {
            requested_bytes,
            plugged_bytes,
            requests,
            errors,
        } => (
            "memory",
            Numbers::from([
                ("requested_bytes", requested_bytes),
                ("plugged_bytes", plugged_bytes),
                ("requests", requests),
                ("errors", errors),
            ]),
        ),
        Counters::Network { passed } => (
            "network",
            passed.map_or_else(Numbers::new, |(received, transmitted)| {
                ways(received, transmitted)
            }),
        ),
        Counters::Share { starts, gone } => (
            "share",
            Numbers::from([("starts", starts), ("gone", gone.into())]),
        ),
        Counters::Disk {
            reads,
            read_bytes,
            writes,
            written_bytes,
            flushes,
            discards,
            zeroes,
            errors,
        } => (
            "disk",
            Numbers::from([
                ("reads", reads),
                ("read_bytes", read_bytes),
                ("writes", writes),
                ("written_bytes", written_bytes),
                ("flushes", flushes),
                ("discards", discards),
                ("zeroes", zeroes),
                ("errors", errors),
            ]),
        ),
        Counters::Image { flushes, errors } => (
            "image",
            Numbers::from([("flushes", flushes), ("errors", errors)]),
        ),
    }
}

/// Both ways, as the guest sees them.
fn ways(received: Direction, transmitted: Direction) -> Numbers {
    Numbers::from([
        ("rx_packets", received.packets),
        ("rx_bytes", received.bytes),
        ("rx_dropped", received.dropped),
        ("rx_errors", received.errors),
        ("tx_packets", transmitted.packets),
        ("tx_bytes", transmitted.bytes),
        ("tx_dropped", transmitted.dropped),
        ("tx_errors", transmitted.errors),
    ])
}
