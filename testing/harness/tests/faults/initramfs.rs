//! Guest images that are not ours.

use std::fs;
use std::path::Path;

/// The system's static busybox.
const BUSYBOX: &str = "/bin/busybox";

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes an initramfs whose first process is this shell script; answers whether the system has what that needs.
pub fn write(path: &Path, script: &str) -> bool {
    let Ok(busybox) = fs::read(BUSYBOX) else {
        eprintln!("SKIPPED: {BUSYBOX} is missing (package busybox-static)");
        return false;
    };
    let mut archive = Vec::new();
    for folder in ["bin", "dev"] {
        entry(&mut archive, folder, FOLDER, (0, 0), &[]);
    }
    entry(&mut archive, "dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    entry(&mut archive, "bin/busybox", PROGRAM, (0, 0), &busybox);
    let init = format!("#!/bin/busybox sh\n{script}\n");
    entry(&mut archive, "init", PROGRAM, (0, 0), init.as_bytes());
    entry(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    fs::write(path, archive).expect("an initramfs");
    true
}

/// Linux `Documentation/driver-api/early-userspace/buffer-format.rst`, "newc".
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
    let size = u32::try_from(data.len()).expect("a small file");
    let name_size = u32::try_from(name.len() + 1).expect("a short name");
    let inode = u32::try_from(archive.len()).expect("a small archive");
    archive.extend_from_slice(b"070701");
    for field in [
        inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
    ] {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(data);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}
