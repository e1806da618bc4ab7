//! What the host has left.

use std::fs;
use std::io;

use backend_api::{BackendError, Phase};

/// Refuses a machine that needs more memory than the host could give.
///
/// # Errors
/// [`BackendError::NoMemory`].
pub fn check(needed: u64) -> Result<(), BackendError> {
    let available = available().map_err(|source| BackendError::System {
        phase: Phase::Create,
        action: "cannot read the host's free memory".to_owned(),
        source,
    })?;
    if needed > available {
        return Err(BackendError::NoMemory { needed, available });
    }
    Ok(())
}

/// Memory that the host can give without swapping, in bytes.
fn available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    parse_available(&text).ok_or_else(|| invalid("/proc/meminfo has no MemAvailable"))
}

fn parse_available(text: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read() {
        assert_eq!(
            parse_available("MemTotal: 9 kB\nMemAvailable:   2 kB\n"),
            Some(2048)
        );
        assert_eq!(parse_available("MemTotal: 9 kB\n"), None);
        assert!(available().is_ok_and(|bytes| bytes > 0));
    }
}
