//! What a card is made from, and what its driver reads of it.

use std::os::fd::OwnedFd;

use vmm_virtio::Rates;

/// What a card is made from.
#[derive(Debug, Default)]
pub struct Settings {
    /// The guest's address.
    pub mac: [u8; 6],
    /// The tap: a descriptor for each of its queues, attached, made with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`, and
    /// `IFF_MULTI_QUEUE` if there are several.
    pub taps: Vec<OwnedFd>,
    /// The longest packet without Ethernet's header; `None` leaves it to the driver.
    pub mtu: Option<u16>,
    /// Opened `/dev/vhost-net`, as many as taps: packets are carried by the kernel. None: they are carried here.
    pub vhosts: Vec<OwnedFd>,
    /// What the guest may receive. An offloaded packet counts as one.
    pub receive: Rates,
    /// What the guest may send.
    pub transmit: Rates,
}

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

/// `struct virtio_net_config` as far as its features are offered (5.1.4).
pub(crate) fn space(mac: [u8; 6], up: bool, pairs: u16, mtu: Option<u16>) -> [u8; 12] {
    let mut space = [0; 12];
    space[..6].copy_from_slice(&mac);
    space[6..8].copy_from_slice(&(if up { LINK_UP } else { 0 }).to_le_bytes());
    space[8..10].copy_from_slice(&pairs.to_le_bytes());
    space[10..].copy_from_slice(&mtu.unwrap_or(0).to_le_bytes());
    space
}
