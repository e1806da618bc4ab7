//! How mounts spread between a container and what is around it.
//!
//! The guest's kernel has mounts of its own: those that a container makes stay in its virtual machine.

use oci_spec::runtime::{Linux, Mount};

use super::check::{SpecError, invalid, unsupported};

/// What a spec says of its root file system, and what the guest is told: its mounts are always changed together.
const OF_ROOT: [(&str, Option<&str>); 9] = [
    ("", None),
    ("private", Some("private")),
    ("rprivate", Some("private")),
    ("slave", Some("slave")),
    ("rslave", Some("slave")),
    ("shared", Some("shared")),
    ("rshared", Some("shared")),
    ("unbindable", Some("unbindable")),
    ("runbindable", Some("unbindable")),
];

/// Refuses words that mean nothing.
pub(super) fn check(linux: &Linux) -> Result<(), SpecError> {
    match linux.rootfs_propagation().as_deref() {
        Some(word) if !OF_ROOT.iter().any(|(known, _)| *known == word) => Err(invalid(format!(
            "linux.rootfsPropagation {word:?} is not supported"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a volume whose mounts the host is to see.
pub(super) fn check_volume(name: &str, mount: &Mount) -> Result<(), SpecError> {
    let shared = mount
        .options()
        .iter()
        .flatten()
        .find(|option| *option == "shared" || *option == "rshared");
    match shared {
        Some(option) => Err(unsupported(
            format!("{name}: option {option}"),
            "what the container mounts stays in its virtual machine; mount it on the host, and use rslave or rprivate",
        )),
        None => Ok(()),
    }
}

/// Says it in the guest's words.
pub(super) fn translate(linux: &mut Linux) {
    let word = linux.rootfs_propagation().clone().unwrap_or_default();
    let inside = OF_ROOT
        .iter()
        .find_map(|(known, inside)| (*known == word).then_some(*inside));
    linux.set_rootfs_propagation(inside.flatten().map(str::to_owned));
}
