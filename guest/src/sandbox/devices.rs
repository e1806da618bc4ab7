//! Devices that were not there when the kernel looked for them.
//!
//! A template is a guest that was booted without a sandbox's own devices: file share, network cards. Their transports
//! (virtio 1.3, 4.2) were announced to its kernel, which found each empty and left it without a driver. In a copy of the
//! template the devices are there.

use std::fs;
use std::io;
use std::path::Path;

const DEVICES: &str = "/sys/bus/platform/devices";
const BIND: &str = "/sys/bus/platform/drivers/virtio-mmio/bind";

/// As the kernel names transports.
const PREFIX: &str = "virtio-mmio.";

/// Has the kernel look again at every transport without a driver. Those that are still empty stay as they are.
pub(super) fn find() -> io::Result<()> {
    for name in unbound(Path::new(DEVICES))? {
        match fs::write(BIND, &name) {
            Ok(()) => {}
            // What the driver answers for an empty transport.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Names of transports without a driver, in the order of their numbers: network cards are named as they are found.
fn unbound(devices: &Path) -> io::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(devices)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        if !entry.path().join("driver").exists() {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let name = |number| format!("{PREFIX}{number}");
    Ok(numbers.into_iter().map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_without_a_driver_are_found_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [
            "virtio-mmio.10",
            "virtio-mmio.2",
            "virtio-mmio.x",
            "serial8250",
        ] {
            fs::create_dir(folder.path().join(name)).expect("a device");
        }
        fs::create_dir_all(folder.path().join("virtio-mmio.1/driver")).expect("a bound device");
        let found = unbound(folder.path()).expect("names");
        assert_eq!(found, ["virtio-mmio.2", "virtio-mmio.10"]);
    }
}
