//! Why a share can't be offered.

use std::io;

use vmm_virtio::Broken;

use crate::link::Fault;

/// Why a share can't be offered to a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tag by which the guest mounts it.
    #[error("the tag of a share has {0} bytes, and not 1 to 36 without zeros")]
    Tag(usize),
    /// The number of request queues.
    #[error("a share can't have {0} request queues, only 1 to 64")]
    Queues(u16),
    /// The size of each queue.
    #[error("a share's queues can't have {0} entries, only a power of two up to 32768")]
    QueueSize(u16),
    /// The server can get memory only by a descriptor.
    #[error(
        "the guest's memory at {0:#x} has no descriptor that the file server could map; use a memfd"
    )]
    NoDescriptor(u64),
    /// The server would write into pages that the guest does not see.
    #[error("the guest's memory at {0:#x} is mapped privately; map it shared for a file server")]
    Private(u64),
    /// One message has to carry all descriptors.
    #[error("the guest's memory has {0} regions, more than the 32 that a file server takes")]
    Regions(usize),
    /// The server lacks what is needed.
    #[error("the file server does not support {0}")]
    Unfit(&'static str),
    /// The server has fewer queues than were asked for.
    #[error("the file server has {has} queues, and {wanted} are wanted")]
    FewQueues {
        /// How many it has, with the one for urgent requests.
        has: u64,
        /// How many there are to be.
        wanted: u64,
    },
    /// The conversation failed.
    #[error("cannot agree with the file server")]
    Server(#[from] Fault),
    /// There are no descriptors left.
    #[error("cannot make a timer for the file server")]
    Timer(#[source] io::Error),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self(fault.text())
    }
}
