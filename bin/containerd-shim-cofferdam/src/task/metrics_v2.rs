//! Statistics in the form that containerd expects on a host with cgroup v2.

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryStat, Metrics, NetworkStat, PidsStat,
};
use containerd_shim_protos::protobuf::MessageField;
use serde_json::Value;

use crate::task::usage::{list, members, memory, number, text};

const NANOSECONDS: u64 = 1000;

/// The message.
pub fn metrics(stats: &Value) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.pids = MessageField::some(PidsStat {
        current: number(stats, "/pids/current"),
        limit: number(stats, "/pids/limit"),
        ..PidsStat::default()
    });
    metrics.cpu = MessageField::some(CPUStat {
        usage_usec: number(stats, "/cpu/usage/total") / NANOSECONDS,
        user_usec: number(stats, "/cpu/usage/user") / NANOSECONDS,
        system_usec: number(stats, "/cpu/usage/kernel") / NANOSECONDS,
        nr_periods: number(stats, "/cpu/throttling/periods"),
        nr_throttled: number(stats, "/cpu/throttling/throttledPeriods"),
        throttled_usec: number(stats, "/cpu/throttling/throttledTime") / NANOSECONDS,
        ..CPUStat::default()
    });
    metrics.memory = MessageField::some(memory_stat(stats));
    metrics.io = MessageField::some(IOStat {
        usage: io(stats),
        ..IOStat::default()
    });
    metrics.hugetlb = members(stats, "/hugetlb")
        .map(|(size, value)| HugeTlbStat {
            pagesize: size.clone(),
            current: number(value, "/usage"),
            max: number(value, "/max"),
            failcnt: number(value, "/failcnt"),
            ..HugeTlbStat::default()
        })
        .collect();
    metrics.network = list(stats, "/network_interfaces")
        .iter()
        .map(|card| NetworkStat {
            name: text(card, "Name"),
            rx_bytes: number(card, "/RxBytes"),
            rx_packets: number(card, "/RxPackets"),
            rx_errors: number(card, "/RxErrors"),
            rx_dropped: number(card, "/RxDropped"),
            tx_bytes: number(card, "/TxBytes"),
            tx_packets: number(card, "/TxPackets"),
            tx_errors: number(card, "/TxErrors"),
            tx_dropped: number(card, "/TxDropped"),
            ..NetworkStat::default()
        })
        .collect();
    metrics
}

fn memory_stat(stats: &Value) -> MemoryStat {
    let usage = number(stats, "/memory/usage/usage");
    let limit = number(stats, "/memory/usage/limit");
    MemoryStat {
        anon: memory(stats, "anon"),
        file: memory(stats, "file"),
        kernel_stack: memory(stats, "kernel_stack"),
        slab: memory(stats, "slab"),
        sock: memory(stats, "sock"),
        shmem: memory(stats, "shmem"),
        file_mapped: memory(stats, "file_mapped"),
        file_dirty: memory(stats, "file_dirty"),
        file_writeback: memory(stats, "file_writeback"),
        anon_thp: memory(stats, "anon_thp"),
        inactive_anon: memory(stats, "inactive_anon"),
        active_anon: memory(stats, "active_anon"),
        inactive_file: memory(stats, "inactive_file"),
        active_file: memory(stats, "active_file"),
        unevictable: memory(stats, "unevictable"),
        slab_reclaimable: memory(stats, "slab_reclaimable"),
        slab_unreclaimable: memory(stats, "slab_unreclaimable"),
        pgfault: memory(stats, "pgfault"),
        pgmajfault: memory(stats, "pgmajfault"),
        pgrefill: memory(stats, "pgrefill"),
        pgscan: memory(stats, "pgscan"),
        pgsteal: memory(stats, "pgsteal"),
        pgactivate: memory(stats, "pgactivate"),
        pgdeactivate: memory(stats, "pgdeactivate"),
        pglazyfree: memory(stats, "pglazyfree"),
        pglazyfreed: memory(stats, "pglazyfreed"),
        thp_fault_alloc: memory(stats, "thp_fault_alloc"),
        thp_collapse_alloc: memory(stats, "thp_collapse_alloc"),
        usage,
        usage_limit: limit,
        max_usage: number(stats, "/memory/usage/max"),
        // The guest counts memory and swap together, as runc does.
        swap_usage: number(stats, "/memory/swap/usage").saturating_sub(usage),
        swap_limit: match number(stats, "/memory/swap/limit") {
            u64::MAX => u64::MAX,
            both => both.saturating_sub(limit),
        },
        ..MemoryStat::default()
    }
}

/// One entry for each device.
fn io(stats: &Value) -> Vec<IOEntry> {
    let mut devices: BTreeMap<(u64, u64), IOEntry> = BTreeMap::new();
    for (path, counts) in [
        ("/blkio/ioServiceBytesRecursive", false),
        ("/blkio/ioServicedRecursive", true),
    ] {
        for entry in list(stats, path) {
            let (major, minor) = (number(entry, "/major"), number(entry, "/minor"));
            let value = number(entry, "/value");
            let device = devices.entry((major, minor)).or_default();
            (device.major, device.minor) = (major, minor);
            match (text(entry, "op").as_str(), counts) {
                ("Read", false) => device.rbytes = value,
                ("Write", false) => device.wbytes = value,
                ("Read", true) => device.rios = value,
                ("Write", true) => device.wios = value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_their_places() {
        let stats = serde_json::from_str(crate::task::usage::EXAMPLE).unwrap();
        let metrics = metrics(&stats);
        assert_eq!(metrics.cpu.usage_usec, 7000);
        assert_eq!(metrics.cpu.throttled_usec, 9);
        assert_eq!(metrics.memory.usage, 100);
        assert_eq!(metrics.memory.kernel_stack, 14);
        assert_eq!(metrics.memory.swap_usage, 30);
        assert_eq!(metrics.memory.swap_limit, 500);
        assert_eq!(metrics.io.usage.len(), 1);
        let device = &metrics.io.usage[0];
        assert_eq!((device.rbytes, device.wbytes, device.rios), (21, 22, 23));
        assert_eq!(metrics.pids.current, 4);
        assert_eq!(metrics.network[0].rx_bytes, 41);
    }
}
