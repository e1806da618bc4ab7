//! FIFOs, opened without waiting for their other side.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// To read stdin from: ends when all writers have closed it, after the first one came.
pub fn reader(name: &str) -> Result<Option<OwnedFd>> {
    opened(name, OFlags::RDONLY | OFlags::NONBLOCK)
}

/// To write to. Opened for both directions: it neither waits for a reader nor breaks when the reader goes, so that a
/// client may come back (a containerd that is restarted) and miss nothing.
pub fn writer(name: &str) -> Result<Option<OwnedFd>> {
    let Some(fifo) = opened(name, OFlags::RDWR | OFlags::NONBLOCK)? else {
        return Ok(None);
    };
    let kind = fstat(&fifo).with_context(|| format!("cannot stat {name}"))?;
    if FileType::from_raw_mode(kind.st_mode) == FileType::RegularFile {
        return opened(name, OFlags::WRONLY | OFlags::APPEND);
    }
    Ok(Some(fifo))
}

fn opened(name: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
    if name.is_empty() {
        return Ok(None);
    }
    let path = name.strip_prefix("fifo://").unwrap_or(name);
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    open(path, flags, Mode::empty())
        .map(Some)
        .with_context(|| format!("cannot open {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_side_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let name = path.to_str().unwrap();
        assert!(reader(name).unwrap().is_some());
        assert!(writer(name).unwrap().is_some());
        assert!(writer("").unwrap().is_none());
        let error = reader("/nonexistent/fifo").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/fifo"));
    }
}
