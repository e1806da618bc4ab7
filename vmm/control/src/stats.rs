//! What a VMM has counted since it made its machine.

use serde::{Deserialize, Serialize};

/// Counters of a machine. There are at most as many devices as a machine has places, 23, so a message has room for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Returns from the guest.
    pub exits: Exits,
    /// Its devices.
    pub devices: Vec<DeviceStats>,
}

/// How often virtual CPUs have left the guest for the VMM, by reason. What KVM does by itself is not seen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exits {
    /// Registers of devices that were read.
    pub mmio_reads: u64,
    /// Registers of devices that were written.
    pub mmio_writes: u64,
    /// Ports that were read.
    pub port_reads: u64,
    /// Ports that were written.
    pub port_writes: u64,
    /// Other returns from the guest to the VMM.
    pub others: u64,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceStats {
    /// Its place.
    pub slot: u8,
    /// How often the guest's driver has broken it.
    pub breaks: u32,
    /// What guest and device have told each other; nothing of one whose queues the kernel or another process serves.
    pub signals: Option<Signals>,
    /// What it is, and has done.
    pub counters: Counters,
}

/// How often they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Kicks of its queues.
    pub kicks: u64,
    /// Its interrupts.
    pub interrupts: u64,
}

/// A device, and what it has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Counters {
    /// The console.
    Console {
        /// Bytes that were written to the driver.
        printed_bytes: u64,
        /// Bytes that were printed by the guest, and never written.
        lost_bytes: u64,
    },
    /// Random numbers.
    Random {
        /// Requests that were answered.
        requests: u64,
        /// Bytes that were given.
        bytes: u64,
    },
    /// Sockets to the host, the link among them.
    Sockets {
        /// Packets for the guest, and bytes of their streams.
        received: Direction,
        /// Packets of the guest. Errors are those that virtio does not allow.
        transmitted: Direction,
        /// Connections that were opened, from either side.
        opened: u64,
        /// Connections that either side wanted and did not get.
        refused: u64,
    },
    /// The balloon.
    Balloon {
        /// Bytes that the guest put into it; a page counts each time.
        inflated_bytes: u64,
        /// Bytes that the guest took out of it.
        deflated_bytes: u64,
        /// Bytes that the guest reported as free, and were given back to the host.
        reported_bytes: u64,
        /// Bytes that could not be given back.
        failed_bytes: u64,
    },
    /// Memory that grows.
    Memory {
        /// Bytes that the guest should have of it.
        requested_bytes: u64,
        /// Bytes that it has.
        plugged_bytes: u64,
        /// Requests that were carried out, questions with them.
        requests: u64,
        /// Requests that were refused, could not be carried out or make no sense.
        errors: u64,
    },
    /// A network card.
    Network {
        /// Into and out of the guest; nothing where the kernel passes the packets: the tap's interface counts those.
        passed: Option<(Direction, Direction)>,
    },
    /// A file share, served by another process, which counts.
    Share {
        /// How often a driver has started it.
        starts: u64,
        /// Whether its server is dead or has misbehaved.
        gone: bool,
    },
    /// A disk.
    Disk {
        /// Reads that succeeded.
        reads: u64,
        /// What they have read.
        read_bytes: u64,
        /// Writes that succeeded.
        writes: u64,
        /// What they have written.
        written_bytes: u64,
        /// Flushes that succeeded.
        flushes: u64,
        /// Ranges that were discarded.
        discards: u64,
        /// Ranges that were zeroed.
        zeroes: u64,
        /// Requests that failed.
        errors: u64,
    },
    /// An image in memory. That the guest reads it is not seen.
    Image {
        /// Flushes that the driver asked for.
        flushes: u64,
        /// Requests that were none.
        errors: u64,
    },
}

/// What has passed in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// Packets.
    pub packets: u64,
    /// Their bytes, without headers.
    pub bytes: u64,
    /// Packets that were lost as a wire loses them.
    pub dropped: u64,
    /// Packets that were refused.
    pub errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MESSAGE_LIMIT, Reply};

    #[test]
    fn a_full_machine_has_room_in_a_message() {
        let most = u64::MAX;
        let way = Direction {
            packets: most,
            bytes: most,
            dropped: most,
            errors: most,
        };
        let device = DeviceStats {
            slot: u8::MAX,
            breaks: u32::MAX,
            signals: Some(Signals {
                kicks: most,
                interrupts: most,
            }),
            counters: Counters::Sockets {
                received: way,
                transmitted: way,
                opened: most,
                refused: most,
            },
        };
        let stats = Stats {
            exits: Exits::default(),
            devices: vec![device; 23],
        };
        let bytes = serde_json::to_vec(&Reply::Stats(Box::new(stats))).expect("serializes");
        assert!(bytes.len() < MESSAGE_LIMIT / 2, "{} bytes", bytes.len());
    }
}
