//! What the host has left.

use std::fs;
use std::io;
use std::path::Path;

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

/// The size of a huge page, in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// What the kernel tells of pages of that size.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Refuses a machine that needs more huge pages than the host has set aside and nobody else uses.
///
/// # Errors
/// [`BackendError::NoHugePages`].
pub fn check_huge(bytes: u64) -> Result<(), BackendError> {
    let free = free_huge(Path::new(HUGE_PAGES)).map_err(|source| BackendError::System {
        phase: Phase::Create,
        action: "cannot read the number of the host's huge pages".to_owned(),
        source,
    })?;
    let needed = bytes.div_ceil(HUGE_PAGE);
    if needed > free {
        return Err(BackendError::NoHugePages { needed, free });
    }
    Ok(())
}

/// Those that are free, without those that were promised to somebody.
fn free_huge(folder: &Path) -> io::Result<u64> {
    let read = |name: &str| match fs::read_to_string(folder.join(name)) {
        Ok(text) => text
            .trim()
            .parse::<u64>()
            .map_err(|_| invalid("a number of huge pages is none")),
        // A host without them.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    Ok(read("free_hugepages")?.saturating_sub(read("resv_hugepages")?))
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
    fn huge_pages_that_were_promised_are_not_free() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(free_huge(folder.path()).expect("none"), 0);
        fs::write(folder.path().join("free_hugepages"), "70\n").expect("writes");
        fs::write(folder.path().join("resv_hugepages"), "64\n").expect("writes");
        assert_eq!(free_huge(folder.path()).expect("reads"), 6);
        fs::write(folder.path().join("resv_hugepages"), "many\n").expect("writes");
        free_huge(folder.path()).expect_err("no number");
        let error = check_huge(1 << 60).expect_err("too many").to_string();
        assert!(error.contains("needs 549755813888 huge pages"), "{error}");
        assert!(error.contains("vm.nr_hugepages"), "{error}");
    }

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
