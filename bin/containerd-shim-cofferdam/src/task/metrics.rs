//! Statistics in the form that containerd expects on a host with cgroup v1.

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryStat, Metrics,
    NetworkStat, PidsStat, Throttle,
};
use containerd_shim_protos::protobuf::MessageField;
use serde_json::Value;

use crate::task::usage::{list, members, memory, number, text};

/// The message.
pub fn metrics(stats: &Value) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.cpu = MessageField::some(cpu(stats));
    metrics.memory = MessageField::some(memory_stat(stats));
    metrics.pids = MessageField::some(PidsStat {
        current: number(stats, "/pids/current"),
        limit: number(stats, "/pids/limit"),
        ..PidsStat::default()
    });
    metrics.blkio = MessageField::some(BlkIOStat {
        io_service_bytes_recursive: entries(stats, "/blkio/ioServiceBytesRecursive"),
        io_serviced_recursive: entries(stats, "/blkio/ioServicedRecursive"),
        ..BlkIOStat::default()
    });
    metrics.hugetlb = members(stats, "/hugetlb")
        .map(|(size, value)| HugetlbStat {
            pagesize: size.clone(),
            usage: number(value, "/usage"),
            max: number(value, "/max"),
            failcnt: number(value, "/failcnt"),
            ..HugetlbStat::default()
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

fn cpu(stats: &Value) -> CPUStat {
    CPUStat {
        usage: MessageField::some(CPUUsage {
            total: number(stats, "/cpu/usage/total"),
            kernel: number(stats, "/cpu/usage/kernel"),
            user: number(stats, "/cpu/usage/user"),
            ..CPUUsage::default()
        }),
        throttling: MessageField::some(Throttle {
            periods: number(stats, "/cpu/throttling/periods"),
            throttled_periods: number(stats, "/cpu/throttling/throttledPeriods"),
            throttled_time: number(stats, "/cpu/throttling/throttledTime"),
            ..Throttle::default()
        }),
        ..CPUStat::default()
    }
}

/// The guest's cgroup v2 has no numbers without those of groups below: both kinds are the same here.
fn memory_stat(stats: &Value) -> MemoryStat {
    let entry = |path: &str| {
        let part = |name: &str| number(stats, &format!("/memory/{path}/{name}"));
        MessageField::some(MemoryEntry {
            limit: part("limit"),
            usage: part("usage"),
            max: part("max"),
            failcnt: part("failcnt"),
            ..MemoryEntry::default()
        })
    };
    let (cache, rss, huge) = (
        number(stats, "/memory/cache"),
        memory(stats, "anon"),
        memory(stats, "anon_thp"),
    );
    let (mapped, dirty, writeback) = (
        memory(stats, "file_mapped"),
        memory(stats, "file_dirty"),
        memory(stats, "file_writeback"),
    );
    let (faults, major) = (memory(stats, "pgfault"), memory(stats, "pgmajfault"));
    let (inactive_anon, active_anon) =
        (memory(stats, "inactive_anon"), memory(stats, "active_anon"));
    let (inactive_file, active_file) =
        (memory(stats, "inactive_file"), memory(stats, "active_file"));
    let unevictable = memory(stats, "unevictable");
    MemoryStat {
        cache,
        total_cache: cache,
        rss,
        total_rss: rss,
        rss_huge: huge,
        total_rss_huge: huge,
        mapped_file: mapped,
        total_mapped_file: mapped,
        dirty,
        total_dirty: dirty,
        writeback,
        total_writeback: writeback,
        pg_fault: faults,
        total_pg_fault: faults,
        pg_maj_fault: major,
        total_pg_maj_fault: major,
        inactive_anon,
        total_inactive_anon: inactive_anon,
        active_anon,
        total_active_anon: active_anon,
        inactive_file,
        total_inactive_file: inactive_file,
        active_file,
        total_active_file: active_file,
        unevictable,
        total_unevictable: unevictable,
        hierarchical_memory_limit: number(stats, "/memory/usage/limit"),
        hierarchical_swap_limit: number(stats, "/memory/swap/limit"),
        usage: entry("usage"),
        swap: entry("swap"),
        kernel: entry("kernel"),
        kernel_tcp: entry("kernelTCP"),
        ..MemoryStat::default()
    }
}

fn entries(stats: &Value, path: &str) -> Vec<BlkIOEntry> {
    list(stats, path)
        .iter()
        .map(|entry| BlkIOEntry {
            op: text(entry, "op"),
            major: number(entry, "/major"),
            minor: number(entry, "/minor"),
            value: number(entry, "/value"),
            ..BlkIOEntry::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_their_places() {
        let stats = serde_json::from_str(crate::task::usage::EXAMPLE).unwrap();
        let metrics = metrics(&stats);
        assert_eq!(metrics.cpu.usage.total, 7_000_000);
        assert_eq!(metrics.cpu.throttling.throttled_time, 9000);
        assert_eq!(metrics.memory.usage.usage, 100);
        assert_eq!(metrics.memory.usage.limit, 1000);
        assert_eq!(metrics.memory.total_inactive_file, 12);
        assert_eq!(metrics.memory.rss, 40);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (4, 50));
        let read = &metrics.blkio.io_service_bytes_recursive[0];
        assert_eq!((read.op.as_str(), read.value), ("Read", 21));
        assert_eq!(metrics.hugetlb[0].usage, 31);
        assert_eq!(metrics.network[0].tx_bytes, 42);
        let nonsense = serde_json::json!({"cpu": 3, "blkio": "x", "hugetlb": [1]});
        assert_eq!(super::metrics(&nonsense).cpu.usage.total, 0);
    }
}
