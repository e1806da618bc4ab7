//! What can go wrong before and while a machine runs.

use std::io;

/// Why a machine can't be made or booted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM has refused a step.
    #[error("kvm: cannot {action}")]
    Kvm {
        /// The step.
        action: &'static str,
        /// KVM's answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM lacks what a machine needs.
    #[error("kvm: this host's has no {0}")]
    Lacking(&'static str),
    /// The operating system has refused a step.
    #[error("cannot {action}")]
    System {
        /// The step.
        action: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The kernel is neither an ELF program nor a bzImage, or not a whole one.
    #[error("the guest kernel cannot be loaded: {0}")]
    Kernel(linux_loader::loader::Error),
    /// What is to be loaded has no place.
    #[error("{what} of {size} bytes does not fit into the guest's memory")]
    TooLarge {
        /// The kernel, its image, its command line, or an image in memory.
        what: &'static str,
        /// Its size, in bytes.
        size: u64,
    },
    /// A machine of this shape is not made.
    #[error("{0}")]
    Shape(&'static str),
    /// All places for devices are taken, or of a guest that runs those that it knows.
    #[error("the machine has no place left for a device")]
    Full,
    /// There is nothing to take away.
    #[error("there is no device in this place")]
    Empty,
}

impl Error {
    pub(crate) fn kvm(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { action, source }
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
