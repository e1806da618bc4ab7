//! What the host has.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Whether this is a file that someone may execute.
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

/// Memory that the host can give without swapping, in bytes.
pub fn available_memory() -> io::Result<u64> {
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

/// Opens the KVM device as the caller.
pub fn open_kvm(device: &Path) -> io::Result<()> {
    let kvm = File::options().read(true).write(true).open(device)?;
    if kvm.metadata()?.file_type().is_char_device() {
        Ok(())
    } else {
        Err(invalid("not a device"))
    }
}

/// How a user other than root gets to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody may use it.
    Everybody,
    /// This group may.
    Group(u32),
    /// Only root may.
    Root,
}

/// Who may read and write a device.
pub fn access(device: &Path) -> io::Result<Access> {
    let metadata = fs::metadata(device)?;
    Ok(match metadata.mode() {
        mode if mode & 0o006 == 0o006 => Access::Everybody,
        mode if mode & 0o060 == 0o060 && metadata.gid() != 0 => Access::Group(metadata.gid()),
        _ => Access::Root,
    })
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
        assert!(available_memory().is_ok_and(|bytes| bytes > 0));
    }
}
