//! What a container uses, in the form of runc's `events --stats`.

use std::io;

use serde_json::{Value, json};

use super::{Cgroup, field};

/// The `data` object that runc prints.
///
/// # Errors
/// When the group cannot be read. Controllers that the kernel lacks are left out.
pub fn stats(cgroup: &Cgroup) -> io::Result<Value> {
    // This one exists in every group: reading it tells a removed group from a missing controller.
    let cpu = cgroup.read("cpu.stat")?;
    let micro = |key: &str| number(&cpu, key).saturating_mul(1000);
    let mut data = json!({
        "cpu": {
            "usage": {
                "total": micro("usage_usec"),
                "kernel": micro("system_usec"),
                "user": micro("user_usec"),
            },
            "throttling": {
                "periods": number(&cpu, "nr_periods"),
                "throttledPeriods": number(&cpu, "nr_throttled"),
                "throttledTime": micro("throttled_usec"),
            },
        },
        "cpuset": {},
        "memory": {},
        "pids": {},
        "blkio": {},
        "hugetlb": hugetlb(cgroup),
        "intel_rdt": {},
        "network_interfaces": Value::Null,
    });
    if let Ok(memory) = memory(cgroup) {
        data["memory"] = memory;
    }
    if let Ok(current) = cgroup.read("pids.current") {
        data["pids"] = json!({
            "current": current.parse::<u64>().unwrap_or_default(),
            // Zero is how runc says that there is none.
            "limit": cgroup.read("pids.max").ok().and_then(|max| max.parse().ok()).unwrap_or(0u64),
        });
    }
    if let Ok(io) = cgroup.read("io.stat") {
        data["blkio"] = blkio(&io);
    }
    Ok(data)
}

fn number(text: &str, key: &str) -> u64 {
    field(text, key)
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_default()
}

/// The number in a file; `max` is the largest there is.
fn limit(cgroup: &Cgroup, file: &str) -> u64 {
    match cgroup.read(file) {
        Ok(text) if text == "max" => u64::MAX,
        Ok(text) => text.parse().unwrap_or_default(),
        Err(_) => 0,
    }
}

fn memory(cgroup: &Cgroup) -> io::Result<Value> {
    let usage: u64 = cgroup.read("memory.current")?.parse().unwrap_or_default();
    let detail = cgroup.read("memory.stat")?;
    let events = cgroup.read("memory.events").unwrap_or_default();
    let raw: serde_json::Map<String, Value> = detail
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| {
            (
                key.to_owned(),
                json!(value.parse::<u64>().unwrap_or_default()),
            )
        })
        .collect();
    let swap = limit(cgroup, "memory.swap.current");
    Ok(json!({
        "cache": number(&detail, "file"),
        "usage": {
            "limit": limit(cgroup, "memory.max"),
            "usage": usage,
            "max": limit(cgroup, "memory.peak"),
            "failcnt": number(&events, "max"),
        },
        "swap": {
            // runc counts memory and swap together here.
            "limit": limit(cgroup, "memory.max").saturating_add(limit(cgroup, "memory.swap.max")),
            "usage": usage.saturating_add(swap),
            "max": 0,
            "failcnt": 0,
        },
        "kernel": { "limit": 0, "usage": number(&detail, "kernel"), "max": 0, "failcnt": 0 },
        "kernelTCP": { "limit": 0, "usage": number(&detail, "sock"), "max": 0, "failcnt": 0 },
        "raw": raw,
    }))
}

fn hugetlb(cgroup: &Cgroup) -> Value {
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter();
    let mut data = serde_json::Map::new();
    for entry in sizes.flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(size) = name
            .strip_prefix("hugepages-")
            .and_then(|name| name.strip_suffix("kB")?.parse::<u64>().ok())
        else {
            continue;
        };
        let size = match size {
            1_048_576.. => format!("{}GB", size / 1_048_576),
            1024.. => format!("{}MB", size / 1024),
            _ => format!("{size}KB"),
        };
        let Ok(usage) = cgroup.read(&format!("hugetlb.{size}.current")) else {
            continue;
        };
        let failures = cgroup
            .read(&format!("hugetlb.{size}.events"))
            .unwrap_or_default();
        data.insert(
            size,
            json!({
                "usage": usage.parse::<u64>().unwrap_or_default(),
                "max": 0,
                "failcnt": number(&failures, "max"),
            }),
        );
    }
    Value::Object(data)
}

fn blkio(text: &str) -> Value {
    let mut bytes = Vec::new();
    let mut counts = Vec::new();
    for line in text.lines() {
        // 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut counts, "Read"),
                "wios" => (&mut counts, "Write"),
                "dios" => (&mut counts, "Discard"),
                _ => continue,
            };
            list.push(json!({
                "major": major.parse::<u64>().unwrap_or_default(),
                "minor": minor.parse::<u64>().unwrap_or_default(),
                "op": operation,
                "value": value.parse::<u64>().unwrap_or_default(),
            }));
        }
    }
    json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": counts })
}
