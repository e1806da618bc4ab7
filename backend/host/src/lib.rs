//! What backends have in common: what they look at before they start a machine (its configuration, its files, and what
//! the host has), and the life of a VMM process.

pub mod image;
pub mod kvm;
pub mod life;
pub mod memory;
pub mod settings;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether this is a file that someone may execute.
#[must_use]
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}
