//! What a process holds of the host's memory.

use std::fs;

use anyhow::{Context, Result};

/// The proportional set size of a process without its guest's memory, in KiB. Guest memory is every mapping of at least half
/// of that size.
pub fn without_guest(pid: u32, guest_mib: u64) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut total = 0;
    let mut size = 0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (key, value) = (words.next(), words.next());
        let value = value.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match key {
            Some("Size:") => size = value,
            Some("Pss:") if size < guest_mib << 9 => total += value,
            _ => {}
        }
    }
    Ok(total)
}
