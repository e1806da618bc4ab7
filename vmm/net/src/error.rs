//! Why there is no card.

use std::io;

/// Why a card can't be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A card has between one pair of queues and as many as are allowed.
    #[error("a network card can't have {0} pairs of queues: between 1 and {most} taps are needed", most = crate::PAIRS)]
    Pairs(usize),
    /// Virtio allows 68 and more (virtio 1.3, 5.1.4.1).
    #[error("a network card can't have packets of {0} bytes: 68 is the least")]
    Mtu(u16),
    /// A descriptor that does not belong to a tap, or to one that is not set up as it must be.
    #[error(
        "descriptor {number} of a network card is not that of a tap with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
    )]
    NotATap {
        /// Which of the descriptors.
        number: usize,
        /// What the operating system said, if it was asked.
        #[source]
        source: Option<io::Error>,
    },
    /// The tap refuses.
    #[error("can't set {what} of a network card's tap")]
    Tap {
        /// What was to be set.
        what: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Each pair of queues needs a descriptor of its own.
    #[error("{given} descriptors of vhost-net were given for {pairs} pairs of queues")]
    Vhosts {
        /// How many were given.
        given: usize,
        /// How many pairs there are.
        pairs: usize,
    },
    /// Packets do not pass by here.
    #[error("packets that vhost-net carries can't be limited: leave out the limits or vhost-net")]
    VhostLimits,
    /// The descriptor is not one of vhost-net, or it has an owner.
    #[error("can't use descriptor {number} of vhost-net")]
    Vhost {
        /// Which of the descriptors.
        number: usize,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// There are no descriptors left.
    #[error("can't make a descriptor for a network card")]
    Descriptor(#[source] io::Error),
}
