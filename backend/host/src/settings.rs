//! The settings of a machine.

use backend_api::{BackendError, Capabilities, MEMORY_STEP, Privileges, VmConfig};

use crate::memory;

const MIB: u64 = 1 << 20;

/// The longest `virtio-fs` tag, in bytes (virtio 1.3, 5.11.4).
const MAX_TAG: usize = 36;

/// Refuses settings that no machine has, or none of a backend with these capabilities.
///
/// # Errors
/// [`BackendError::Unsupported`].
pub fn check(config: &VmConfig, capabilities: &Capabilities) -> Result<(), BackendError> {
    let unsupported = |setting: String, reason| BackendError::Unsupported { setting, reason };
    let memory = config.memory_bytes;
    if memory < 64 * MIB || !memory.is_multiple_of(MIB) {
        return Err(unsupported(
            format!("memory {memory}"),
            "is not a number of whole MiB of at least 64",
        ));
    }
    let vcpus = config.vcpus.saturating_add(config.spare_vcpus);
    if config.vcpus == 0 || vcpus > capabilities.max_vcpus {
        return Err(unsupported(
            format!("{vcpus} virtual CPUs"),
            "are none, or more than a machine has",
        ));
    }
    let spare = config.spare_memory_bytes;
    if !spare.is_multiple_of(MEMORY_STEP) || memory.checked_add(spare).is_none() {
        return Err(unsupported(
            format!("spare memory {spare}"),
            "is not a number of whole 2 MiB that can be had",
        ));
    }
    if !capabilities.resize && (spare > 0 || config.spare_vcpus > 0) {
        return Err(unsupported(
            "spare memory or virtual CPUs".to_owned(),
            "are not to be had: machines of this backend keep their size",
        ));
    }
    if config.huge_pages && !capabilities.huge_pages {
        return Err(unsupported(
            "huge_pages = true".to_owned(),
            "is not to be had with QEMU: set backend = \"kvm\", or huge_pages = false",
        ));
    }
    if config.huge_pages && !memory.is_multiple_of(memory::HUGE_PAGE) {
        return Err(unsupported(
            format!("memory {memory}"),
            "is not a number of whole huge pages of 2 MiB",
        ));
    }
    if config.sockets.is_some() && !capabilities.sockets {
        return Err(unsupported(
            "vsock".to_owned(),
            "is not to be had: machines of this backend have no sockets between guest and host",
        ));
    }
    if let Some(share) = &config.share
        && (share.tag.is_empty() || share.tag.len() > MAX_TAG)
    {
        return Err(unsupported(
            format!("share tag {:?}", share.tag),
            "is not between 1 and 36 bytes long",
        ));
    }
    if config.nics.len() > capabilities.nics {
        return Err(unsupported(
            format!("{} network cards", config.nics.len()),
            "are more than a machine has room for",
        ));
    }
    let most = capabilities.nic_queues as usize;
    if let Some(nic) = config.nics.iter().find(|nic| nic.queues.len() > most) {
        return Err(unsupported(
            format!("a network card with {} queues", nic.queues.len()),
            "has more than a card can have",
        ));
    }
    if config.nics.iter().any(|nic| nic.queues.is_empty()) {
        return Err(unsupported(
            "a network card without queues".to_owned(),
            "has no wire",
        ));
    }
    let spare = config.spare_devices.places;
    if spare > 0 && !capabilities.plug {
        return Err(unsupported(
            format!("{spare} places for devices that come later"),
            "are not to be had: machines of this backend keep their devices",
        ));
    }
    let devices = config.disks.len() + config.images.len();
    if devices.saturating_add(spare) > capabilities.devices {
        return Err(unsupported(
            format!("{devices} disks and images, and {spare} places for devices that come later,"),
            "are more than a machine has room for",
        ));
    }
    if let Some(word) = config.cmdline.iter().find(|word| !is_parameter(word)) {
        return Err(unsupported(
            format!("kernel parameter {word:?}"),
            "is not a single printable word",
        ));
    }
    if config.network.is_some() && config.privileges == Privileges::Inherit {
        return Err(unsupported(
            "a network namespace of the VMM's".to_owned(),
            "needs root",
        ));
    }
    if let Privileges::Drop { uid, gid } = config.privileges
        && (uid == 0 || gid == 0)
    {
        return Err(unsupported(
            format!("user {uid}:{gid} of the VMM"),
            "is root",
        ));
    }
    Ok(())
}

/// Whether this is one word on the kernel's command line.
fn is_parameter(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_one_word() {
        assert!(is_parameter("cofferdam.probe"));
        for bad in ["", "a b", "a\n", "a\0", "ä"] {
            assert!(!is_parameter(bad), "{bad:?}");
        }
    }
}
