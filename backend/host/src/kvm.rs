//! The way to KVM.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The device.
pub const DEVICE: &str = "/dev/kvm";

/// Opens the KVM device as the caller.
///
/// # Errors
/// When it is not there or not for the caller.
pub fn open(device: &Path) -> io::Result<File> {
    let kvm = File::options().read(true).write(true).open(device)?;
    if kvm.metadata()?.file_type().is_char_device() {
        Ok(kvm)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a device"))
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
///
/// # Errors
/// When it is not there.
pub fn access(device: &Path) -> io::Result<Access> {
    let metadata = fs::metadata(device)?;
    Ok(match metadata.mode() {
        mode if mode & 0o006 == 0o006 => Access::Everybody,
        mode if mode & 0o060 == 0o060 && metadata.gid() != 0 => Access::Group(metadata.gid()),
        _ => Access::Root,
    })
}
