//! Devices: those of any Linux are in the guest, those of the host are not.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::check::{SpecError, unsupported};

/// Character devices that the guest has as any Linux has them: (major, minor).
const GUEST_DEVICES: [(i64, i64); 10] = [
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
    (10, 200),
    (10, 229),
];

/// Refuses devices that are the host's alone.
pub(super) fn check(linux: &Linux) -> Result<(), SpecError> {
    if is_privileged(linux) {
        return Ok(());
    }
    match linux
        .devices()
        .iter()
        .flatten()
        .find(|device| !is_in_guest(device))
    {
        Some(device) => Err(unsupported(
            format!(
                "linux.devices {} ({} {}:{})",
                device.path().display(),
                device.typ().as_str(),
                device.major(),
                device.minor()
            ),
            "devices of the host are not passed through; share a folder or use the network",
        )),
        None => Ok(()),
    }
}

/// Leaves only the guest's devices to a privileged container: its engine names every device of the host, and means every
/// device of the machine that the container is in.
pub(super) fn keep_guests(linux: &mut Linux) {
    if !is_privileged(linux) {
        return;
    }
    if let Some(mut devices) = linux.devices().clone() {
        devices.retain(is_in_guest);
        linux.set_devices(Some(devices));
    }
}

fn is_in_guest(device: &LinuxDevice) -> bool {
    device.typ() != LinuxDeviceType::B && GUEST_DEVICES.contains(&(device.major(), device.minor()))
}

/// Whether every device may be used, which is how `--privileged` shows in a spec.
fn is_privileged(linux: &Linux) -> bool {
    let rules = linux
        .resources()
        .as_ref()
        .and_then(|resources| resources.devices().as_deref());
    rules.unwrap_or_default().iter().any(allows_everything)
}

fn allows_everything(rule: &LinuxDeviceCgroup) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    let access = rule.access().as_deref().unwrap_or_default();
    rule.allow()
        && rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A)
        && any(rule.major())
        && any(rule.minor())
        && ["r", "w", "m"].iter().all(|letter| access.contains(letter))
}
