//! Numbers out of the guest's statistics: an object in the form of runc's `events --stats`. It comes from the guest, so
//! what is missing or no number counts as zero.

use serde_json::Value;

/// A number by its path.
pub fn number(stats: &Value, path: &str) -> u64 {
    stats.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

/// A line of `memory.stat`.
pub fn memory(stats: &Value, key: &str) -> u64 {
    number(stats, &format!("/memory/raw/{key}"))
}

/// A list by its path.
pub fn list<'a>(stats: &'a Value, path: &str) -> &'a [Value] {
    stats
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The members of an object by its path.
pub fn members<'a>(stats: &'a Value, path: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    stats
        .pointer(path)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// A member that is text.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// As a guest answers.
#[cfg(test)]
pub const EXAMPLE: &str = r#"{
    "cpu": {"usage": {"total": 7000000, "kernel": 3000000, "user": 4000000},
            "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 9000}},
    "memory": {"cache": 11, "usage": {"limit": 1000, "usage": 100, "max": 200, "failcnt": 3},
               "swap": {"limit": 1500, "usage": 130, "max": 0, "failcnt": 0},
               "kernel": {"usage": 17}, "kernelTCP": {"usage": 18},
               "raw": {"anon": 40, "file": 11, "inactive_file": 12, "pgfault": 13, "kernel_stack": 14}},
    "pids": {"current": 4, "limit": 50},
    "blkio": {"ioServiceBytesRecursive": [{"major": 8, "minor": 1, "op": "Read", "value": 21},
                                          {"major": 8, "minor": 1, "op": "Write", "value": 22}],
              "ioServicedRecursive": [{"major": 8, "minor": 1, "op": "Read", "value": 23}]},
    "hugetlb": {"2MB": {"usage": 31, "max": 0, "failcnt": 1}},
    "network_interfaces": [{"Name": "eth0", "RxBytes": 41, "TxBytes": 42}]
}"#;
